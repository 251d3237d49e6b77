"""The first pass: both models as they are, over all clips. CKA of all pairs of points, features, maps, scores.

A batch is a chunk. The sink keeps what all of these are made from, and no map of positions: both models' logits, and
a time mean and one frame a clip and point, float32. At 24 layers and a width of 1,024 that is 0.4 MB a clip: 7 MB a
batch of 16, 4 GB over 10,000 clips until the run is finished. `Sums` says how the maps go on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp_core.data.clips import Clip
from interp_core.experiments.compare.passes import (
    PairBatch,
    Readout,
    answer,
    batches,
    frame_shares,
    one_frame,
    time_mean,
)
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.compare.sites import map_sites
from interp_core.experiments.compare.sums import Sums
from interp_core.experiments.compare.transplants import FittedMap
from interp_core.experiments.compare.units import Units
from interp_core.jobs import Progress
from interp_core.maths.cka import CkaMatrix, CkaStream
from interp_core.sinks import Arrays, Sink
from interp_core.sites import Site
from interp_core.trace.hooks import captured
from interp_core.trace.store import CleanStore

TIME_MEAN, FRAME = "time mean", "one frame a clip"
MODELS = ("base", "donor")
CHUNKS = "clean"


@dataclass(frozen=True, eq=False)
class CleanPass:
    """What both models make of the clips.

    Attributes:
        points: where; the rows and columns of the matrices, and the keys of the features.
        cka: by representation.
        divergence: [n_points] 1 - CKA of each point with its counterpart, on the half on which sites are chosen;
            unbiased where there are clips enough.
        features: [n_kept, width] by model and point; kept: [n_kept] which clips.
        maps: sums for the donor-free transplants, by site.
        logits: [n, n_labels] by model.
    """

    points: tuple[Site, ...]
    cka: Mapping[str, CkaMatrix]
    divergence: NDArray[np.float64]
    features: Mapping[str, Mapping[str, NDArray[np.float32]]]
    kept: NDArray[np.intp]
    maps: Mapping[Site, FittedMap]
    logits: Mapping[str, NDArray[np.float32]]


def clean_pass(
    base: CleanStore,
    donor: CleanStore,
    clips: Sequence[Clip],
    units: Units,
    task: Readout,
    points: Sequence[Site],
    planned: Sequence[tuple[int, ...]],
    settings: CompareRequest,
    sink: Sink,
    progress: Progress,
) -> CleanPass:
    """Run both models over all clips once, one batch in memory at a time. A batch that the sink has is not run again.

    Args:
        points: captured in the one forward pass of each model and batch.
        planned: the batches, from `plan_batches`.
        settings: `cka_bytes` bounds what CKA holds, `probe_clips` the clips whose features are kept.
    """
    split = not units.chosen_on.all()
    most = settings.cka_bytes // 3  # three streams
    streams = {name: CkaStream(max_bytes=most) for name in (TIME_MEAN, FRAME)}
    choice = CkaStream(max_bytes=most)
    shares = frame_shares(clips, settings.seed)
    kept = keep_some(units, settings.probe_clips, settings.seed)
    place = {int(row): i for i, row in enumerate(kept)}
    features: dict[str, dict[str, NDArray[np.float32]]] = {name: {} for name in MODELS}
    logits = {name: np.zeros((len(clips), len(task.labels.ids)), np.float32) for name in MODELS}
    sums, done = Sums(map_sites(settings, base.subject), base.subject, sink), 0
    for batch in batches(base, donor, clips, task.prompt, planned):
        rows = np.array(batch.rows)
        groups = units.groups[rows].tolist()
        of_choice = units.chosen_on[rows]
        made = sink.arrays(CHUNKS, batch.number)
        if made is None or (of_choice.any() and sums.lack(batch.number)):
            found = _run_both(batch, points, task, [shares[row] for row in rows], of_choice, sums)
            made = sink.keep_arrays(CHUNKS, batch.number, found)
        means, frames = (
            {name: [made[_key(name, what, site)] for site in points] for name in MODELS} for what in (TIME_MEAN, FRAME)
        )
        for name in MODELS:
            logits[name][rows] = made[_key(name, "logits")]
            _keep(features[name], points, means[name], rows, place)
        streams[TIME_MEAN].add(means["base"], means["donor"], groups)
        streams[FRAME].add(frames["base"], frames["donor"], groups)
        if of_choice.any():
            of_base, of_donor = ([mean[of_choice] for mean in means[name]] for name in MODELS)
            if split:
                choice.add(of_base, of_donor)
            for site in sums.vectors:
                sums.add_vectors(site, of_base[points.index(site)], of_donor[points.index(site)])
        done += len(rows)
        progress(done, len(clips), "both models as they are")
    cka = {name: stream.result() for name, stream in streams.items()}
    chosen = choice.result() if split else cka[TIME_MEAN]
    unbiased, plain = np.diag(chosen.unbiased), np.diag(chosen.plain)
    return CleanPass(
        tuple(points), cka, 1 - np.where(np.isfinite(unbiased), unbiased, plain), features, kept, sums.maps, logits
    )


def _run_both(
    batch: PairBatch,
    points: Sequence[Site],
    task: Readout,
    shares: Sequence[float],
    of_choice: NDArray[np.bool_],
    sums: Sums,
) -> Arrays:
    """One forward pass of each model. The sums take their part first: a batch that the sink has is among them."""
    made: dict[str, NDArray[np.float32]] = {}
    sequences = {}
    for name, given in zip(MODELS, (batch.base, batch.donor), strict=True):
        with captured(given.subject, points) as seen:
            made[_key(name, "logits")] = answer(given, task.labels).numpy()
        means = {site: time_mean(given, site, seen[site]) for site in points}
        given.check_finite({site: torch.from_numpy(mean) for site, mean in means.items()})
        made |= {_key(name, TIME_MEAN, site): mean for site, mean in means.items()}
        made |= {_key(name, FRAME, site): one_frame(given, site, seen[site], shares) for site in points}
        sequences[name] = {site: seen[site] for site in sums.sequences}
    if of_choice.any():
        sums.add_sequences(batch.number, of_choice, sequences["base"], sequences["donor"])
    return made


def _key(model: str, what: str, site: Site | None = None) -> str:
    return f"{model}, {what}" if site is None else f"{model}, {what}, {site}"


def keep_some(units: Units, most: int, seed: int) -> NDArray[np.intp]:
    """Places of the clips whose features are kept: all, or whole groups drawn until there are as many as asked."""
    if len(units.groups) <= most:
        return np.arange(len(units.groups))
    names, members = np.unique(units.groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.bincount(members)[order]
    taken = order[np.cumsum(sizes) <= most]
    return np.flatnonzero(np.isin(members, taken))


def _keep(
    features: dict[str, NDArray[np.float32]],
    points: Sequence[Site],
    means: Sequence[NDArray[np.float32]],
    rows: NDArray[np.intp],
    place: Mapping[int, int],
) -> None:
    wanted = [i for i, row in enumerate(rows) if int(row) in place]
    at = [place[int(rows[i])] for i in wanted]
    for site, values in zip(points, means, strict=True):
        held = features.setdefault(str(site), np.zeros((len(place), values.shape[1]), np.float32))
        held[at] = values[wanted]


def cka_table(made: CleanPass) -> pd.DataFrame:
    """Every pair of points, both estimates, intervals and reasons: one row a pair and representation."""
    rows = []
    for representation, found in made.cka.items():
        for i, x in enumerate(made.points):
            for j, y in enumerate(made.points):
                rows.append({
                    "representation": representation, "base_point": str(x), "donor_point": str(y),
                    "unbiased": found.unbiased[i, j], "unbiased_low": found.unbiased_interval.low[i, j],
                    "unbiased_high": found.unbiased_interval.high[i, j], "plain": found.plain[i, j],
                    "plain_low": found.plain_interval.low[i, j], "plain_high": found.plain_interval.high[i, j],
                    "n": found.n, "reason": str(found.unbiased_reason[i, j] or found.plain_reason[i, j]),
                    "interval_method": found.unbiased_interval.method, "minibatches": found.minibatches,
                })  # fmt: skip
    return pd.DataFrame(rows)
