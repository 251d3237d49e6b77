"""Two models over the same clips, batch by batch: what they make of each clip at every point.

Both models get the same clips in the same batches, so that equal weights give equal bits, and a difference is never
one of batching.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Prompted, Subject
from interp_core.sites import STAGES, Site
from interp_core.trace.store import CleanStore

Given = list[Prompted] | dict[str, Tensor]
"""What a batch's forward takes: stems of clips under a prompt, or the library's own arguments."""


@dataclass(frozen=True)
class Task:
    """What both models are asked: under which prompt, and which of their logits are the answers."""

    prompt: str
    labels: LabelTokens


@dataclass(frozen=True, eq=False)
class Batch:
    """Some clips, ready for both models; `rows` are their places among all clips."""

    number: int
    rows: tuple[int, ...]
    base: Given
    donor: Given

    def given(self, reverse: bool, *, of_donor: bool = False) -> Given:
        """What the recipient gets, or with `of_donor` the donor, in a direction."""
        return self.donor if reverse != of_donor else self.base


def points_of(subject: Subject) -> tuple[Site, ...]:
    """The points at which two models are compared: the residual stream behind every block, then the stages."""
    layers = tuple(Site("resid_post", layer) for layer in range(subject.n_layers))
    return layers + tuple(Site(kind) for kind in subject.stages)


def plan_batches(
    base: CleanStore, donor: CleanStore, clips: Sequence[Clip], prompt: str, size: int
) -> list[tuple[int, ...]]:
    """Put clips that may share a batch side by side, in the order in which they came: places among the clips."""
    waiting: dict[object, list[int]] = {}
    full: list[tuple[int, ...]] = []
    for row, clip in enumerate(clips):
        held = waiting.setdefault((_key(base, clip, prompt), _key(donor, clip, prompt)), [])
        held.append(row)
        if len(held) == size:
            full.append(tuple(held))
            held.clear()
    return full + [tuple(held) for held in waiting.values() if held]


def batches(
    base: CleanStore, donor: CleanStore, clips: Sequence[Clip], prompt: str, planned: Sequence[tuple[int, ...]]
) -> Iterator[Batch]:
    """Decode and prepare the planned batches, one at a time."""
    for number, rows in enumerate(planned):
        some = [clips[row] for row in rows]
        yield Batch(number, rows, _given(base, some, prompt), _given(donor, some, prompt))


def _key(store: CleanStore, clip: Clip, prompt: str) -> object:
    subject = store.subject
    if subject.asks:
        return None if subject.pads else subject.batch_key(store.prompted(clip, prompt))
    inputs = subject.model_inputs(store.samples(clip), prompt)
    return tuple(tuple(value.shape) for value in inputs.values())


def _given(store: CleanStore, clips: Sequence[Clip], prompt: str) -> Given:
    subject = store.subject
    if subject.asks:
        return [store.prompted(clip, prompt) for clip in clips]
    rows = [subject.model_inputs(store.samples(clip), prompt) for clip in clips]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def answer(subject: Subject, given: Given, labels: LabelTokens) -> Tensor:
    """One forward pass: the answers' logits [batch, n_labels], float32, on the CPU."""
    try:
        with torch.inference_mode(), subject.lock:
            logits = subject.run_blocks(given) if isinstance(given, list) else subject.forward(given)
    except torch.OutOfMemoryError as error:
        raise InterpError(
            f"a batch of clips does not fit into the memory of {subject.device}; choose a smaller --batch-size, half "
            "precision, or shorter clips."
        ) from error
    return labels.read(logits)[0].float().cpu()


def spans(given: Given, value: Tensor) -> list[tuple[int, int]]:
    """The positions of each row that stand for it: of an audio LLM those of the recording, else all."""
    if not isinstance(given, list):
        return [(0, value.shape[1])] * len(value)
    pads = [value.shape[1] - p.n_pos for p in given]  # on the left, where there is any
    return [(pad + p.audio[0], pad + p.audio[1]) for pad, p in zip(pads, given, strict=True)]


def time_mean(given: Given, site: Site, value: Tensor) -> NDArray[np.float32]:
    """[batch, pos, width] to [batch, width]: the mean over the positions of each row, a stage's vector as it is."""
    if site.kind in STAGES and value.shape[1] == 1:
        return value[:, 0].float().cpu().numpy()
    rows = zip(value, spans(given, value), strict=True)
    return torch.stack([row[start:stop].double().mean(0) for row, (start, stop) in rows]).float().cpu().numpy()


def one_frame(given: Given, value: Tensor, shares: Sequence[float]) -> NDArray[np.float32]:
    """One position of each row, `share` of the way through it: [batch, width]."""
    rows = zip(value, spans(given, value), shares, strict=True)
    picked = [row[start + min(int(share * (stop - start)), stop - start - 1)] for row, (start, stop), share in rows]
    return torch.stack(picked).float().cpu().numpy()


def frame_shares(clips: Sequence[Clip], seed: int) -> list[float]:
    """Where in each clip its one frame lies, in [0, 1): drawn by clip, so that no clip's hangs on the others."""
    return [float(np.random.default_rng([seed, int(clip.digest[:12], 16)]).random()) for clip in clips]


def means_of(given: Given, values: Mapping[Site, Tensor], points: Sequence[Site]) -> list[NDArray[np.float32]]:
    """The time mean at every point, in their order."""
    return [time_mean(given, site, values[site]) for site in points]
