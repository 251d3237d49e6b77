"""Rows given to a block some at a time, and rows from the first position on without a mask, give the same numbers."""

import pytest
import torch
from torch import Tensor

from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.trace import rows as row_module
from interp_core.trace import sweep as engine
from interp_core.trace.hooks import captured
from interp_core.trace.patch import SiteSpec
from interp_core.trace.rows import CachedPrefixRows, first_computed
from interp_core.trace.sweep import cost, sweep
from tests.conftest import Build
from tests.trace.cases import all_cases, every_layer, truncated, whole_vocabulary
from tests.trace.conftest import Runs, RunsOf
from tests.trace.naive import gap

INSIDE = SiteSpec("attn_out", layers=tuple(range(5)))
SPECS = {"resid_post": None, "attn_out": INSIDE, "some layers": SiteSpec("mlp_out", layers=(1, 3))}


def swept(subject: AudioLLM, patches: list, spec: SiteSpec, method: str = "fast") -> Tensor:
    return sweep(subject, patches, whole_vocabulary(patches[0].recipient), spec, method=method).label_logits


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("method", ["fast", "wavefront"])
@pytest.mark.parametrize("together", [1, 150])
def test_rows_a_few_at_a_time_equal_the_reference(
    tiny: AudioLLM, runs: Runs, monkeypatch: pytest.MonkeyPatch, name: str, method: str, together: int
) -> None:
    patches, spec = list(all_cases(runs).values()), SPECS[name] or every_layer(tiny)
    monkeypatch.setattr(row_module, "POSITIONS_AT_ONCE", together)
    sizes: list[int] = []
    handle = tiny.blocks[3].register_forward_pre_hook(lambda _m, args: sizes.append(len(args[0])))
    found = swept(tiny, patches, spec, method)
    handle.remove()
    assert max(sizes) == 1 if together == 1 else max(sizes) < len(patches)  # control: it was more than one call
    assert gap(found, swept(tiny, patches, spec, "reference")) < 1e-4


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_from_the_first_position_on_need_no_mask_and_equal_the_reference(
    build: Build, runs_of: RunsOf, monkeypatch: pytest.MonkeyPatch, attention: str
) -> None:
    subject = build(attention=attention)
    runs = runs_of(subject)
    patch = truncated(runs["short"], runs["long"])
    first = int(patch.positions[0])
    whole = first_computed(subject, patch.recipient.prompted.n_pos, first) == 0
    assert first > 0 and not (whole and attention == "eager")
    monkeypatch.setattr(engine, "first_computed", lambda _subject, _n_pos, _first: 0)
    with captured(subject, calls=list(subject.blocks)) as store:
        found = swept(subject, [patch], INSIDE)
    masks = [store.calls[block][1]["attention_mask"] for block in subject.blocks]
    assert [mask is None for mask in masks] == [attention == "sdpa"] * 5
    assert gap(found, swept(subject, [patch], INSIDE, "reference")) < 1e-4
    # Control: a mask is needed where the kernel does not bring its own.
    monkeypatch.setattr(row_module, "_masks_itself", lambda _subject: attention == "eager")
    blind = swept(subject, [patch], INSIDE)
    assert (gap(blind, found) < 1e-4) == (attention == "sdpa")


def test_positions_before_the_edit_are_computed_only_where_that_is_cheaper(tiny: AudioLLM) -> None:
    weights = sum(weight.numel() for weight in tiny.blocks[0].parameters())
    even = 10 * weights / (tiny.n_heads * tiny.d_head)  # (n - 10) * n at which both cost the same
    longest = int(5 + (25 + even) ** 0.5)
    assert first_computed(tiny, longest, 10) == 10 and first_computed(tiny, longest + 1, 10) == 0
    assert first_computed(tiny, 10_000, 9_999) == 9_999


def test_clips_of_several_lengths_each_keep_their_own_first_position(tiny: AudioLLM, runs: Runs) -> None:
    spec = SiteSpec("attn_out", layers=(0, 4))
    patches = [
        truncated(runs["short"], runs["long"]),
        truncated(runs["long"], runs["middle"]),
        truncated(runs["middle"], runs["twin"]),
    ]
    together, alone = swept(tiny, patches, spec), [swept(tiny, [patch], spec)[0] for patch in patches]
    assert gap(together, torch.stack(alone)) < 1e-5
    assert all(cost(tiny, patch, spec) < cost(tiny, patch, spec, "wavefront") for patch in patches)


def test_only_unpadded_rows_go_without_a_mask(tiny: AudioLLM, runs: Runs) -> None:
    short, long = runs["short"], runs["long"]
    assert CachedPrefixRows(tiny, [short], [short], [0], 3)._unmasked
    assert not CachedPrefixRows(tiny, [short, long], [short, long], [0, 0], 3)._unmasked
    assert not CachedPrefixRows(tiny, [short], [short], [2], 3)._unmasked
