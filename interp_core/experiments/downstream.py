"""What the model answers when neurons of a site are edited: many sets of neurons at once, behind the site only.

Three routes to one definition, the model's own forward with one edit. Where only modules follow that take the feature
vector, they run on all sets and clips as rows of one batch; where blocks follow, the sets of a clip are the rows that
travel from the site's block on; and by hook in the whole forward wherever neither fits.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from interp_core.choices import NeuronEdit
from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader, Collected, ReadyClip, columns_of
from interp_core.jobs import Progress, silent
from interp_core.models.block_model import Place
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.sinks import MEMORY, Sink
from interp_core.sites import STAGES, Site
from interp_core.trace.finite import check_finite
from interp_core.trace.hooks import Edit, differentiable, edited
from interp_core.trace.rows import BlockRows

ROW_FLOATS = 1 << 23
"""How many features of edited rows are held at a time."""
GRADIENT_CLIPS, GRADIENT_FEW = 256, 16
"""Training clips over which the weight of a neuron is averaged, and where each is a pass of its own."""
ANSWERS, MAPPED, GRADIENTS = "edited_answers", "mapped_answers", "gradients"
ROWS = 32
"""How many edited copies of a clip travel through the blocks together."""


SoFar = Callable[[NDArray[np.intp]], pd.DataFrame]
Map = Callable[[Tensor], Tensor]
EditsOf = Callable[[ReadyClip, slice], dict[Site, Edit]]
"""What is done to a clip's rows, given which of all sets they are."""


class Downstream(Protocol):
    """The rest of the model behind a site."""

    route: str
    """In words, for the report."""

    def answers(
        self, clips: NDArray[np.intp], masks: Tensor, fill: Tensor | None, so_far: SoFar | None = None
    ) -> NDArray[np.intp]:
        """The label that each edited run answers, by its number.

        Args:
            clips: [m] rows of the collected clips.
            masks: [sets, width] bool, the neurons that are edited.
            fill: [n, width] what takes the place of a neuron's value in each clip; None turns its sign.
            so_far: makes of the answers to the first clips the curves that a run shows while it takes one by one.
        Returns:
            [sets, m].
        """

    def mapped(self, clips: NDArray[np.intp], maps: Sequence[Map]) -> NDArray[np.intp]:
        """The same where every position of the recording goes through a map of [.., width]: [maps, m]."""


def fillings(kind: NeuronEdit, features: Tensor, train: NDArray[np.intp], seed: int) -> Tensor | None:
    """What stands in for a neuron, [n, width]; None where the sign is turned.

    mean: its mean over the training clips. resample: its value in a training clip drawn at random, one clip for all
    neurons of a clip.
    """
    if kind == "flip":
        return None
    if kind == "zero":
        return torch.zeros_like(features)
    if kind == "mean":
        return features[train].mean(0).expand_as(features)
    donors = np.random.default_rng(seed).choice(train, size=len(features))
    return features[donors]


def edit(value: Tensor, masks: Tensor, fill: Tensor | None, inside: Tensor) -> Tensor:
    """Edit neurons of [rows, pos, width] at the positions `inside` [pos]; masks [rows, width], fill [rows, width]."""
    new = -value if fill is None else fill[:, None].to(value)
    where = masks[:, None].to(value.device) & inside[None, :, None].to(value.device)
    return torch.where(where, new, value)


class TailDownstream:
    """Modules that take the feature vector itself: a projection, a classifier, a probe."""

    def __init__(
        self, subject: Subject, collected: Collected, modules: Sequence[nn.Module], image: bool, labels: LabelTokens
    ) -> None:
        self._subject = subject
        self._clips = collected.clips
        self._features, self._modules, self._image, self._labels = collected.features, modules, image, labels
        first = next(modules[0].parameters(), None)
        self._like = collected.features if first is None else first
        self.route = "all sets in one batch behind the site: " + ", ".join(type(m).__name__ for m in modules)

    def logits(self, rows: Tensor) -> Tensor:
        """[rows, width] to label logits [rows, n_labels]."""
        value = rows.to(self._like.device, self._like.dtype)
        value = value[..., None, None] if self._image else value
        for module in self._modules:
            value = module(value)
        return self._labels.read(value.float())[0]

    def _edited(self, i: np.intp) -> str:
        return f"clip {self._clips[i].clip_id!r} with neurons edited"

    def answers(
        self, clips: NDArray[np.intp], masks: Tensor, fill: Tensor | None, so_far: SoFar | None = None
    ) -> NDArray[np.intp]:
        base = self._features[clips]  # [m, width]
        new = -base if fill is None else fill[clips]
        step = max(1, ROW_FLOATS // base.numel())
        found = []
        with torch.inference_mode(), self._subject.lock:
            for low in range(0, len(masks), step):
                part = torch.where(masks[low : low + step, None], new, base)  # [sets, m, width]
                answers = self.logits(part.flatten(0, 1))
                check_finite(self._subject, answers, [self._edited(i) for i in clips])
                found.append(answers.argmax(-1).view(len(part), -1).cpu())
        return torch.cat(found).numpy()

    def mapped(self, clips: NDArray[np.intp], maps: Sequence[Map]) -> NDArray[np.intp]:
        base, found = self._features[clips], []
        with torch.inference_mode(), self._subject.lock:
            for change in maps:
                answers = self.logits(change(base))
                check_finite(self._subject, answers, [self._edited(i) for i in clips])
                found.append(answers.argmax(-1).cpu())
        return torch.stack(found).numpy()


class _PerClip:
    """What the two routes with positions share: one clip at a time, its sets in slices."""

    def __init__(
        self, reader: ClipReader, collected: Collected, site: Site, labels: LabelTokens, sink: Sink, progress: Progress
    ) -> None:
        self.reader, self.site, self.labels = reader, site, labels
        self._sink, self._progress = sink, progress
        self.columns = columns_of(reader.subject, site)
        self._clips = collected.clips

    def answers(
        self, clips: NDArray[np.intp], masks: Tensor, fill: Tensor | None, so_far: SoFar | None = None
    ) -> NDArray[np.intp]:
        def answered(ready: ReadyClip, i: int) -> Tensor:
            return self.of_clip(ready, masks, None if fill is None else fill[i])

        return self._each(ANSWERS, clips, len(masks), answered, so_far)

    def mapped(self, clips: NDArray[np.intp], maps: Sequence[Map]) -> NDArray[np.intp]:
        def answered(ready: ReadyClip, i: int) -> Tensor:
            return self.of_sets(ready, len(maps), lambda ready, at: self.mapping(ready, maps[at]))

        return self._each(MAPPED, clips, len(maps), answered)

    def _each(
        self, name: str, clips: NDArray[np.intp], n_sets: int, answered: Callable[[ReadyClip, int], Tensor],
        so_far: SoFar | None = None,
    ) -> NDArray[np.intp]:  # fmt: skip
        """The answers of all clips, one by one; those that the sink has are not computed again."""
        found = np.zeros((n_sets, len(clips)), np.intp)
        for column, i in enumerate(clips):
            if self._sink.skips(int(i)):
                self._progress(column + 1, len(clips), "answers to edited copies of each clip")
                continue
            saved = self._sink.arrays(name, int(i))
            if saved is None:
                ready = self.reader.ready(self._clips[i])
                with torch.inference_mode():
                    answers = answered(ready, int(i)).argmax(-1).cpu().numpy()
                saved = self._sink.keep_arrays(name, int(i), {"answers": answers})
            found[:, column] = saved["answers"]
            if so_far is not None:
                self._sink.show(partial(so_far, found[:, : column + 1]))
            self._progress(column + 1, len(clips), "answers to edited copies of each clip")
        return found

    def of_clip(self, ready: ReadyClip, masks: Tensor, fill: Tensor | None) -> Tensor:
        """[sets, n_labels] of one clip with neurons edited."""
        return self.of_sets(ready, len(masks), lambda ready, at: self.editing(ready, masks[at], fill))

    def of_sets(self, ready: ReadyClip, n_sets: int, edits_of: EditsOf) -> Tensor:
        raise NotImplementedError

    def gradient_norm(self, i: int) -> Tensor:
        """[width] of one of the collected clips: the norm over labels of `gradients`."""
        saved = self._sink.arrays(GRADIENTS, i)
        if saved is None:
            norm = torch.stack(self.gradients(self.reader.ready(self._clips[i]))).norm(dim=0).cpu()
            saved = self._sink.keep_arrays(GRADIENTS, i, {"norm": norm.numpy()})
        return torch.from_numpy(saved["norm"])

    def gradients(self, ready: ReadyClip) -> list[Tensor]:
        """Of every label's logit, [width]: how it moves when a neuron rises at all of its positions."""
        delta = torch.zeros(0)

        def add(value: Tensor) -> Tensor:
            nonlocal delta
            inside = self.reader.inside(ready, self.site, value.shape[1]).to(value.device)
            own = value[..., self.columns]
            delta = torch.zeros(own.shape[-1], dtype=value.dtype, device=value.device, requires_grad=True)
            whole = torch.zeros_like(value)
            whole[..., self.columns] = inside[:, None] * delta
            return value + whole

        if ready.prompted is not None:  # made for inference, which autograd refuses
            prompted = replace(ready.prompted, embeds=ready.prompted.embeds.clone())
            ready = replace(ready, prompted=prompted)
        with differentiable(self.reader.subject), edited(self.reader.subject, {self.site: add}):
            logits = self.labels.read(self.reader.answer([ready]))[0][0]
        if not logits.requires_grad:  # nothing that is read stands behind the site
            return [torch.zeros(len(delta))] * len(logits)
        return [torch.autograd.grad(logit, delta, retain_graph=True)[0].float() for logit in logits]

    def editing(self, ready: ReadyClip, masks: Tensor, fill: Tensor | None) -> dict[Site, Edit]:
        def change(value: Tensor) -> Tensor:
            rows = None if fill is None else fill.expand(len(masks), -1)
            inside = self.reader.inside(ready, self.site, value.shape[1])
            new = value.clone()
            new[..., self.columns] = edit(value[..., self.columns], masks, rows, inside)
            return new

        return {self.site: change}

    def mapping(self, ready: ReadyClip, maps: Sequence[Map]) -> dict[Site, Edit]:
        def change(value: Tensor) -> Tensor:
            inside = self.reader.inside(ready, self.site, value.shape[1]).to(value.device)
            own, new = value[..., self.columns], value.clone()
            made = torch.stack([one(row) for one, row in zip(maps, own, strict=True)])
            new[..., self.columns] = torch.where(inside[None, :, None], made, own)
            return new

        return {self.site: change}


class BlocksDownstream(_PerClip):
    """Blocks from the site's own on; what is before it is computed once a clip."""

    route = "all sets of a clip in one batch from the site's block on"

    def of_sets(self, ready: ReadyClip, n_sets: int, edits_of: EditsOf) -> Tensor:
        subject, layer = self.reader.subject, self.site.layer
        found = []
        with subject.lock:
            runner = BlockRows(subject, [self.reader.stem(ready)])
            for low in range(0, n_sets, ROWS):
                at = slice(low, min(low + ROWS, n_sets))
                rows = runner.start(layer, runner.clean(layer).repeat(at.stop - low, 1, 1))
                with edited(subject, edits_of(ready, at)):
                    rows = runner.run(layer, rows, together=True)
                for later in range(layer + 1, subject.n_layers):
                    rows = runner.run(later, rows)
                answers = runner.logits(rows)
                check_finite(subject, answers, [f"clip {ready.clip.clip_id!r} with neurons at {self.site} edited"])
                found.append(self.labels.read(answers)[0])
        return torch.cat(found)


class HookDownstream(_PerClip):
    """The whole forward with the edit in it: the definition of the other two, and the slowest."""

    route = "the whole forward pass for each set"

    def of_sets(self, ready: ReadyClip, n_sets: int, edits_of: EditsOf) -> Tensor:
        found = []
        for low in range(0, n_sets, ROWS):
            at = slice(low, min(low + ROWS, n_sets))
            with edited(self.reader.subject, edits_of(ready, at)):
                found.append(self.labels.read(self.reader.answer([ready] * (at.stop - low)))[0])
        return torch.cat(found)


def modules_behind(subject: Subject, site: Site) -> tuple[list[nn.Module], bool] | None:
    """The modules that turn a stage's feature vector into logits, and whether they take it as an image; None where
    something else is between them."""
    stages = dict(subject.stages)
    if site.kind not in stages or site.kind == "mixed" or "logits" not in stages or site.kind == "logits":
        return None
    kinds = list(stages)
    later: list[Place] = [stages[kind] for kind in kinds[kinds.index(site.kind) + 1 :]]
    if any(place.side != "output" for place in later):
        return None
    return [place.module for place in later], stages[site.kind].image


def downstream_of(
    reader: ClipReader,
    collected: Collected,
    site: Site,
    labels: LabelTokens,
    *,
    sink: Sink = MEMORY,
    progress: Progress = silent,
) -> Downstream:
    """Choose the cheapest route that is exact, checked on the clean logits where modules are called by hand.

    Args:
        sink: keeps the answers of each clip, where a clip is a pass of its own; one that it has is not run again.
        progress: told of each such clip.
    """
    subject = reader.subject
    made = modules_behind(subject, site)
    if made is not None:
        tail = TailDownstream(subject, collected, *made, labels)
        some = slice(0, 8)
        with torch.inference_mode(), subject.lock:
            again = tail.logits(collected.features[some]).cpu()
        clean = collected.logits[some]
        if float((again - clean).abs().max()) <= 1e-4 * max(1.0, float(clean.abs().max())):
            return tail
    if site.kind not in STAGES:
        return BlocksDownstream(reader, collected, site, labels, sink, progress)
    if site.kind == "logits":
        raise InterpError("an edit of the logits is no ablation of neurons; choose a site before them, such as pooled.")
    return HookDownstream(reader, collected, site, labels, sink, progress)


def impact(reader: ClipReader, collected: Collected, rest: Downstream, site: Site, train: NDArray[np.intp]) -> Tensor:
    """[width] how much each neuron moves the label logits: the norm over labels of the gradient, averaged over some
    training clips, times the neuron's standard deviation. Behind a linear head it is |head weight| * sd."""
    spread = collected.features[train].std(0, correction=0)
    if isinstance(rest, TailDownstream):
        with differentiable(reader.subject):
            rows = collected.features[train[:GRADIENT_CLIPS]].clone().requires_grad_()
            totals = rest.logits(rows).sum(0)
            grads = [torch.autograd.grad(total, rows, retain_graph=True)[0] for total in totals]
        return torch.stack(grads).norm(dim=0).mean(0) * spread
    assert isinstance(rest, _PerClip)
    norms = [rest.gradient_norm(int(i)) for i in train[:GRADIENT_FEW]]
    return torch.stack(norms).mean(0) * spread
