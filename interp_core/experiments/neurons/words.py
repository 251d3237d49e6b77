"""The answer in words of the measured clips: as they are, and without the neurons that are best for domain and task."""

from collections.abc import Sequence
from functools import partial

import pandas as pd
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader, Collected, columns_of
from interp_core.experiments.downstream import fillings
from interp_core.experiments.edited_words import RECORDS, edited_answers
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.splits import Splits
from interp_core.jobs import Progress
from interp_core.sinks import Records, Sink, recorded
from interp_core.sites import STAGES, Site
from interp_core.trace.generate import Row
from interp_core.trace.row_edits import NeuronsReplaced

SETS = ("domain", "task")
"""What neurons were ranked for."""


def best_neurons(scores: pd.DataFrame, ranked: str, k: int) -> tuple[int, ...]:
    """The K neurons that are ranked first for the domain or for the task."""
    order = scores.sort_values(f"{ranked}_rank")["neuron"]
    return tuple(int(neuron) for neuron in order.iloc[:k])


def check_site(site: Site) -> None:
    """Refuse a site at which an edit changes no word."""
    if site.kind in STAGES:
        raise InterpError(
            f"site {site.kind} stands behind the blocks, where no words are written; choose resid_post:LAYER, "
            "mlp_act:LAYER or another site inside the blocks."
        )


def ablated_rows(
    reader: ClipReader, site: Site, clip: Clip, sets: Sequence[tuple[int, ...]], fill: Tensor | None
) -> list[Row]:
    """One clip without each of some sets of neurons, ready to be written behind.

    Args:
        fill: [width] what takes a neuron's place in this clip; None turns its sign.
    """
    check_site(site)
    ready = reader.ready(clip)
    stem = reader.stem(ready)
    inside, columns = reader.inside(ready, site, stem.n_pos), columns_of(reader.subject, site)
    return [
        Row(stem, (NeuronsReplaced(site, some, None if fill is None else fill[list(some)], inside, columns),))
        for some in sets
    ]


def clips_in_words(splits: Splits, request: AblateRequest) -> list[int]:
    """The measured clips whose answers are written out, by their places: the first, those out of domain before."""
    measured = [int(i) for i in (*splits.ood, *splits.id)]
    return measured[: request.word_clips or None] if request.words else []


def run_words(
    reader: ClipReader, site: Site, collected: Collected, splits: Splits, scores: pd.DataFrame, k: int,
    request: AblateRequest, sink: Sink, progress: Progress,
) -> pd.DataFrame:  # fmt: skip
    """The records of all clips, one a clip and set of neurons; those that the sink has are not written again.

    Args:
        collected: the run's clips with their features at the site.
        scores: of the run. k: how many neurons are taken out.
    """
    places = clips_in_words(splits, request)
    sets = [best_neurons(scores, name, k) for name in SETS]
    fill = fillings(request.kind, collected.features, splits.train, request.seed)

    def written(place: int) -> Records:
        clip = collected.clips[place]
        rows = ablated_rows(reader, site, clip, sets, None if fill is None else fill[place])
        named = [({"set": name, "k": k}, row) for name, row in zip(SETS, rows, strict=True)]
        return edited_answers(reader.subject, clip, named, request.words, request.during)

    if places:
        sink.expect(RECORDS, dict.fromkeys(range(len(places)), len(SETS)))
    found: Records = []
    for number, place in enumerate(places):
        found += recorded(sink, RECORDS, number, partial(written, place))
        progress(number + 1, len(places), "answers in words")
    return pd.DataFrame(found)
