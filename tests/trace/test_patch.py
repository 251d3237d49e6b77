"""What a patch refuses, what it mixes, and what its noise looks like."""

from dataclasses import replace

import pytest
import torch

from interp_core.errors import InterpError
from interp_core.trace.patch import Patch, SiteSpec, sweep_layers
from tests.trace.cases import at
from tests.trace.conftest import Runs


def test_a_patch_takes_a_donor_or_a_seed_and_a_source_for_each_position(runs: Runs) -> None:
    a, b = runs["middle"], runs["long"]
    with pytest.raises(InterpError, match="either a donor or a noise seed, and exactly one"):
        Patch(a, None, *at(20, 25))
    with pytest.raises(InterpError, match="either a donor or a noise seed, and exactly one"):
        Patch(a, b, *at(20, 25), noise_seed=1)
    with pytest.raises(InterpError, match="5 positions and 4 sources; need one each"):
        Patch(a, b, torch.arange(20, 25), torch.arange(20, 24).double())
    with pytest.raises(InterpError, match="0 positions and 0 sources; need one each, 1 or more"):
        Patch(a, b, *at(20, 20))
    assert Patch(a, b, *at(20, 25)).replaced == 5


@pytest.mark.parametrize("alpha", [-0.1, 1.01, float("nan"), float("inf")])
def test_a_strength_outside_zero_to_one_is_refused(runs: Runs, alpha: float) -> None:
    with pytest.raises(InterpError, match=rf"alpha={alpha} is outside \[0, 1\]"):
        Patch(runs["middle"], runs["long"], *at(20, 25), alpha=alpha)


def test_positions_that_a_clip_has_not_or_that_go_back_are_refused(runs: Runs) -> None:
    a, b = runs["short"], runs["middle"]
    n, m = a.prompted.n_pos, b.prompted.n_pos
    back = torch.tensor([22, 21])
    for positions, source, words in (
        (*at(n - 2, n + 1), rf"positions {n - 2}, {n - 1}, {n} leave those of clip 'short' \(valid: 0 to {n - 1}\)"),
        (*at(-1, 3, 1), "positions .* of clip 'short'"),
        (back, back.double(), "positions 22, 21 are not ascending; sort them"),
        (torch.tensor([21, 21]), torch.tensor([21.0, 22.0]).double(), "ascending"),
        (*at(10, 12, m - 11.5), rf"sources .* leave those of clip 'middle' \(valid: 0 to {m - 1}\)"),
        (*at(0, 2, -0.5), "sources -0.5, 0.5 leave those of clip 'middle'"),
    ):
        with pytest.raises(InterpError, match=words):
            Patch(a, b, positions, source)
    Patch(a, b, *at(0, n)), Patch(a, b, *at(n - 1, n, m - n))  # up to the last of both


def test_within_a_subspace_only_its_part_of_the_difference_is_exchanged(runs: Runs) -> None:
    patch = Patch(runs["middle"], runs["long"], torch.tensor([20, 21]), torch.tensor([1.0, 2.0]).double(), alpha=0.5)
    own, donor = torch.ones(2, 4), torch.tensor([[0.0, 0, 0, 0], [3, 5, 1, 1], [1, 1, 9, 1]])
    diagonal = torch.tensor([[1.0, 1, 0, 0]]).double() / 2**0.5
    # B - A is (2, 4, 0, 0) and (0, 0, 8, 0): along (1, 1) it is (3, 3) and nothing, of which half is taken.
    found = replace(patch, within={7: diagonal}).mix(own, donor, 7)
    torch.testing.assert_close(found, torch.tensor([[2.5, 2.5, 1, 1], [1, 1, 1, 1]]))
    one = replace(patch, within={7: torch.ones(1, 1)}).mix(own, donor, 7, slice(2, 3))
    torch.testing.assert_close(one, torch.tensor([[1.0, 1, 1, 1], [1, 1, 5, 1]]))
    nothing = replace(patch, within={7: torch.zeros(1, 4)}).mix(own, donor, 7)
    assert torch.equal(nothing, own)


def test_mix_weighs_the_donor_by_alpha_and_keeps_other_columns(runs: Runs) -> None:
    patch = Patch(runs["middle"], runs["long"], torch.tensor([20, 21]), torch.tensor([1.0, 2.75]).double(), alpha=0.25)
    own, donor = torch.full((2, 4), 8.0), torch.arange(12.0).view(3, 4)[[0, 1, 2, 2]]
    # Donor rows at 1 and at 2.75: [4..7] and 0.25 * row 2 + 0.75 * row 3, both [8..11].
    assert torch.equal(patch.donor_value(donor), torch.tensor([[4.0, 5, 6, 7], [8, 9, 10, 11]]))
    assert torch.equal(patch.mix(own, donor, 0), torch.tensor([[7.0, 7.25, 7.5, 7.75], [8, 8.25, 8.5, 8.75]]))
    one = patch.mix(own, donor, 0, slice(1, 2))
    assert torch.equal(one, torch.tensor([[8.0, 7.25, 8, 8], [8, 8.25, 8, 8]]))
    assert torch.equal(own, torch.full((2, 4), 8.0))  # the pass's own tensor is left alone


def test_a_source_at_the_donors_end_reads_its_last_position(runs: Runs) -> None:
    m = runs["long"].prompted.n_pos
    patch = Patch(runs["middle"], runs["long"], torch.tensor([20, 21]), torch.tensor([m - 1.5, m - 1.0]).double())
    found = patch.donor_value(torch.arange(float(m))[:, None])
    assert found.flatten().tolist() == [m - 1.5, m - 1.0]


def test_noise_has_the_norms_of_what_it_replaces_and_new_directions_a_seed_and_layer(runs: Runs) -> None:
    run = runs["long"]
    start, stop = run.prompted.audio
    patch = Patch(run, None, *at(start, stop), noise_seed=3)
    own = run.at("resid_post", 2)[start:stop]
    noise = patch.mix(own, None, 2)
    assert torch.allclose(noise.norm(dim=-1), own.norm(dim=-1), rtol=1e-5)
    assert not torch.allclose(own.norm(dim=-1), own.norm(dim=-1).flip(0), rtol=1e-2)  # control: norms do differ
    cosine = lambda x, y: torch.nn.functional.cosine_similarity(x, y, dim=-1).mean().abs()  # noqa: E731
    assert torch.equal(patch.mix(own, None, 2), noise)  # seeded
    for other in (own, patch.mix(own, None, 3), replace(patch, noise_seed=4).mix(own, None, 2), noise.roll(1, 0)):
        assert cosine(noise, other) < 0.15
    half = replace(patch, alpha=0.5).mix(own, None, 2)
    assert torch.allclose(half, (own + noise) / 2, atol=1e-6)
    head = patch.mix(own, None, 2, slice(0, 12))
    assert torch.equal(head[:, 12:], own[:, 12:])
    assert torch.allclose(head[:, :12].norm(dim=-1), own[:, :12].norm(dim=-1), rtol=1e-5)


def test_sweep_layers_are_all_or_the_chosen_ones_in_order() -> None:
    assert sweep_layers("resid_post", 3) == (-1, 0, 1, 2)
    assert sweep_layers("attn_out", 3) == (0, 1, 2)
    assert sweep_layers("resid_post", 3, [2, -1, 2]) == (-1, 2)
    with pytest.raises(InterpError, match=r"layers \[-2, 3\] do not exist at resid_post \(valid: -1 to 2\)"):
        sweep_layers("resid_post", 3, [-2, 0, 3])
    with pytest.raises(InterpError, match=r"layers \[-1\] do not exist at mlp_out \(valid: 0 to 2\)"):
        sweep_layers("mlp_out", 3, [-1])
    with pytest.raises(InterpError, match="no layer"):
        sweep_layers("mlp_out", 3, [])


def test_a_site_spec_names_its_head_by_its_width_and_its_layers_in_order() -> None:
    assert SiteSpec("head_out", 2, 12, (0,)).columns_at(0) == slice(24, 36)
    by_layer = SiteSpec("head_out", 1, {0: 4, 3: 8}, (0, 3))
    assert [by_layer.columns_at(layer) for layer in (0, 3)] == [slice(4, 8), slice(8, 16)]
    assert SiteSpec("head_out", layers=(0,)).columns_at(0) == slice(None)
    assert SiteSpec("resid_pre", layers=(0,)).inside and not SiteSpec(layers=(0,)).inside
    with pytest.raises(InterpError, match="head=2 .* d_head"):
        SiteSpec("head_out", 2, layers=(0,))  # would be an empty slice: an edit that does nothing
    with pytest.raises(InterpError, match="head=2 goes with kind 'head_out'"):
        SiteSpec("attn_out", 2, 12, (0,))
    for layers in ((2, 1), (1, 1)):
        with pytest.raises(InterpError, match="ascending"):
            SiteSpec(layers=layers)
