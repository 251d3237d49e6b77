"""What a run asks of its clips and not of its pairs: chunks of clips, the label columns that an answer can match, and
intervals over clips by the unit that was sampled.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from interp_core.data.clips import Clip
from interp_core.experiments.patching.plan import Plan
from interp_core.maths.arrays import Floats
from interp_core.maths.stats import FEWEST_FOR_INTERVAL, ratio_intervals

SOURCES = {"prosody_label": "voice", "semantic_label": "words"}
"""What a label column speaks of, where its name says it."""


@dataclass(frozen=True)
class ClipChunk:
    """Some clips under one prompt; `group` is that of a chunk of pairs, so that shards deal both alike."""

    number: int
    group: int
    prompt: int
    clips: tuple[Clip, ...]


def clip_chunks(plan: Plan, keep: Sequence[str] | None = None) -> list[ClipChunk]:
    """The clips of a run's pairs, each once a prompt, with the chunk of pairs in which they come first.

    Args:
        keep: clip_ids that count; None for all.
    """
    found: list[ClipChunk] = []
    for prompt in range(len(plan.settings.prompts)):
        seen: set[str] = set() if keep is None else {clip.clip_id for clip in clips_of_pairs(plan)} - set(keep)
        for chunk in plan.chunks:
            if (chunk.prompt, chunk.condition, chunk.alpha) != (0, "matched", plan.settings.alphas[0]):
                continue
            sides = {clip.clip_id: clip for pair in chunk.pairs for clip in (pair.recipient, pair.donor)}
            if new := tuple(clip for clip_id, clip in sides.items() if clip_id not in seen):
                seen |= set(sides)
                found.append(ClipChunk(len(found), plan.group_of(chunk), prompt, new))
    return found


def clips_of_pairs(plan: Plan) -> list[Clip]:
    """Every clip of the run's pairs once, in their order."""
    return list({clip.clip_id: clip for pair in plan.pairs.pairs for clip in (pair.recipient, pair.donor)}.values())


def answer_columns(clips: Sequence[Clip], labels: Sequence[str]) -> tuple[str, ...]:
    """The label columns that the answers can match: those in which two or more of the labels stand, voice and words
    before the others."""
    values: dict[str, set[str]] = {}
    for clip in clips:
        for column, value in clip.labels.items():
            values.setdefault(column, set()).add(value)
    fitting = [column for column, found in values.items() if len(found & set(labels)) > 1]
    return tuple(sorted(fitting, key=lambda column: (column not in SOURCES, column)))


def source_of(column: str) -> str:
    """What a column's label is a label of, in a word."""
    return SOURCES.get(column, column)


class Units:
    """Means over clips, with intervals by the units that they belong to.

    Args:
        clip_ids: [n] of the rows; a clip may stand in several. clusters: clip_id -> unit. column: what a unit is.
    """

    def __init__(self, clip_ids: Sequence[str], clusters: Mapping[str, str], column: str) -> None:
        self._names = [clusters[clip_id] for clip_id in clip_ids]
        self._column = column

    def means(
        self, values: Floats, counts: Floats | None = None, *, rates: bool = False
    ) -> Iterator[dict[str, object]]:
        """The mean of each column over the rows that count, with its interval.

        Args:
            values: [n, k] finite, 0 where a row does not count. counts: [n, k] 1 where it does; None: all do.
            rates: the values are 0 or 1, so that their interval is Wilson's; see `ratio_intervals`.
        Returns:
            k dicts of mean, low, high, n, n_clusters, interval_method; NaN where nothing counts, or under 10 units.
        """
        counted = np.ones_like(values) if counts is None else counts
        if not self._names or not values.size:
            for _ in range(values.shape[1]):
                yield {**dict.fromkeys(("mean", "low", "high"), np.nan), **self._about(0, 0, "no interval: no clip")}
            return
        found = ratio_intervals(values, self._names, counted, rates=rates)
        for at in range(values.shape[1]):
            n, clusters = int(counted[:, at].sum()), len({self._names[i] for i in np.flatnonzero(counted[:, at])})
            mean = float(values[:, at].sum() / n) if n else np.nan
            said = f"{found.method} over {self._column}"
            if clusters < FEWEST_FOR_INTERVAL:
                said = f"no interval: {clusters} {self._column} clusters, {FEWEST_FOR_INTERVAL} needed"
            ends = {"low": float(found.low[at]), "high": float(found.high[at])}
            yield {"mean": mean, **ends, **self._about(n, clusters, said)}

    @staticmethod
    def _about(n: int, clusters: int, said: str) -> dict[str, object]:
        return {"n": n, "n_clusters": clusters, "interval_method": said}
