"""Two models over the same clips, batch by batch: what they make of each clip at every point.

Both models get the same clips in the same batches, so that equal weights give equal bits, and a difference is never
one of batching.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader, ReadyBatch, in_turn
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.sites import Site
from interp_core.trace.store import CleanStore


@dataclass(frozen=True)
class Readout:
    """What both models are asked: under which prompt, and which of their logits are the answers."""

    prompt: str
    labels: LabelTokens


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Some clips of a comparison, made ready for a model when that is first asked for: those of a batch that an earlier
    run finished are never decoded.

    Attributes:
        number: of the batch in the plan.
        rows: the places of its clips among all clips. then: those of the batch behind it.
    """

    number: int
    rows: tuple[int, ...]
    then: tuple[int, ...]
    clips: Sequence[Clip]
    readers: tuple[ClipReader, ClipReader]

    @cached_property
    def base(self) -> ReadyBatch:
        return self.readers[0].batch(self.clips, self.rows, self.then)

    @cached_property
    def donor(self) -> ReadyBatch:
        return self.readers[1].batch(self.clips, self.rows, self.then)

    def given(self, reverse: bool, *, of_donor: bool = False) -> ReadyBatch:
        """What the recipient gets, or with `of_donor` the donor, in a direction."""
        return self.donor if reverse != of_donor else self.base


def points_of(subject: Subject) -> tuple[Site, ...]:
    """The points at which two models are compared: the residual stream behind every block, then the stages."""
    layers = tuple(Site("resid_post", layer) for layer in range(subject.n_layers))
    return layers + tuple(Site(kind) for kind in subject.stages)


def batches(
    base: CleanStore, donor: CleanStore, clips: Sequence[Clip], prompt: str, planned: Sequence[tuple[int, ...]]
) -> Iterator[PairBatch]:
    """The planned batches, one at a time."""
    readers = (ClipReader(base, prompt), ClipReader(donor, prompt))
    for number, rows, then in in_turn(planned):
        yield PairBatch(number, rows, then, clips, readers)


def answer(given: ReadyBatch, labels: LabelTokens) -> Tensor:
    """One forward pass: the answers' logits [batch, n_labels], float32, on the CPU."""
    subject = given.subject
    try:
        with torch.inference_mode(), subject.lock:
            logits = given.forward()
    except torch.OutOfMemoryError as error:
        raise InterpError(
            f"a batch of clips does not fit into the memory of {subject.device}; choose a smaller --batch-size, half "
            "precision, or shorter clips."
        ) from error
    return labels.read(logits)[0].float().cpu()


def time_mean(given: ReadyBatch, site: Site, value: Tensor) -> NDArray[np.float32]:
    """[batch, pos, width] to [batch, width]: the mean over each row's recording, a stage's vector as it is."""
    return given.mean(site, value, torch.float64).float().cpu().numpy()


def one_frame(given: ReadyBatch, site: Site, value: Tensor, shares: Sequence[float]) -> NDArray[np.float32]:
    """One position of each row's recording, `share` of the way through it: [batch, width]."""
    picked = []
    for row, span, share in zip(value, given.spans(site, value.shape[1]), shares, strict=True):
        positions = span.positions(value.shape[1])
        picked.append(row[int(positions[min(int(share * len(positions)), len(positions) - 1)])])
    return torch.stack(picked).float().cpu().numpy()


def frame_shares(clips: Sequence[Clip], seed: int) -> list[float]:
    """Where in each clip its one frame lies, in [0, 1): drawn by clip, so that no clip's hangs on the others."""
    return [float(np.random.default_rng([seed, int(clip.digest[:12], 16)]).random()) for clip in clips]
