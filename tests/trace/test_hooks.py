"""Identities that hold for any weights, and hooks that leave nothing behind."""

import pytest
import torch
import torch.nn.functional as F

from interp_core.errors import InterpError
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.labels import LabelTokens
from interp_core.sites import Kind, Site
from interp_core.trace.hooks import captured, edited
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import sweep
from tests.conftest import our_hooks
from tests.trace.conftest import Runs
from tests.trace.naive import gap, plain_logits, states

KINDS: tuple[Kind, ...] = ("resid_pre", "resid_post", "attn_out", "mlp_out", "head_out", "mlp_act", "resid_mid")
EVERY_SITE = [Site(kind, layer) for kind in KINDS for layer in range(5)]


def forward(subject: AudioLLM, inputs: dict) -> torch.Tensor:
    with torch.inference_mode():
        return subject.hf(**inputs, use_cache=False).logits[0, -1].float()


def test_capturing_changes_no_logit_and_an_edit_does(tiny: AudioLLM, runs: Runs) -> None:
    inputs = runs["long"].prompted.inputs
    expected = plain_logits(tiny.hf, inputs)
    with captured(tiny, EVERY_SITE, calls=list(tiny.blocks)) as store:
        assert torch.equal(forward(tiny, inputs), expected)
    assert set(store.values) == set(EVERY_SITE) and len(store.calls) == 5
    assert torch.equal(forward(tiny, inputs), expected)
    with edited(tiny, {Site("resid_post", 2): lambda v: 2 * v}):
        assert gap(forward(tiny, inputs), expected) > 0.01


def test_what_is_kept_can_be_reduced_as_the_pass_goes_by(tiny: AudioLLM, runs: Runs) -> None:
    inputs = runs["middle"].prompted.inputs
    expected = plain_logits(tiny.hf, inputs)
    with captured(tiny, EVERY_SITE) as whole:
        forward(tiny, inputs)
    with captured(tiny, EVERY_SITE, reduce=lambda site, value: (site.layer + 1) * value.mean(1)) as store:
        assert torch.equal(forward(tiny, inputs), expected)  # the pass itself goes on with the whole activation
    for site in EVERY_SITE:
        assert torch.equal(store[site], (site.layer + 1) * whole[site].mean(1)), site


@pytest.mark.parametrize("kind", KINDS)
def test_captured_sites_equal_those_of_plain_hooks(tiny: AudioLLM, runs: Runs, kind: str) -> None:
    inputs = runs["middle"].prompted.inputs
    with captured(tiny, [Site(kind, layer) for layer in range(5)]) as store:
        forward(tiny, inputs)
    for layer, expected in states(tiny.hf, inputs, kind, range(5)).items():
        assert torch.equal(store[Site(kind, layer)][0], expected)
        assert not torch.equal(store[Site(kind, (layer + 1) % 5)][0], expected)


def test_resid_pre_and_resid_post_are_the_librarys_hidden_states_except_the_last(tiny: AudioLLM, runs: Runs) -> None:
    inputs = runs["middle"].prompted.inputs
    sites = [Site(kind, layer) for kind in ("resid_pre", "resid_post") for layer in range(5)]
    with captured(tiny, sites) as store, torch.inference_mode():
        hidden = tiny.hf(**inputs, use_cache=False, output_hidden_states=True).hidden_states
    assert len(hidden) == 6
    for layer in range(5):
        assert torch.equal(store[Site("resid_pre", layer)], hidden[layer])
        if layer < 4:
            assert torch.equal(store[Site("resid_post", layer)], hidden[layer + 1])
    last = store[Site("resid_post", 4)]
    assert gap(last, hidden[5]) > 0.01  # the library's last entry has been through the final norm
    assert torch.equal(tiny.hf.model.language_model.norm(last), hidden[5])


def test_head_out_projects_to_attn_out_and_mlp_act_to_mlp_out_and_they_sum_to_the_block(
    tiny: AudioLLM, runs: Runs
) -> None:
    with captured(tiny, EVERY_SITE) as store:
        forward(tiny, runs["middle"].prompted.inputs)
    for layer, block in enumerate(tiny.blocks):
        at = {kind: store[Site(kind, layer)] for kind in KINDS}
        assert gap(block.self_attn.o_proj(at["head_out"]), at["attn_out"]) < 1e-6
        assert gap(block.mlp.down_proj(at["mlp_act"]), at["mlp_out"]) < 1e-6
        assert gap(at["resid_pre"] + at["attn_out"], at["resid_mid"]) < 1e-6
        assert gap(at["resid_mid"] + at["mlp_out"], at["resid_post"]) < 1e-6
        swapped = torch.cat([at["head_out"][..., 12:24], at["head_out"][..., :12], at["head_out"][..., 24:]], -1)
        assert gap(block.self_attn.o_proj(swapped), at["attn_out"]) > 0.01  # control: heads are in order


def test_a_head_of_head_out_is_that_heads_attention(build, runs_of) -> None:
    subject = build(attention="eager")
    run = runs_of(subject)["short"]
    with torch.inference_mode():
        weights = subject.hf(**run.prompted.inputs, use_cache=False, output_attentions=True).attentions[2]
    for head in range(4):
        by_hand = weights[0, head] @ run.values[2, head // 2]  # 4 heads on 2 key-value heads
        assert gap(run.at("head_out", 2)[:, head * 12 : (head + 1) * 12], by_hand) < 1e-5


def test_what_is_captured_survives_an_in_place_change_behind_it(tiny: AudioLLM, runs: Runs) -> None:
    inputs = runs["short"].prompted.inputs
    expected = states(tiny.hf, inputs, "mlp_out", [1])[1]
    handle = tiny.blocks[1].mlp.register_forward_hook(lambda _m, _a, output: output.zero_())
    with captured(tiny, [Site("mlp_out", 1)]) as store:
        forward(tiny, inputs)
    handle.remove()
    assert torch.equal(store[Site("mlp_out", 1)][0], expected)


def test_the_librarys_own_hidden_states_show_an_edit(tiny: AudioLLM, runs: Runs) -> None:
    inputs = runs["short"].prompted.inputs
    with torch.inference_mode():
        before = tiny.hf(**inputs, output_hidden_states=True).hidden_states[2]
        with edited(tiny, {Site("resid_post", 1): lambda v: v + 1}):
            after = tiny.hf(**inputs, output_hidden_states=True).hidden_states[2]
    assert gap(after, before + 1) < 1e-6


@pytest.mark.parametrize("bad", [Site("resid_post", 5), Site("mlp_out", -1), Site("head_out", 0, 4)])
def test_an_unknown_site_among_good_ones_registers_nothing(tiny: AudioLLM, bad: Site) -> None:
    good = [Site("resid_post", 0), Site("attn_out", 1)]
    for context in (lambda: captured(tiny, [*good, bad]), lambda: edited(tiny, {s: lambda v: v for s in [*good, bad]})):
        with pytest.raises(InterpError, match=r"(layer|head)=-?\d is outside .* \(valid: 0 to [34]\)"), context():
            raise AssertionError("the block must not run")
        assert our_hooks(tiny) == []


def test_no_hook_outlives_an_error_in_an_edit_in_the_forward_or_in_the_block(tiny: AudioLLM, runs: Runs) -> None:
    inputs = runs["short"].prompted.inputs
    expected = plain_logits(tiny.hf, inputs)
    sites = {Site(kind, 1): lambda v: v for kind in KINDS}

    def broken(_value: torch.Tensor) -> torch.Tensor:
        assert our_hooks(tiny), "control: the hooks are there while the pass runs"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), edited(tiny, {**sites, Site("resid_post", 2): broken}):
        forward(tiny, inputs)
    assert our_hooks(tiny) == []
    with pytest.raises(RuntimeError, match="indices"), edited(tiny, sites), captured(tiny, EVERY_SITE):
        tiny.hf(input_ids=torch.zeros(1, 4))  # float ids: the library's own error
    assert our_hooks(tiny) == []
    with pytest.raises(KeyboardInterrupt), captured(tiny, EVERY_SITE, calls=[tiny.decoder], stop=True):
        raise KeyboardInterrupt
    assert our_hooks(tiny) == []
    with (
        pytest.raises(InterpError, match=r"made \(1, 1, 48\) out of"),
        edited(tiny, {Site("resid_post", 2): lambda v: v[:, :1]}),
    ):
        forward(tiny, inputs)
    assert our_hooks(tiny) == []
    assert torch.equal(forward(tiny, inputs), expected)


def test_an_edit_that_never_fires_or_fires_twice_is_an_error(tiny: AudioLLM, runs: Runs, monkeypatch) -> None:
    inputs, site = runs["short"].prompted.inputs, Site("mlp_act", 3)
    expected = plain_logits(tiny.hf, inputs)
    edits = {Site("resid_post", 1): lambda v: v, site: torch.zeros_like}
    twice = pytest.raises(InterpError, match=r"the edit at resid_post\.L1 was applied 2 times, expected 1")
    with twice, edited(tiny, edits):
        assert gap(forward(tiny, inputs), expected) > 0.01
        forward(tiny, inputs)
    with edited(tiny, edits, times=2):
        forward(tiny, inputs), forward(tiny, inputs)
    # An MLP that uses its projection's weight without calling the module, as WavLM's attention does: same numbers,
    # but no hook on the projection can fire.
    mlp = tiny.blocks[3].mlp
    by_weight = lambda x: F.linear(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x), mlp.down_proj.weight)  # noqa: E731
    monkeypatch.setattr(mlp, "forward", by_weight)
    with pytest.raises(InterpError, match=r"mlp_act\.L3 was applied 0 times, expected 1"), edited(tiny, edits):
        assert gap(forward(tiny, inputs), expected) < 1e-6
    with pytest.raises(InterpError, match=r"never reached mlp_act\.L3;"), captured(tiny, [Site("mlp_out", 3), site]):
        forward(tiny, inputs)
    patch = Patch(runs["short"], runs["long"], torch.arange(20, 25), torch.arange(20, 25).double())
    for method in ("reference", "fast", "wavefront"):
        with pytest.raises(InterpError, match=r"mlp_act\.L3"):
            sweep(tiny, [patch], LabelTokens(("a", "b"), (5, 6), {}), SiteSpec("mlp_act", layers=(2, 3)), method=method)
    assert our_hooks(tiny) == []


def test_calls_are_kept_as_they_came_and_stop_ends_the_pass_there(tiny: AudioLLM, runs: Runs) -> None:
    prompted, ran = runs["short"].prompted, []
    handle = tiny.blocks[0].register_forward_hook(lambda *_: ran.append(1))
    with captured(tiny, calls=[tiny.decoder], stop=True) as store:
        forward(tiny, prompted.inputs)
        raise AssertionError("the block goes on behind the pass")
    assert ran == []
    with captured(tiny, calls=[tiny.decoder]) as whole:
        forward(tiny, prompted.inputs)
    handle.remove()
    assert ran == [1]
    for kept in (store, whole):
        assert torch.equal(kept.calls[tiny.decoder][1]["inputs_embeds"][0], prompted.embeds)
    with pytest.raises(InterpError, match="never reached the captured calls"), captured(tiny, calls=[tiny.decoder]):
        pass
