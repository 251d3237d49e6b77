"""Does the model use a head? Its answers without it (zero, mean, resample), and with another clip's head in its place.

    zero      the head's output is 0 at every position
    mean      it is the head's mean over positions and over all clips of the run
    resample  it is the same head's output on another clip, of another class where there is one

A head is edited before the output projection, inside the model's own forward pass, everything behind it runs on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.heads_capture import Batch, Place, Vectors, batches
from interp_core.maths.resampling import grouped_jackknife
from interp_core.models.labels import LabelTokens
from interp_core.sites import Site
from interp_core.trace.hooks import Edit, captured, edited
from interp_core.trace.store import CleanStore

KINDS = ("zero", "mean", "resample")
Head = tuple[int, int]  # layer, head
Progress = Callable[[int, int, str], None]


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
    def of(cls, store: CleanStore, prompt: str, wanted: Sequence[str], groups: Sequence[str] | None) -> "Task":
        """Ask about the classes that the clips have.

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
        labels = subject.labels(names, prompt)
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
    progress: Progress = lambda done, total, note: None,
) -> pd.DataFrame:
    """Answer every clip without each of the heads in turn.

    Args:
        vectors: of the same clips in the same order; `mean` needs them.
    Returns:
        One row a head and kind: layer, head, kind, n, n_groups, base_accuracy, accuracy, change (ablated minus base,
        with change_low and change_high), changed (answers that became another), logprob_change (mean over clips of the
        true class's log-probability among the classes, nats, with _low and _high), interval_method.
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
    for batch in batches(store, clips, task.prompt, batch_size):
        rows = list(batch.rows)
        base[rows] = _logits(store, batch, task.labels)
        given = _donor_values(store, clips, donors, batch, layers, task.prompt) if donors is not None else {}
        done += len(rows)
        for (layer, head), kind in found:
            edit = _edit(store, batch, layer, head, kind, vectors, given.get(layer))
            with edited(subject, {Site("head_out", layer): edit}):
                found[(layer, head), kind][rows] = _logits(store, batch, task.labels)
            done += len(rows)
            progress(done, total, f"without {_name(layer, head)}")
    return pd.DataFrame([_row(head, kind, base, logits, task) for (head, kind), logits in found.items()])


def patch(
    store: CleanStore, recipient: Clip, donor: Clip, head: Head, labels: LabelTokens, prompt: str
) -> pd.DataFrame:
    """Put a head's output on B in the place of its output on A, at every position.

    Returns:
        One row a label: label, base (A), patched, donor (B): logits among the labels.
    """
    layer, number = head
    store.subject.locate(Site("head_out", layer, number))
    a, b = (next(iter(batches(store, [clip], prompt, 1))) for clip in (recipient, donor))
    theirs, value = _heads_of(store, b, (layer,))[layer], _logits(store, b, labels)[0]
    base = _logits(store, a, labels)[0]
    edit = _edit(store, a, layer, number, "resample", None, [(theirs[0], _place_of(store, b, theirs.shape[1]))])
    with edited(store.subject, {Site("head_out", layer): edit}):
        patched = _logits(store, a, labels)[0]
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
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise InterpError(f"unknown kind of ablation {', '.join(unknown) or 'none'} (known: {', '.join(KINDS)}).")
    if "mean" in kinds and (vectors is None or vectors.n_clips != len(clips)):
        raise InterpError("a mean ablation needs the vectors of the same clips; capture them first.")
    if "resample" in kinds and len(clips) < 2:
        raise InterpError("a resample ablation needs two clips or more.")


def _logits(store: CleanStore, batch: Batch, labels: LabelTokens) -> NDArray[np.float64]:
    """[batch, n_labels] logits among the labels, float64."""
    with torch.inference_mode(), store.subject.lock:
        return labels.read(batch.forward(store.subject))[0].double().cpu().numpy()


def _heads_of(store: CleanStore, batch: Batch, layers: Sequence[int]) -> dict[int, Tensor]:
    """[batch, pos, heads * d_head] of every layer."""
    with torch.inference_mode(), captured(store.subject, [Site("head_out", layer) for layer in layers]) as kept:
        batch.forward(store.subject)
    return {layer: kept[Site("head_out", layer)] for layer in layers}


def _place_of(store: CleanStore, batch: Batch, n_pos: int) -> Place:
    return batch.places(store.subject, n_pos)[0]


def _donor_values(
    store: CleanStore, clips: Sequence[Clip], donors: Sequence[int], batch: Batch, layers: Sequence[int], prompt: str
) -> dict[int, list[tuple[Tensor, Place]]]:
    """Each clip's donor's heads [pos, width] and where its recording is, by layer; for this batch only."""
    found: dict[int, list[tuple[Tensor, Place]]] = {layer: [] for layer in layers}
    for row in batch.rows:
        one = next(iter(batches(store, [clips[donors[row]]], prompt, 1)))
        for layer, value in _heads_of(store, one, layers).items():
            found[layer].append((value[0], _place_of(store, one, value.shape[1])))
    return found


def _edit(
    store: CleanStore,
    batch: Batch,
    layer: int,
    head: int,
    kind: str,
    vectors: Vectors | None,
    donors: Sequence[tuple[Tensor, Place]] | None,
) -> Edit:
    """What becomes of [batch, pos, heads * d_head]: one head's columns change."""
    n_heads = store.subject.heads_at(layer)

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
            places = batch.places(store.subject, value.shape[1])
            for row, (place, (theirs, source)) in enumerate(zip(places, donors, strict=True)):
                taken = theirs[source_positions(place, source, value.shape[1]).to(theirs.device), columns]
                new[row, -place.n_pos :, columns] = taken.to(new.device)
        return new

    return edit


def source_positions(place: Place, source: Place, n_pos: int) -> Tensor:
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


def _row(head: Head, kind: str, base: NDArray, ablated: NDArray, task: Task) -> Mapping[str, object]:
    truth = task.truth
    right, still = base.argmax(1) == truth, ablated.argmax(1) == truth
    rows = np.arange(len(truth))
    gain = log_softmax(ablated, axis=1)[rows, truth] - log_softmax(base, axis=1)[rows, truth]
    members = np.unique(task.groups, return_inverse=True)[1] if task.groups is not None else rows
    per_clip = np.stack([still.astype(float) - right, gain], axis=1)  # [n, 2]
    sizes = np.bincount(members)
    sums = np.zeros((len(sizes), 2))
    np.add.at(sums, members, per_clip)
    with np.errstate(divide="ignore", invalid="ignore"):  # one group alone has no rest
        deleted = (per_clip.sum(axis=0) - sums) / (len(rows) - sizes)[:, None]
    interval = grouped_jackknife(per_clip.mean(axis=0), deleted, sizes.tolist())
    return {
        "layer": head[0],
        "head": head[1],
        "kind": kind,
        "n": len(rows),
        "n_groups": len(sizes),
        "base_accuracy": right.mean(),
        "accuracy": still.mean(),
        "change": per_clip[:, 0].mean(),
        "change_low": interval.low[0],
        "change_high": interval.high[0],
        "changed": int((base.argmax(1) != ablated.argmax(1)).sum()),
        "logprob_change": gain.mean(),
        "logprob_change_low": interval.low[1],
        "logprob_change_high": interval.high[1],
        "interval_method": interval.method,
    }
