"""Attention knockout against an eager model whose blocks are given another mask by plain hooks."""

import pytest

from interp_core.errors import InterpError
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.trace.knockout import Readers, knockout, windows
from tests.conftest import Build
from tests.trace.cases import whole_vocabulary
from tests.trace.conftest import Runs, RunsOf
from tests.trace.naive import gap, naive_knockout
from tests.trace.test_sweep_equals_reference import SLIDING


def test_windows_start_at_every_layer_that_has_room() -> None:
    assert windows(5, 2) == ((0, 2), (1, 3), (2, 4), (3, 5))
    assert windows(3, 1) == ((0, 1), (1, 2), (2, 3))
    assert windows(3, 9) == ((0, 3),)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("readers", ["last", "text"])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_knockout_equals_a_mask_put_in_by_plain_hooks(
    build: Build, runs_of: RunsOf, attention: str, readers: Readers, width: int
) -> None:
    subject, eager = build(attention=attention), build(attention="eager")
    for clip in ("short", "long"):
        run = runs_of(subject)[clip]
        n_pos, (start, stop) = run.prompted.n_pos, run.prompted.audio
        behind = [n_pos - 1] if readers == "last" else list(range(stop, n_pos))
        spans = windows(5, width)
        logits, mass = knockout(subject, run, whole_vocabulary(run), spans, readers)
        assert logits.shape == (len(spans), len(run.logits)) and mass.abs().max() < 1e-5
        lost, kept = [], []
        for row, (first, last) in enumerate(spans):
            expected = naive_knockout(eager.hf, run.prompted.inputs, (start, stop), behind, range(first, last))
            assert gap(logits[row], expected) < 1e-5, (clip, first, last)
            lost.append(gap(logits[row], run.logits))
            half = naive_knockout(
                eager.hf, run.prompted.inputs, (start, (start + stop) // 2), behind, range(first, last)
            )
            kept.append(gap(logits[row], half))
        assert max(lost) > 1e-2 and min(lost) > 1e-5  # control: reading the audio mattered
        assert max(kept) > 1e-4  # control: all of the span is cut, not a part


def test_windows_of_several_widths_go_in_one_call(tiny: AudioLLM, runs: Runs) -> None:
    run, spans = runs["middle"], ((0, 5), (1, 2), (1, 4), (4, 5))
    together = knockout(tiny, run, whole_vocabulary(run), spans, "text")[0]
    for row, span in enumerate(spans):
        assert gap(together[row], knockout(tiny, run, whole_vocabulary(run), [span], "text")[0][0]) < 1e-5
    assert gap(together[1], together[2]) > 1e-3


def test_text_readers_lose_more_than_the_last_one_alone(tiny: AudioLLM, runs: Runs) -> None:
    run = runs["long"]
    last, text = (knockout(tiny, run, whole_vocabulary(run), windows(5, 5), who)[0] for who in ("last", "text"))
    assert gap(last, text) > 0.01
    # With every text position blind at every layer, the audio cannot matter: another clip gives the same answer,
    # but for the positions' own numbers, so the donor takes as many.
    twin, middle = runs["twin"], runs["middle"]
    blind = [knockout(tiny, r, whole_vocabulary(r), windows(5, 5), "text")[0] for r in (twin, middle)]
    assert gap(*blind) < 1e-4
    seeing = [knockout(tiny, r, whole_vocabulary(r), windows(5, 4), "text")[0][:1] for r in (twin, middle)]
    assert gap(*seeing) > 1e-3  # control: one layer that sees the audio is enough


def test_a_model_without_kept_keys_is_refused(build: Build, runs_of: RunsOf) -> None:
    subject = build(**SLIDING)
    run = runs_of(subject)["short"]
    with pytest.raises(InterpError, match="knockout needs a causal decoder .* some layers use sliding_attention"):
        knockout(subject, run, whole_vocabulary(run), windows(5, 1))


@pytest.mark.parametrize("spans", [[(0, 1), (3, 6)], [(1, 2), (0, 1)], [(2, 2)], [(-1, 2)]])
def test_windows_outside_the_layers_or_out_of_order_are_refused(tiny: AudioLLM, runs: Runs, spans: list) -> None:
    with pytest.raises(InterpError, match="windows .* ascending order within 5 layers"):
        knockout(tiny, runs["short"], whole_vocabulary(runs["short"]), spans)
