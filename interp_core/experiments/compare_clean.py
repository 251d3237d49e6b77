"""The first pass: both models as they are, over all clips. CKA of all pairs of points, features, maps, scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp_core.data.clips import Clip
from interp_core.experiments.compare_arms import FittedMap
from interp_core.experiments.compare_pass import (
    Task,
    answer,
    batches,
    frame_shares,
    one_frame,
    time_mean,
)
from interp_core.experiments.compare_settings import CompareSettings
from interp_core.experiments.compare_units import Units
from interp_core.maths.cka import CkaMatrix, CkaStream
from interp_core.sites import Site
from interp_core.trace.hooks import captured
from interp_core.trace.store import CleanStore

TIME_MEAN, FRAME = "time mean", "one frame a clip"
Progress = Callable[[int, int, str], None]


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
    task: Task,
    points: Sequence[Site],
    planned: Sequence[tuple[int, ...]],
    settings: CompareSettings,
    progress: Progress,
) -> CleanPass:
    """Run both models over all clips once, one batch in memory at a time.

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
    features: dict[str, dict[str, NDArray[np.float32]]] = {"base": {}, "donor": {}}
    logits = {name: np.zeros((len(clips), len(task.labels.ids)), np.float32) for name in features}
    maps: dict[Site, FittedMap] = {}
    map_sites, done = settings.map_sites(base.subject), 0
    for batch in batches(base, donor, clips, task.prompt, planned):
        rows = np.array(batch.rows)
        groups = units.groups[rows].tolist()
        means, frames, values = {}, {}, {}
        for name, store, given in (("base", base, batch.base), ("donor", donor, batch.donor)):
            with captured(store.subject, points) as seen:
                logits[name][rows] = answer(store.subject, given, task.labels).numpy()
            means[name] = [time_mean(given, site, seen[site]) for site in points]
            frames[name] = [one_frame(given, seen[site], [shares[r] for r in rows]) for site in points]
            values[name] = {site: seen[site] for site in map_sites}
            _keep(features[name], points, means[name], rows, place)
        streams[TIME_MEAN].add(means["base"], means["donor"], groups)
        streams[FRAME].add(frames["base"], frames["donor"], groups)
        of_choice = units.chosen_on[rows]
        if split and of_choice.any():
            choice.add([m[of_choice] for m in means["base"]], [m[of_choice] for m in means["donor"]])
        for site in map_sites if of_choice.any() else ():
            x, y = (values[name][site][torch.from_numpy(of_choice)] for name in ("base", "donor"))
            maps.setdefault(site, FittedMap(x.shape[-1])).add(x, y)
        done += len(rows)
        progress(done, len(clips), "both models as they are")
    cka = {name: stream.result() for name, stream in streams.items()}
    chosen = choice.result() if split else cka[TIME_MEAN]
    unbiased, plain = np.diag(chosen.unbiased), np.diag(chosen.plain)
    return CleanPass(
        tuple(points), cka, 1 - np.where(np.isfinite(unbiased), unbiased, plain), features, kept, maps, logits
    )


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
