"""The answer in words of a run's clips: as they are, and without each of the heads that separate the classes most."""

from functools import partial

import numpy as np
import pandas as pd

from interp_core.data.clips import Clip
from interp_core.experiments.edited_words import RECORDS, edited_answers
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.heads.run import Drawn
from interp_core.jobs import Progress
from interp_core.sinks import Records, Sink, recorded
from interp_core.trace.generate import Row
from interp_core.trace.patch import HeadAblated
from interp_core.trace.store import CleanStore


def best_heads(heads: pd.DataFrame, count: int) -> list[tuple[str, int, int]]:
    """Name, layer and number of the heads with the highest F, the first in the forward pass where it is equal.

    Args:
        heads: the rows of `HeadsResult.points("head")`; a head without an F (all dimensions constant) is none of them.
    """
    known = heads[heads["fisher_f"].notna()].sort_values("fisher_f", ascending=False, kind="stable")
    named = known[["name", "layer", "head"]].head(count)
    return [(str(name), int(layer), int(head)) for name, layer, head in named.itertuples(index=False)]


def clips_in_words(drawn: Drawn, request: HeadsRequest) -> tuple[Clip, ...]:
    """The clips whose answers are written out: of each class in turn, so that few clips are of several classes."""
    if not request.words:
        return ()
    turns = pd.Series(drawn.labels).groupby(list(drawn.labels)).cumcount()
    clips = tuple(drawn.clips[place] for place in np.argsort(turns, kind="stable"))
    return clips[: request.word_clips or None]


def run_words(
    store: CleanStore, drawn: Drawn, heads: pd.DataFrame, request: HeadsRequest, sink: Sink, progress: Progress
) -> pd.DataFrame:
    """The records of all clips, one a clip and head at zero; those that the sink has are not written again.

    Args:
        heads: as of `best_heads`.
    """
    clips, best = clips_in_words(drawn, request), best_heads(heads, request.word_heads)

    def written(clip: Clip) -> Records:
        prompted, subject = store.prompted(clip, request.prompt), store.subject
        named = [
            ({"head": name}, Row(prompted, (HeadAblated(layer, head, subject.d_head_at(layer)),)))
            for name, layer, head in best
        ]
        return edited_answers(subject, clip, named, request.words, request.during)

    rows: Records = []
    if not clips or not best:  # no head has an F: nothing varies in any of them
        return pd.DataFrame(rows)
    sink.expect(RECORDS, dict.fromkeys(range(len(clips)), len(best)))
    for number, clip in enumerate(clips):
        rows += recorded(sink, RECORDS, number, partial(written, clip))
        progress(number + 1, len(clips), "answers in words")
    return pd.DataFrame(rows)
