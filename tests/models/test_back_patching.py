"""Back-patching of every family: the fast route gives the reference's logits, a layer's own state changes nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from interp_core.errors import CheckFailed, InterpError
from interp_core.experiments.patching.positions import align_positions
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.trace import back
from interp_core.trace.back import back_cost, back_sweep, triangle
from interp_core.trace.clean import CleanRun
from tests.families.audio_llms import FAMILIES
from tests.families.subjects import CASES
from tests.models.conftest import Open, OpenFamily, Runs
from tests.trace.cases import whole_vocabulary
from tests.trace.naive import gap, hook, plain_logits, states

MERGES = {name for name in CASES if name.partition("-")[0] in ("clap", "msclap", "resnet", "aasist")}


def heard(run: CleanRun) -> Tensor:
    return align_positions(run.prompted, run.prompted, "audio").positions


def both_routes(subject: Subject, runs: list[CleanRun], labels: LabelTokens) -> tuple[Tensor, Tensor]:
    layers = range(-1, subject.n_layers)
    positions = [heard(run) for run in runs]
    routes = [back_sweep(subject, runs, positions, labels, layers, 1e-4, method=m) for m in ("fast", "reference")]
    fast, reference = (found.label_logits for found in routes)
    cells = routes[0].cells
    assert cells == tuple((s, t) for t in layers for s in layers if s >= t)
    assert gap(fast, reference) < 1e-4
    own = torch.stack([labels.read(subject.forward(run.prompted.inputs))[0][0] for run in runs])
    for i, (source, target) in enumerate(cells):
        if source == target:
            assert torch.equal(reference[:, i], own), "exactly null, to the last digit"
    return fast, own


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_every_audio_llm_is_back_patched_as_its_own_forward_with_one_hook(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], family: str
) -> None:
    subject, runs = opened(family), runs_of_family(family)
    some = [runs["short"], runs["long"]]
    fast, own = both_routes(subject, some, whole_vocabulary(some[0]))
    cells = triangle(range(-1, subject.n_layers))
    moved = (fast - own[:, None]).abs().amax((0, 2))
    assert moved[cells.index((subject.n_layers - 1, 0))] > 1e-2, "control: a later state is not the earlier one"


@pytest.mark.parametrize("name", [name for name in CASES if name not in MERGES])
@torch.inference_mode()
def test_every_encoder_is_back_patched_as_its_own_forward_with_one_hook(open_once: Open, name: str) -> None:
    one = open_once(name)
    some = [one.runs["short"], one.runs["long"]]
    fast, own = both_routes(one.subject, some, one.labels)
    assert (fast[:, 1] - own).abs().max() > 1e-4, "control: layer 0's states in the place of what enters it"


@pytest.mark.parametrize("name", sorted(MERGES)[:1])
def test_a_model_whose_layers_merge_positions_has_none_and_says_so(open_once: Open, name: str) -> None:
    one = open_once(name)
    run = one.runs["short"]
    with pytest.raises(InterpError, match="merges positions between its layers"):
        back_sweep(one.subject, [run], [torch.arange(run.prompted.n_pos)], one.labels, (0, 1), 1e-4)


@torch.inference_mode()
def test_a_cell_is_that_of_plain_hooks(opened: OpenFamily, runs_of_family: Callable[[str], Runs]) -> None:
    subject, run = opened("qwen2_audio"), runs_of_family("qwen2_audio")["long"]
    labels, layers = whole_vocabulary(run), (-1, 0, 2)
    found = back_sweep(subject, [run], [heard(run)], labels, layers, 1e-4)
    inputs = dict(run.prompted.inputs)
    kept = states(subject.hf, inputs, "resid_post", layers)
    start, stop = run.prompted.audio
    for (source, target), logits in zip(found.cells, found.label_logits[0], strict=True):

        def put(value: Tensor, source: int = source) -> Tensor:
            value = value.clone()
            value[0, start:stop] = kept[source][start:stop]
            return value

        handle = hook(subject.hf, "resid_post", target, put)
        expected = plain_logits(subject.hf, inputs)
        handle.remove()
        assert gap(logits, expected) < 1e-4, (source, target)


def test_a_batch_equals_its_clips_and_memory_that_is_short_halves_it(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, runs = opened("qwen2_audio"), runs_of_family("qwen2_audio")
    some, labels = [runs[name] for name in ("short", "middle", "long")], whole_vocabulary(runs["short"])
    layers, positions = (0, 1, 2), [heard(run) for run in some]
    together = back_sweep(subject, some, positions, labels, layers, 1e-4).label_logits
    whole, tried = back._travel, []

    def short_of_memory(subject_: Subject, clips: list, labels_: LabelTokens, cells: list, cached: bool) -> Tensor:
        tried.append((len(clips), len(cells)))
        if len(clips) > 1 or len(cells) > 2:
            raise torch.OutOfMemoryError
        return whole(subject_, clips, labels_, cells, cached)

    monkeypatch.setattr(back, "_travel", short_of_memory)
    alone = back_sweep(subject, some, positions, labels, layers, 1e-4).label_logits
    assert gap(alone, together) < 1e-5 and (1, 6) in tried and (1, 1) in tried
    assert gap(alone.roll(1, 0), together) > 1e-2, "control: results come in the order of the clips"


def test_a_route_that_moves_the_diagonal_ends_the_run(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, run = opened("qwen2_audio"), runs_of_family("qwen2_audio")["short"]
    monkeypatch.setattr(back.CachedPrefixRows, "place", lambda self, i, at: (at - self._starts[i]).flip(0) // 2)
    clean = back.CachedPrefixRows.clean
    monkeypatch.setattr(back.CachedPrefixRows, "clean", lambda self, layer: clean(self, layer) * (1 + 1e-2 * layer))
    with pytest.raises(CheckFailed, match="not null where it has to be: clip 'short'"):
        back_sweep(subject, [run], [heard(run)], whole_vocabulary(run), (0, 1), 1e-4)


def test_layers_that_are_not_there_or_not_in_order_are_refused_and_the_cost_counts_blocks(
    opened: OpenFamily, runs_of_family: Callable[[str], Runs]
) -> None:
    subject, run = opened("qwen2_audio"), runs_of_family("qwen2_audio")["short"]
    for layers in ((1, 0), (0, 9), ()):
        with pytest.raises(InterpError, match="not ascending within -1 to"):
            back_sweep(subject, [run], [heard(run)], whole_vocabulary(run), layers, 1e-4)
    n = subject.n_layers
    first = int(heard(run)[0])
    share = (run.prompted.n_pos - first) / run.prompted.n_pos
    assert back_cost(subject, run, first, (0, n - 1)) == pytest.approx(2 * (n - 1) / n * share)
    assert back_cost(subject, run, first, (0, n - 1), "reference") == 4
