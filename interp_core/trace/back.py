"""Back-patching: what a later block left at some positions of a clip, put where an earlier block of the same run left
its own, and the rest run on from there.

Source: Biran et al. 2024, "Hopping Too Late", arXiv:2406.12775 (at a text's positions); in audio language models
arXiv:2606.18924.

Two routes give the same numbers:

- *reference*: the model's own forward with one hook, one forward a cell. The definition of right.
- *wavefront*: the states of the clean run are rows. Behind every target layer one row a source joins, and all travel
  on together; no block runs before the row's own target. In a causal decoder only the positions from the first one
  replaced are computed, behind the clip's own keys and values, but where all cost less (`first_computed`).

A cell whose source is its target replaces a state by itself. It has to be null, and a sweep in which it is not ends.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp_core.choices import METHODS, Method
from interp_core.errors import CheckFailed, InterpError
from interp_core.jobs import stop_if_cancelled
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.sites import Site
from interp_core.trace.clean import CleanRun
from interp_core.trace.finite import check_finite, finite_run
from interp_core.trace.hooks import Edit, captured, edited
from interp_core.trace.rows import BlockRows, CachedPrefixRows, RowRunner, Rows, first_computed
from interp_core.trace.sweep import by_length

BackCell = tuple[int, int]
"""(source, target) layers of `resid_post`, source >= target; -1 is what enters block 0."""


@dataclass(frozen=True, eq=False)
class BackSweep:
    """What back-patching found.

    Attributes:
        cells: of the triangle, by target and then by source.
        label_logits: [n, n_cells, n_labels] float32, CPU.
        gaps: [n] the largest difference of a label's logit between a cell of the diagonal and the clean run.
        methods: the route of each clip: reference or wavefront.
    """

    cells: tuple[BackCell, ...]
    label_logits: Tensor
    gaps: Tensor
    methods: tuple[str, ...]


def triangle(layers: Sequence[int]) -> tuple[BackCell, ...]:
    """All (source, target) of some layers with source >= target, by target and then by source."""
    return tuple((source, target) for target in layers for source in layers if source >= target)


def back_refusal(subject: Subject) -> str | None:
    """Say, behind the model's name, why no state of one layer fits into another, or None if it does."""
    if subject.merges_after or subject.whole_only:
        return "merges positions between its layers, so a later layer's states do not fit into an earlier one"
    return None


def back_sweep(
    subject: Subject,
    runs: Sequence[CleanRun],
    positions: Sequence[Tensor],
    labels: LabelTokens,
    layers: Sequence[int],
    tolerance: float,
    *,
    method: Method = "fast",
) -> BackSweep:
    """Patch every later state back into every earlier layer, clip by clip.

    Args:
        subject: the model.
        runs: clean runs of the clips, one or more; in a batch the results equal those of one at a time.
        positions: of each clip, [m] ascending: those that are replaced.
        labels: whose logits are read at the readout position.
        layers: of `resid_post`, ascending, -1 for what enters block 0.
        tolerance: largest difference of a diagonal cell from the clean run, as a share of the largest logit.
    Raises:
        InterpError: a model whose states do not fit, layers that it has not, too little memory for one clip.
        CheckFailed: a cell of the diagonal is not null.
    """
    if (refusal := back_refusal(subject)) is not None:
        raise InterpError(f"{subject.name} {refusal}; there is no back-patching of it.")
    if method not in METHODS:
        raise InterpError(f"method {method!r} is none of {', '.join(METHODS)}.")
    if list(layers) != sorted(set(layers)) or not layers or layers[0] < -1 or layers[-1] >= subject.n_layers:
        raise InterpError(f"layers {list(layers)} are not ascending within -1 to {subject.n_layers - 1}.")
    subject.check_ready()
    cells = triangle(layers)
    found = torch.zeros(len(runs), len(cells), len(labels.ids))
    cached = method == "fast" and subject.shortcut_refusal() is None
    with torch.inference_mode():
        if method == "reference":
            for i, (run, at) in enumerate(zip(runs, positions, strict=True)):
                found[i] = _reference(subject, run, at, labels, cells)
        else:
            for group in _groups(subject, runs, positions, cached):
                some = [(runs[i], positions[i]) for i in group]
                found[group] = _run_group(subject, some, labels, cells, cached)
    clean = torch.stack([labels.read(run.logits[None])[0][0].cpu() for run in runs])  # [n, n_labels]
    diagonal = [i for i, (source, target) in enumerate(cells) if source == target]
    gaps = (found[:, diagonal] - clean[:, None]).abs().amax((1, 2))
    allowed = tolerance * clean.abs().amax(1).clamp(min=1.0)
    for run, gap, limit in zip(runs, gaps.tolist(), allowed.tolist(), strict=True):
        if not gap <= limit:
            raise CheckFailed(
                f"back-patching is not null where it has to be: clip {run.prompted.clip_id!r} with each layer's own "
                f"state put back into that layer is off by {gap:.2g} from its clean run (allowed {limit:.2g}); the map "
                "of this model would be wrong.",
                {"check": "back-patching, diagonal", "max_difference": gap, "allowed": limit, "passed": False},
            )
    return BackSweep(cells, found, gaps, ("reference" if method == "reference" else "wavefront",) * len(runs))


def back_cost(subject: Subject, run: CleanRun, first: int, layers: Sequence[int], method: Method = "fast") -> float:
    """What one clip costs, in its clean forward passes through the blocks; `first` is the first position replaced."""
    cells = triangle(layers)
    if method == "reference":
        return 1.0 + len(cells)
    cached = method == "fast" and subject.shortcut_refusal() is None
    blocks = sum(subject.n_layers - 1 - target for _, target in cells)
    n_pos = run.prompted.n_pos
    share = (n_pos - first_computed(subject, n_pos, first)) / n_pos if cached else 1.0
    return blocks * share / subject.n_layers + (not cached and run.calls is None)


def _groups(subject: Subject, runs: Sequence[CleanRun], positions: Sequence[Tensor], cached: bool) -> list[list[int]]:
    """Clips that share a batch: alike where the model cannot pad, and of about one length."""
    lengths: dict[Hashable, list[tuple[int, int]]] = {}
    for i, (run, at) in enumerate(zip(runs, positions, strict=True)):
        n_pos = run.prompted.n_pos
        start = first_computed(subject, n_pos, int(at[0])) if cached else 0
        key = (None if start else n_pos) if cached else subject.batch_key(run.prompted)
        lengths.setdefault(key, []).append((n_pos - start, i))
    return [group for members in lengths.values() for group in by_length(members)]


def _run_group(
    subject: Subject,
    clips: Sequence[tuple[CleanRun, Tensor]],
    labels: LabelTokens,
    cells: Sequence[BackCell],
    cached: bool,
) -> Tensor:
    """[n, n_cells, n_labels] of one group; halve its clips, then its cells, as often as the memory asks for."""
    try:
        with subject.lock:
            return _travel(subject, clips, labels, cells, cached)
    except torch.OutOfMemoryError as error:
        if len(clips) == len(cells) == 1:
            prompted = clips[0][0].prompted
            raise InterpError(
                f"one back-patch of clip {prompted.clip_id!r} ({prompted.n_pos} positions) does not fit into the "
                "device's memory; choose half precision or a shorter clip."
            ) from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(clips) > 1:
        half = len(clips) // 2
        return torch.cat([_run_group(subject, part, labels, cells, cached) for part in (clips[:half], clips[half:])])
    half = len(cells) // 2
    return torch.cat([_run_group(subject, clips, labels, part, cached) for part in (cells[:half], cells[half:])], 1)


def _travel(
    subject: Subject,
    clips: Sequence[tuple[CleanRun, Tensor]],
    labels: LabelTokens,
    cells: Sequence[BackCell],
    cached: bool,
) -> Tensor:
    """Send the rows of all cells through the blocks: behind each target layer, one a source joins."""
    runs, n = [run for run, _ in clips], len(clips)
    runner: RowRunner
    if cached:
        starts = [first_computed(subject, run.prompted.n_pos, int(at[0])) for run, at in clips]
        runner = CachedPrefixRows(subject, runs, runs, starts, len(cells))
    else:
        runner = BlockRows(subject, [run.prompted for run in runs], runs)
    rows: Rows | None = None
    last = subject.n_layers - 1

    def patched(source: int, target: int) -> Tensor:
        own, later = runner.clean(target + 1), runner.clean(source + 1)
        new = own.clone()
        for i, (_, at) in enumerate(clips):
            place = runner.place(i, at.to(own.device))
            new[i, place] = later[i, place].to(own.device)
        return new

    for layer in range(-1, subject.n_layers):
        stop_if_cancelled()
        if rows is not None:
            rows = runner.finish(rows) if layer == last else runner.run(layer, rows)
        sources = [source for source, target in cells if target == layer]
        if sources:
            new = torch.cat([patched(source, layer) for source in sources])
            joining = runner.start(layer + 1, new[:, -1:] if layer == last and runner.reads_last else new)
            rows = joining if rows is None else rows.joined(joining)
    assert rows is not None, "a map has at least one cell"
    answers = runner.logits(rows)
    check_finite(subject, answers, [_said(run, cell) for cell in cells for run in runs])
    found, _ = labels.read(answers)
    return found.view(len(cells), n, -1).transpose(0, 1).cpu()


def _reference(
    subject: Subject, run: CleanRun, positions: Tensor, labels: LabelTokens, cells: Sequence[BackCell]
) -> Tensor:
    """[n_cells, n_labels]: the model's own forward from the raw inputs, one hook at a time."""
    sites = {
        layer: Site("resid_pre", 0) if layer == -1 else Site("resid_post", layer) for cell in cells for layer in cell
    }
    with captured(subject, set(sites.values())) as store:
        _forward(subject, run)
    logits = []
    for source, target in cells:
        stop_if_cancelled()
        with edited(subject, {sites[target]: _replacing(store[sites[source]], positions)}):
            logits.append(_forward(subject, run))
    return labels.read(torch.cat(logits))[0].cpu()


def _replacing(later: Tensor, positions: Tensor) -> Edit:
    """The edit that puts a later state [1, pos, d_model] at some positions of a batch of one."""

    def edit(value: Tensor) -> Tensor:
        value, at = value.clone(), positions.to(value.device)
        value[0, at] = later[0, at.to(later.device)].to(value.device)
        return value

    return edit


def _forward(subject: Subject, run: CleanRun) -> Tensor:
    return finite_run(subject, [run.prompted.clip_id], lambda: subject.forward(run.prompted.inputs))


def _said(run: CleanRun, cell: BackCell) -> str:
    return f"clip {run.prompted.clip_id!r} with layer {cell[0]}'s state at layer {cell[1]}"
