"""Clips made ready for a model, those of one shape together, and which positions hold the recording.

The one place that knows both, for every experiment: what is averaged over a clip, and which of its positions an
ablation edits, are the positions that hold the recording; padding, answer tokens and words around it are left out.
Which clips share a batch is planned before anything runs and hangs on nothing but the clips, so that a batch can be
prepared on its own.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.digests import check_same
from interp_core.errors import InterpError
from interp_core.jobs import Progress, silent
from interp_core.models.labels import LabelTokens
from interp_core.models.prompted import Prompted, RecordingSpan
from interp_core.models.subject import Subject
from interp_core.sinks import MEMORY, Sink
from interp_core.sites import STAGES, Site
from interp_core.trace.clean import clip_inputs, prompt_clip
from interp_core.trace.finite import check_finite, finite_run
from interp_core.trace.hooks import captured
from interp_core.trace.store import CleanStore

T = TypeVar("T")
FEATURES = "features"


def check_question(store: CleanStore, clip: Clip, question: str, usual: str, instead: str) -> None:
    """Refuse a question where only the recording's positions are read, and a clip shows that it does not reach them.

    Args:
        usual: what is asked unless somebody says otherwise. instead: what would make the question count, as a request.
    Raises:
        InterpError: what enters the blocks is the same up to the recording's end, and no block looks behind it.
    """
    if question == usual:
        return
    asked, plain = (store.prompted(clip, text) for text in (question, usual))
    behind = asked.audio[1] if store.subject.arch.causal else max(asked.n_pos, plain.n_pos)
    if asked.audio == plain.audio and torch.equal(asked.embeds[:behind], plain.embeds[:behind]):
        raise InterpError(
            "--prompt means nothing here: what is read stands before the question, or apart from it, and is the same "
            f"under any; {instead}, or leave --prompt out."
        )


@dataclass(frozen=True, eq=False)
class ReadyClip:
    """One clip on its way into the model.

    Attributes:
        clip: the recording or picture.
        inputs: the library model's own keyword arguments, batch of one.
        n_samples: of the recording, at the model's rate; 0 for a picture.
        prompted: the stem, of a model that pads what enters its blocks; else None.
    """

    clip: Clip
    inputs: Mapping[str, Tensor]
    n_samples: int
    prompted: Prompted | None

    def span(self, subject: Subject, site: Site, n_pos: int) -> RecordingSpan:
        """Which of `n_pos` positions at a site hold the recording; behind a pooling there is nothing but it."""
        if site.kind in STAGES and site.kind != "mixed":
            return RecordingSpan.whole(n_pos)
        return subject.span(n_pos, self.n_samples) if self.prompted is None else self.prompted.recording


@dataclass(frozen=True, eq=False)
class ReadyBatch:
    """Clips that one forward pass takes; `rows` are their places among all clips."""

    subject: Subject
    rows: tuple[int, ...]
    clips: tuple[ReadyClip, ...]

    def __len__(self) -> int:
        return len(self.clips)

    def halves(self) -> tuple["ReadyBatch", "ReadyBatch"]:
        """Two of half the size."""
        cut = len(self) // 2
        return (
            ReadyBatch(self.subject, self.rows[:cut], self.clips[:cut]),
            ReadyBatch(self.subject, self.rows[cut:], self.clips[cut:]),
        )

    def forward(self) -> Tensor:
        """The model's own forward: float32 logits [batch, n_classes] at its readout, or where it has none the features
        [batch, width] that its body makes of the clips. InterpError: NaN or infinity, with the clip and the layer."""
        with self.subject.lock:  # a pass beside another thread's hooks would go through them, and be edited
            return finite_run(self.subject, [ready.clip.clip_id for ready in self.clips], self._pass)

    def _pass(self) -> Tensor:
        stems = [ready.prompted for ready in self.clips if ready.prompted is not None]
        if stems:
            return self.subject.run_blocks(stems)
        inputs = {name: torch.cat([ready.inputs[name] for ready in self.clips]) for name in self.clips[0].inputs}
        return self.subject.heard(inputs) if self.subject.needs_probe else self.subject.forward(inputs)

    def spans(self, site: Site, n_pos: int) -> list[RecordingSpan]:
        """Which of the `n_pos` positions of each row at a site hold its recording; see `RecordingSpan.positions`."""
        return [ready.span(self.subject, site, n_pos) for ready in self.clips]

    def mean(self, site: Site, value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """[batch, pos, width] at a site to [batch, width]: each row's mean over the positions that hold its recording.

        Args:
            dtype: in which the mean is taken; None for the value's own, or float32 where that has half precision.
        """
        dtype = dtype or (value.dtype if value.dtype == torch.float64 else torch.float32)
        n_pos = value.shape[1]
        spans = self.spans(site, n_pos)
        if all(span.is_whole and span.n_pos == n_pos for span in spans):
            return value.to(dtype).mean(1)
        return torch.stack([
            row[span.positions(n_pos).to(row.device)].to(dtype).mean(0) for row, span in zip(value, spans, strict=True)
        ])  # fmt: skip

    def check_finite(self, means: Mapping[Site, Tensor]) -> None:
        """Refuse [batch, width] at sites with NaN or infinity in it, also where the answers do not read it."""
        for site, value in means.items():
            check_finite(self.subject, value, [f"{site} of clip {ready.clip.clip_id!r}" for ready in self.clips])


def in_halves(batch: ReadyBatch, run: Callable[[ReadyBatch], T]) -> Iterator[tuple[ReadyBatch, T]]:
    """Run a batch; where memory runs out, in halves, as often as that takes. OutOfMemoryError: one clip is too many."""
    try:
        result = run(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    else:
        yield batch, result
        return
    for half in batch.halves():
        yield from in_halves(half, run)


def pooled(
    batch: ReadyBatch, sites: Sequence[Site], reduce: Callable[[Site, Tensor], Tensor] | None = None
) -> Iterator[tuple[ReadyBatch, dict[Site, NDArray[np.floating]]]]:
    """Run a batch once, in halves where memory runs out: [batch, width] at every site.

    Args:
        reduce: turns [batch, pos, width] at a site into [batch, width]; None for `ReadyBatch.mean`.
    """

    def run(batch: ReadyBatch) -> dict[Site, NDArray[np.floating]]:
        with torch.inference_mode(), captured(batch.subject, sites, reduce=reduce or batch.mean) as store:
            batch.forward()
        batch.check_finite(store.values)
        return {site: value.cpu().numpy() for site, value in store.values.items()}

    return in_halves(batch, run)


class ClipReader:
    """Makes clips ready for one model under one prompt, decoded by the store, or as pictures.

    Args:
        store: decodes recordings for the model.
        prompt: what the model is asked; "" for one that is asked nothing.
    Raises:
        InterpError: a model in training mode, or a prompt that it cannot be asked.
    """

    def __init__(self, store: CleanStore, prompt: str) -> None:
        self.store, self.prompt, self.subject = store, prompt, store.subject
        self.subject.check_ready()
        self.subject.check_prompt(prompt)

    def samples(self, clip: Clip) -> np.ndarray:
        """[n_samples] of a recording, uint8 [height, width, 3] of a picture."""
        if self.subject.takes == "pictures":
            return read_picture(clip)
        return self.store.samples(clip)

    def ready(self, clip: Clip) -> ReadyClip:
        if self.subject.pads:
            prompted = self.store.prompted(clip, self.prompt)
            return ReadyClip(clip, prompted.inputs, 0, prompted)
        if self.subject.takes == "pictures":
            return ReadyClip(clip, clip_inputs(self.subject, self.samples(clip), self.prompt, clip.clip_id), 0, None)
        return ReadyClip(clip, self.store.inputs(clip, self.prompt), len(self.samples(clip)), None)

    def batch(self, clips: Sequence[Clip], rows: Sequence[int], then: Sequence[int] = ()) -> ReadyBatch:
        """Make one batch of a plan ready.

        Args:
            clips: all of them.
            rows: the places of the batch's.
            then: those of the batch behind it, whose clips are decoded while this one is computed.
        """
        if self.subject.takes != "pictures":
            self.store.ahead((clips[row], self.prompt) for row in (*rows, *then))
        return ReadyBatch(self.subject, tuple(rows), tuple(self.ready(clips[row]) for row in rows))

    def shape(self, clip: Clip) -> Hashable:
        """Clips of one shape can share a batch; told without preparing the clip."""
        return None if self.subject.pads or self.subject.one_shape else len(self.samples(clip))

    def stem(self, ready: ReadyClip) -> Prompted:
        """What enters the blocks."""
        if ready.prompted is not None:
            return ready.prompted
        return prompt_clip(self.subject, self.samples(ready.clip), self.prompt, ready.clip.clip_id)

    def inside(self, ready: ReadyClip, site: Site, n_pos: int) -> Tensor:
        """[n_pos] bool: the positions at a site that hold the recording."""
        mask = torch.zeros(n_pos, dtype=torch.bool)
        mask[ready.span(self.subject, site, n_pos).positions(n_pos)] = True
        return mask

    def answer(self, clips: Sequence[ReadyClip]) -> Tensor:
        """One forward pass of clips of one shape: float32 logits [batch, n_classes]."""
        return ReadyBatch(self.subject, tuple(range(len(clips))), tuple(clips)).forward()


def plan_batches(readers: Sequence[ClipReader], clips: Sequence[Clip], size: int) -> tuple[tuple[int, ...], ...]:
    """Put clips together that have one shape for every reader, in the order in which they come.

    Args:
        readers: of the models that get the same clips in the same batches, so that equal weights give equal bits.
        clips: all of them.
        size: clips in a batch, at most.
    Returns:
        Places among the clips, a tuple a batch; every clip once. The same clips in the same order give the same plan.
    """
    waiting: dict[Hashable, list[int]] = {}
    full: list[tuple[int, ...]] = []
    for row, clip in enumerate(clips):
        shape = tuple(reader.shape(clip) for reader in readers)
        same = waiting.setdefault(shape, [])
        same.append(row)
        if len(same) == size:
            full.append(tuple(waiting.pop(shape)))
    return (*full, *map(tuple, waiting.values()))


def in_turn(planned: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """The batches of a plan: number, rows, and the rows of the batch behind it, none behind the last."""
    for number, (rows, then) in enumerate(pairwise((*planned, ()))):
        yield number, rows, then


def read_picture(clip: Clip) -> np.ndarray:
    """uint8 [height, width, 3]. Errors: InterpError names a file that is no picture."""
    try:
        with Image.open(clip.path) as image:
            picture = np.asarray(image.convert("RGB"))
    except OSError as error:
        check_same(clip.path, clip.digest)  # removed or changed since it was looked at first
        raise InterpError(f"{clip.path} is no picture that can be read ({error}); restore it.") from error
    check_same(clip.path, clip.digest)
    return picture


def columns_of(subject: Subject, site: Site) -> slice:
    """The dimensions of the hooked value that belong to a site: one head's, or all."""
    if site.head is None:
        return slice(None)
    width = subject.d_head_at(site.layer)
    return slice(site.head * width, (site.head + 1) * width)


@dataclass(frozen=True, eq=False)
class Collected:
    """What one forward pass over all clips showed.

    Attributes:
        clips: in the given order.
        features: [n, width] float32 at the site, means over the positions that hold the recording.
        logits: [n, n_labels] float32 of the labels.
    """

    clips: tuple[Clip, ...]
    features: Tensor
    logits: Tensor


def collect(
    reader: ClipReader,
    clips: Sequence[Clip],
    site: Site,
    labels: LabelTokens,
    *,
    batch_size: int = 16,
    sink: Sink = MEMORY,
    progress: Progress = silent,
) -> Collected:
    """Run every clip once, unedited, and keep its features at a site and its label logits; a batch is a chunk."""
    subject = reader.subject
    subject.locate(site)
    columns = columns_of(subject, site)
    features: dict[int, Tensor] = {}
    logits: dict[int, Tensor] = {}

    def run(batch: ReadyBatch) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), captured(subject, [site]) as store:
            answers = labels.read(batch.forward())[0]
        means = batch.mean(site, store[site][..., columns])
        batch.check_finite({site: means})
        return means.float().cpu(), answers.float().cpu()

    # A clip alone where clips of unequal length would be padded: its last digits would hang on the others.
    for number, rows, then in in_turn(plan_batches([reader], clips, 1 if subject.pads else batch_size)):
        saved = sink.arrays(FEATURES, number)
        if saved is None:
            parts = [made for _, made in in_halves(reader.batch(clips, rows, then), run)]
            made = {"features": [values for values, _ in parts], "logits": [answers for _, answers in parts]}
            saved = sink.keep_arrays(FEATURES, number, {name: torch.cat(v).numpy() for name, v in made.items()})
        features |= zip(rows, torch.from_numpy(saved["features"]), strict=True)
        logits |= zip(rows, torch.from_numpy(saved["logits"]), strict=True)
        progress(len(features), len(clips), f"features at {site}")
    order = range(len(clips))
    return Collected(tuple(clips), torch.stack([features[i] for i in order]), torch.stack([logits[i] for i in order]))
