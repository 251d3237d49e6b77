"""One forward pass a batch, pooled to a vector a clip at every head, block and stage as the pass goes by.

What is kept is [clips, width] a place: the token maps live no longer than their own module's call, and clips are made
ready a batch at a time, so memory does not grow with the corpus but for these vectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader, ReadyBatch, in_turn, plan_batches, pooled
from interp_core.experiments.heads.points import Geometry, Granularity, Point, geometry_of
from interp_core.jobs import Progress, silent
from interp_core.maths.fisher import fisher_ratio
from interp_core.sinks import MEMORY, Sink
from interp_core.sites import Site
from interp_core.trace.store import CleanStore

Rows = NDArray[np.floating]
CHUNKS = "vectors"


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
    labels: Sequence[str] = (),
    sink: Sink = MEMORY,
    progress: Progress = silent,
) -> Vectors:
    """Pool what every head, block and stage makes of each clip, over the positions and windows of its recording.

    Args:
        store: decodes clips for the model.
        clips: any number; only their vectors are kept.
        prompt: the question, of a model that is asked one; empty for its own.
        batch_size: clips in a pass; halved where memory runs out.
        labels: the class of each clip, for what the run shows while it goes on; empty: it shows nothing.
        sink: keeps the vectors of each batch as they come; a batch that it has already is not run again.
        progress: called with (clips done, clips, what is done); may raise to cancel.
    Raises:
        InterpError: a model without heads, a clip that it cannot take.
    """
    subject = store.subject
    geometry = geometry_of(subject)
    sites = geometry.sites()
    kept: dict[Site, Rows] = {}
    exact = np.float64 if subject.dtype == torch.float64 else np.float32
    through: list[int] = []
    reader = ClipReader(store, prompt or (subject.default_prompts or ("",))[0])
    for number, rows, then in in_turn(plan_batches([reader], clips, batch_size)):
        saved = sink.arrays(CHUNKS, number)
        if saved is None:
            saved = sink.keep_arrays(CHUNKS, number, _of_batch(reader.batch(clips, rows, then), sites))
        for site in sites:
            values = saved[str(site)]
            kept.setdefault(site, np.empty((len(clips), values.shape[1]), exact))[list(rows)] = values
        through += rows
        if labels:
            sink.show(partial(heads_so_far, geometry, kept, labels, through))
        progress(len(through), len(clips), "reading heads, blocks and stages")
    if not kept:
        raise InterpError("there is no clip to read heads from; give clips.")
    return Vectors(geometry, kept)


def heads_so_far(
    geometry: Geometry, kept: Mapping[Site, Rows], labels: Sequence[str], through: Sequence[int]
) -> pd.DataFrame:
    """Fisher's F of every head over the clips that are through; no row while they are too few.

    Args:
        through: rows of the clips, to which another thread may add meanwhile.
    """
    rows = list(through)
    names, points = [labels[row] for row in rows], geometry.points("head")
    if len(set(names)) < 2 or len(names) <= len(set(names)):
        return pd.DataFrame(columns=["series", "x", "value", "n"])
    vectors = Vectors(geometry, {site: values[rows] for site, values in kept.items()})
    found = fisher_ratio(vectors.all("head"), names).normalised
    return pd.DataFrame({"series": "F of each head", "x": [p.name for p in points], "value": found, "n": len(rows)})


def _of_batch(batch: ReadyBatch, sites: Sequence[Site]) -> dict[str, Rows]:
    """[batch, width] by the name of the site, in the order of the batch."""
    parts = [found for _, found in pooled(batch, sites)]
    return {str(site): np.concatenate([part[site] for part in parts]) for site in sites}
