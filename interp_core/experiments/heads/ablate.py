"""Does the model use a head? Its answers without it (zero, mean, resample), and with another clip's head in its place.

    zero      the head's output is 0 at every position
    mean      it is the head's mean over positions and over all clips of the run
    resample  it is the same head's output on another clip, of another class where there is one

A head is edited before the output projection, inside the model's own forward pass, everything behind it runs on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from interp_core.choices import HEAD_EDITS
from interp_core.data.clips import Clip
from interp_core.data.relabel import advice, suggested
from interp_core.errors import InterpError, Unanswered
from interp_core.experiments.clips import ClipReader, ReadyBatch, in_turn, plan_batches
from interp_core.experiments.heads.capture import Vectors
from interp_core.jobs import Progress, silent
from interp_core.maths.resampling import grouped_jackknife
from interp_core.maths.stats import pigeonhole_interval, pigeonhole_weights
from interp_core.models.labels import LabelTokens
from interp_core.models.prompted import RecordingSpan
from interp_core.sinks import MEMORY, Sink
from interp_core.sites import Site
from interp_core.trace.hooks import Edit, captured, edited
from interp_core.trace.store import CleanStore

CHUNKS = "answers"
Head = tuple[int, int]  # layer, head


@dataclass(frozen=True)
class Task:
    """What the model is asked about each clip, and what is right.

    Attributes:
        prompt: the question, of a model that is asked one.
        labels: the classes as the model names them.
        truth: [n_clips] the number of each clip's class.
        groups: [n_clips] what related clips share; None where every clip stands alone.
    """

    prompt: str
    labels: LabelTokens
    truth: NDArray[np.int64]
    groups: NDArray | None

    @classmethod
    def of(
        cls,
        store: CleanStore,
        prompt: str,
        wanted: Sequence[str],
        groups: Sequence[str] | None,
        usual: Sequence[str] = (),
    ) -> "Task":
        """Ask about the classes that the clips have.

        Args:
            usual: answers of a model that is asked in words, which the classes may be short for.
        Raises:
            InterpError: a model that answers nothing, or that knows none of the classes by these names.
        """
        subject = store.subject
        if subject.needs_probe:
            raise InterpError(
                f"{subject.name} has no classifier, so there is no answer that a head could change; fit a probe as its "
                "readout (--probe COLUMN)."
            )
        names = subject.answers if set(wanted) <= set(subject.answers) else tuple(sorted(set(wanted)))
        try:
            labels = subject.labels(names, prompt)
        except InterpError as error:
            answers = subject.answers or tuple(usual)
            outside = sorted(set(wanted) - set(answers))
            if not subject.answers and not suggested(outside, answers):
                raise
            raise Unanswered(f"{str(error).rstrip('.')}; {advice(outside, answers)}.", outside, answers) from error
        truth = np.array([labels.labels.index(name) for name in wanted])
        return cls(prompt, labels, truth, None if groups is None else np.asarray(groups, dtype=str))


def ablate(
    store: CleanStore,
    clips: Sequence[Clip],
    task: Task,
    heads: Sequence[Head],
    kinds: Sequence[str],
    vectors: Vectors | None = None,
    *,
    batch_size: int = 8,
    seed: int = 42,
    sink: Sink = MEMORY,
    progress: Progress = silent,
) -> pd.DataFrame:
    """Answer every clip without each of the heads in turn.

    Args:
        vectors: of the same clips in the same order; `mean` needs them.
        sink: keeps the answers of each batch as they come; a batch that it has already is not run again.
    Returns:
        One row a head and kind: layer, head, kind, n, n_groups, base_accuracy, accuracy, change (ablated minus base,
        with change_low and change_high), changed (answers that became another), logprob_change (mean over clips of the
        true class's log-probability among the classes, nats, with _low and _high), interval_method. The intervals of
        `resample` draw groups again on both sides, as its donors are shared; the others leave out a group.
    Raises:
        InterpError: an unknown kind or head, `mean` without vectors, `resample` of a single clip.
    """
    subject = store.subject
    _check(kinds, vectors, clips)
    layers = tuple(sorted({layer for layer, _ in heads}))
    for layer, head in heads:
        subject.locate(Site("head_out", layer, head))
    donors = donors_of(clips, task.truth, seed) if "resample" in kinds else None
    base = np.empty((len(clips), len(task.labels.labels)))
    found = {(head, kind): np.empty_like(base) for head in heads for kind in kinds}
    total = len(clips) * (1 + len(heads) * len(kinds))
    done = 0
    reader = ClipReader(store, task.prompt)
    for number, places, then in in_turn(plan_batches([reader], clips, batch_size)):
        if sink.skips(number):
            done += len(places) * (1 + len(found))
            progress(done, total, "answers without each head")
            continue
        rows, saved = list(places), sink.arrays(CHUNKS, number)
        if saved is None:
            batch = reader.batch(clips, places, then)
            given = _donor_values(reader, clips, donors, batch, layers) if donors is not None else {}
            plain, answers = _logits(batch, task.labels), []
            for (layer, head), kind in found:
                edit = _edit(batch, layer, head, kind, vectors, given.get(layer))
                with edited(subject, {Site("head_out", layer): edit}):
                    answers.append(_logits(batch, task.labels))
                progress(done + len(rows) * (1 + len(answers)), total, f"without {_name(layer, head)}")
            saved = sink.keep_arrays(CHUNKS, number, {"base": plain, "answers": np.stack(answers)})
        base[rows] = saved["base"]
        for logits, one in zip(found.values(), saved["answers"], strict=True):
            logits[rows] = one
        done += len(rows) * (1 + len(found))
        progress(done, total, "answers without each head")
    sink.gather()
    drawn = None if donors is None else donor_draws(task, donors, seed)
    table = []
    for ((layer, head), kind), logits in found.items():
        numbers = answer_changes(base, logits, task, drawn if kind == "resample" else None)
        table.append({"layer": layer, "head": head, "kind": kind, **numbers})
    return pd.DataFrame(table)


def patch(
    store: CleanStore, recipient: Clip, donor: Clip, head: Head, labels: LabelTokens, prompt: str
) -> pd.DataFrame:
    """Put a head's output on B in the place of its output on A, at every position.

    Returns:
        One row a label: label, base (A), patched, donor (B): logits among the labels.
    """
    layer, number = head
    store.subject.locate(Site("head_out", layer, number))
    reader = ClipReader(store, prompt)
    a, b = (reader.batch([clip], [0]) for clip in (recipient, donor))
    theirs, value = _heads_of(b, (layer,))[layer], _logits(b, labels)[0]
    base = _logits(a, labels)[0]
    edit = _edit(a, layer, number, "resample", None, [theirs])
    with edited(store.subject, {Site("head_out", layer): edit}):
        patched = _logits(a, labels)[0]
    return pd.DataFrame({"label": labels.labels, "base": base, "patched": patched, "donor": value})


def donors_of(clips: Sequence[Clip], truth: NDArray[np.int64], seed: int) -> list[int]:
    """Another clip for each, of another class where there is one; drawn by clip, whatever the order of the rest."""
    found = []
    for row, clip in enumerate(clips):
        others = np.flatnonzero(truth != truth[row])
        if not len(others):
            others = np.flatnonzero(np.arange(len(clips)) != row)
        found.append(int(others[np.random.default_rng([seed, int(clip.digest[:12], 16)]).integers(len(others))]))
    return found


def _name(layer: int, head: int) -> str:
    return f"L{layer}H{head}"


def _check(kinds: Sequence[str], vectors: Vectors | None, clips: Sequence[Clip]) -> None:
    unknown = [kind for kind in kinds if kind not in HEAD_EDITS]
    if unknown or not kinds:
        raise InterpError(f"unknown kind of ablation {', '.join(unknown) or 'none'} (known: {', '.join(HEAD_EDITS)}).")
    if "mean" in kinds and (vectors is None or vectors.n_clips != len(clips)):
        raise InterpError("a mean ablation needs the vectors of the same clips; capture them first.")
    if "resample" in kinds and len(clips) < 2:
        raise InterpError("a resample ablation needs two clips or more.")


def _logits(batch: ReadyBatch, labels: LabelTokens) -> NDArray[np.float64]:
    """[batch, n_labels] logits among the labels, float64."""
    with torch.inference_mode(), batch.subject.lock:
        return labels.read(batch.forward())[0].double().cpu().numpy()


def _heads_of(batch: ReadyBatch, layers: Sequence[int]) -> dict[int, tuple[Tensor, RecordingSpan]]:
    """The heads [pos, heads * d_head] of a batch of one and where its recording is, by layer."""
    sites = {layer: Site("head_out", layer) for layer in layers}
    with torch.inference_mode(), captured(batch.subject, sites.values()) as kept:
        batch.forward()
    return {layer: (kept[site][0], batch.spans(site, kept[site].shape[1])[0]) for layer, site in sites.items()}


def _donor_values(
    reader: ClipReader, clips: Sequence[Clip], donors: Sequence[int], batch: ReadyBatch, layers: Sequence[int]
) -> dict[int, list[tuple[Tensor, RecordingSpan]]]:
    """Each clip's donor's heads [pos, width] and where its recording is, by layer; for this batch only."""
    found: dict[int, list[tuple[Tensor, RecordingSpan]]] = {layer: [] for layer in layers}
    for row in batch.rows:
        for layer, value in _heads_of(reader.batch(clips, [donors[row]]), layers).items():
            found[layer].append(value)
    return found


def _edit(
    batch: ReadyBatch,
    layer: int,
    head: int,
    kind: str,
    vectors: Vectors | None,
    donors: Sequence[tuple[Tensor, RecordingSpan]] | None,
) -> Edit:
    """What becomes of [batch, pos, heads * d_head]: one head's columns change."""
    n_heads = batch.subject.heads_at(layer)

    def edit(value: Tensor) -> Tensor:
        width = value.shape[2] // n_heads
        columns = slice(head * width, (head + 1) * width)
        new = value.clone()
        if kind == "zero":
            new[..., columns] = 0
        elif kind == "mean":
            assert vectors is not None, "checked before anything runs"
            mean = vectors.of(vectors.geometry.head_of(layer, head)).mean(axis=0)
            new[..., columns] = torch.as_tensor(mean, dtype=value.dtype, device=value.device)
        else:
            assert donors is not None
            places = batch.spans(Site("head_out", layer), value.shape[1])
            for row, (place, (theirs, source)) in enumerate(zip(places, donors, strict=True)):
                taken = theirs[source_positions(place, source, value.shape[1]).to(theirs.device), columns]
                new[row, -place.n_pos :, columns] = taken.to(new.device)
        return new

    return edit


def source_positions(place: RecordingSpan, source: RecordingSpan, n_pos: int) -> Tensor:
    """Which position of the donor goes to each of the recipient's `place.n_pos` positions.

    Rows of one length go position by position. Else the recording is stretched to the recipient's, the nearest
    position at a time, and what stands before and behind it stays aligned with it.
    """
    if place.n_pos == source.n_pos and place.stop - place.start == source.stop - source.start:
        return torch.arange(place.n_pos)
    at = torch.arange(place.n_pos)
    share = (at - place.start + 0.5) / (place.stop - place.start)
    inside = (source.start + share * (source.stop - source.start)).floor().long()
    before, behind = at, at - place.stop + source.stop
    found = torch.where(at < place.start, before, torch.where(at >= place.stop, behind, inside))
    return found.clamp(0, source.n_pos - 1)


def donor_draws(task: Task, donors: Sequence[int], seed: int) -> tuple[NDArray[np.float64], int]:
    """Weights [draws, n_clips] of clips when groups are drawn again as recipients and as donors; how many there are.

    A few donors that serve many clips make these alike; over recipients alone a 95 % interval misses in every third
    to fifth run.
    """
    names = np.arange(len(task.truth)) if task.groups is None else task.groups
    own, theirs = names.astype(str).tolist(), names[list(donors)].astype(str).tolist()
    return pigeonhole_weights(own, theirs, seed=seed), len({*own, *theirs})


def answer_changes(
    base: NDArray, ablated: NDArray, task: Task, drawn: tuple[NDArray[np.float64], int] | None = None
) -> Mapping[str, object]:
    """The numbers of `ablate` for one head and kind.

    Args:
        base, ablated: [n_clips, n_labels] logits.
        drawn: from `donor_draws`, where clips have donors: the interval is a bootstrap over groups on both sides. Else
            it is a jackknife that leaves out a group.
    """
    truth = task.truth
    right, still = base.argmax(1) == truth, ablated.argmax(1) == truth
    rows = np.arange(len(truth))
    gain = log_softmax(ablated, axis=1)[rows, truth] - log_softmax(base, axis=1)[rows, truth]
    members = np.unique(task.groups, return_inverse=True)[1] if task.groups is not None else rows
    per_clip = np.stack([still.astype(float) - right, gain], axis=1)  # [n, 2]
    sizes = np.bincount(members)
    if drawn is not None:
        found = pigeonhole_interval(per_clip, drawn[0], n_clusters=drawn[1])
        said = f"{found.method}, over {drawn[1]} groups as recipients and donors"
        interval = found if found.method.startswith("no") else replace(found, method=said)
    else:
        sums = np.zeros((len(sizes), 2))
        np.add.at(sums, members, per_clip)
        with np.errstate(divide="ignore", invalid="ignore"):  # one group alone has no rest
            deleted = (per_clip.sum(axis=0) - sums) / (len(rows) - sizes)[:, None]
        interval = grouped_jackknife(per_clip.mean(axis=0), deleted, sizes.tolist())
    return {
        "n": len(rows),
        "n_groups": len(sizes),
        "base_accuracy": right.mean(),
        "accuracy": still.mean(),
        "change": per_clip[:, 0].mean(),
        "change_low": np.clip(interval.low[0], -1, 1),
        "change_high": np.clip(interval.high[0], -1, 1),
        "changed": int((base.argmax(1) != ablated.argmax(1)).sum()),
        "logprob_change": gain.mean(),
        "logprob_change_low": interval.low[1],
        "logprob_change_high": interval.high[1],
        "interval_method": interval.method,
    }
