"""One forward pass a batch, pooled to a vector a clip at every head, block and stage as the pass goes by.

What is kept is [clips, width] a place: the token maps live no longer than their own module's call, and clips wait in
small numbers until there are enough of one shape, so memory does not grow with the corpus but for these vectors.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.heads_points import Geometry, Granularity, Point, geometry_of
from interp_core.models.encoders import Encoder
from interp_core.models.subject import Prompted, Subject
from interp_core.sites import Site
from interp_core.trace.hooks import captured
from interp_core.trace.store import CleanStore

Rows = NDArray[np.floating]
WAITING = 4  # batches' worth of clips that may wait for others of their shape


@dataclass(frozen=True)
class Place:
    """Where in a row of positions the recording is: `bands` runs of [start, stop), `stride` apart, of `n_pos`."""

    start: int
    stop: int
    n_pos: int
    bands: int = 1
    stride: int = 0

    def index(self, n_pos: int) -> Tensor | None:
        """The positions of the recording in a row that is padded on the left to `n_pos`; None for all of them."""
        if (self.start, self.stop, self.bands) == (0, n_pos, 1):
            return None
        pad = n_pos - self.n_pos
        runs = [torch.arange(self.start, self.stop) + pad + band * self.stride for band in range(self.bands)]
        return torch.cat(runs)


@dataclass(frozen=True, eq=False)
class Batch:
    """Clips that one forward pass takes.

    Attributes:
        rows: their places among all clips.
        stems: of an audio LLM, which pads; else None.
        inputs: the library's own arguments, one mapping a clip; empty of an audio LLM.
        n_samples: of each clip.
    """

    rows: tuple[int, ...]
    stems: tuple[Prompted, ...] | None
    inputs: tuple[Mapping[str, Tensor], ...]
    n_samples: tuple[int, ...]

    def halves(self) -> tuple["Batch", "Batch"]:
        """Two of half the size."""
        cut = len(self.rows) // 2

        def part(of: slice) -> Batch:
            stems = None if self.stems is None else self.stems[of]
            return Batch(self.rows[of], stems, self.inputs[of], self.n_samples[of])

        return part(slice(cut)), part(slice(cut, None))

    def forward(self, subject: Subject) -> Tensor:
        """The model's own forward: logits at its readout, or where it has none what its body makes of the clips."""
        if self.stems is not None:
            return subject.run_blocks(self.stems)
        inputs = {name: torch.cat([one[name] for one in self.inputs]) for name in self.inputs[0]}
        if isinstance(subject, Encoder) and subject.needs_probe:
            return subject.heard(inputs)
        return subject.forward(inputs)

    def places(self, subject: Subject, n_pos: int) -> list[Place]:
        """Where each clip's recording is among `n_pos` positions."""
        if self.stems is not None:
            return [Place(*p.audio, p.n_pos, *p.bands) for p in self.stems]
        if not isinstance(subject, Encoder):
            return [Place(0, n_pos, n_pos)] * len(self.rows)
        found = []
        for n_samples in self.n_samples:
            (start, stop), (bands, stride) = subject.span(n_pos, n_samples)
            found.append(Place(start, stop, n_pos, bands, stride))
        return found


def batches(store: CleanStore, clips: Sequence[Clip], prompt: str, size: int) -> Iterator[Batch]:
    """Decode and prepare clips, and put those of one shape together, `size` at most; every clip once."""
    subject = store.subject
    waiting: dict[Hashable, list[tuple[int, Prompted | None, Mapping[str, Tensor], int]]] = {}

    def take(key: Hashable) -> Batch:
        some = waiting.pop(key)
        stems = tuple(stem for _, stem, _, _ in some if stem is not None) or None
        return Batch(tuple(one[0] for one in some), stems, tuple(one[2] for one in some), tuple(one[3] for one in some))

    for row, clip in enumerate(clips):
        samples = store.samples(clip)
        stem, inputs = None, {}
        if isinstance(subject, Encoder):
            inputs = subject.model_inputs(samples, prompt)
            key: Hashable = tuple((name, tuple(value.shape)) for name, value in inputs.items())
        else:
            stem = store.prompted(clip, prompt)
            key = subject.batch_key(stem)
        held = waiting.setdefault(key, [])
        held.append((row, stem, inputs, len(samples)))
        if len(held) == size:
            yield take(key)
        elif sum(map(len, waiting.values())) >= WAITING * size:
            yield take(next(iter(waiting)))  # the one that has waited longest
    while waiting:
        yield take(next(iter(waiting)))


@dataclass(frozen=True, eq=False)
class Vectors:
    """Pooled vectors of all clips at every point.

    Attributes:
        geometry: of the model.
        at: [n_clips, width] by site, float32, or float64 of a model in float64.
    """

    geometry: Geometry
    at: Mapping[Site, Rows] = field(repr=False)

    @property
    def n_clips(self) -> int:
        return len(next(iter(self.at.values())))

    def of(self, point: Point) -> Rows:
        """[n_clips, width] at a point."""
        if point.granularity == "stage_mean":
            layers = [layers for layers in self.geometry.stages if point.layer in layers][0]
            heads = [self.of(Point("block_mean", point.stage, 0, layer)) for layer in layers]
            if len({one.shape for one in heads}) > 1:
                raise InterpError("the blocks of a stage have heads of different widths, so they have no mean.")
            return np.mean(heads, axis=0)
        value = self.at[self.geometry.site_of(point)]
        if point.granularity in ("head", "block_mean"):
            each = value.reshape(len(value), self.geometry.heads[point.layer], -1)  # [n_clips, n_heads, d_head]
            return each[:, point.head] if point.granularity == "head" else each.mean(axis=1)
        return value

    def all(self, granularity: Granularity) -> list[Rows]:
        """The vectors of every point of a granularity, in their order."""
        return [self.of(point) for point in self.geometry.points(granularity)]


def capture(
    store: CleanStore,
    clips: Sequence[Clip],
    prompt: str = "",
    *,
    batch_size: int = 8,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Vectors:
    """Pool what every head, block and stage makes of each clip, over the positions and windows of its recording.

    Args:
        store: decodes clips for the model.
        clips: any number; only their vectors are kept.
        prompt: the question, of a model that is asked one.
        batch_size: clips in a pass; halved where memory runs out.
        progress: called with (clips done, clips, what is done); may raise to cancel.
    Raises:
        InterpError: a model without heads, a clip that it cannot take.
    """
    subject = store.subject
    subject.check_ready()
    geometry = geometry_of(subject)
    sites = geometry.sites()
    kept: dict[Site, Rows] = {}
    exact = np.float64 if subject.dtype == torch.float64 else np.float32
    done = 0
    for batch in batches(store, clips, prompt, batch_size):
        for part, found in pooled(subject, batch, sites):
            for site, rows in found.items():
                kept.setdefault(site, np.empty((len(clips), rows.shape[1]), exact))[list(part.rows)] = rows
        done += len(batch.rows)
        progress(done, len(clips), "reading heads, blocks and stages")
    if not kept:
        raise InterpError("there is no clip to read heads from; give clips.")
    return Vectors(geometry, kept)


def pooled(subject: Subject, batch: Batch, sites: Sequence[Site]) -> Iterator[tuple[Batch, dict[Site, Rows]]]:
    """Run a batch once, in halves where memory runs out: [batch, width] at every site."""

    def mean(site: Site, value: Tensor) -> Tensor:
        value = value if value.dtype in (torch.float32, torch.float64) else value.float()
        places = [place.index(value.shape[1]) for place in batch.places(subject, value.shape[1])]
        if all(place is None for place in places):
            return value.mean(1)
        there = [(row if at is None else row[at.to(row.device)]) for row, at in zip(value, places, strict=True)]
        return torch.stack([row.mean(0) for row in there])

    try:
        with torch.inference_mode(), captured(subject, sites, reduce=mean) as store:
            batch.forward(subject)
        yield batch, {site: value.cpu().numpy() for site, value in store.values.items()}
        return
    except torch.OutOfMemoryError:
        if len(batch.rows) == 1:
            raise
    for half in batch.halves():
        yield from pooled(subject, half, sites)
