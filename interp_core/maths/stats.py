"""Intervals and tests for pairs of clips that share texts or speakers.

Two clips make a pair, and each clip sits in a cluster: the text, speaker or patient that was really sampled. Pairs
that share a cluster are not independent, neither as recipients nor as donors, so everything here resamples clusters.
Layers are columns: one resample serves them all, which keeps the curve's layers comparable and costs one matrix
product.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from interp_core.errors import InterpError

FEWEST_FOR_INTERVAL = 10  # clusters; a percentile interval over fewer is far too narrow
FEWEST_FOR_TEST = 6  # clusters; the smallest two-sided p of five sign flips is 2 / 2**5 = .0625
SIGNIFICANT = 0.05  # an adjusted p below it is marked, in every figure and sentence

Floats = NDArray[np.float64]


@cache
def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a rate; unlike the percentile bootstrap it has a width at 0 and at 1.

    Args:
        successes: count, 0 to n.
        n: count of independent trials (clusters, where the trials are clustered).
    Returns:
        low, high in [0, 1]; both NaN where n is 0.
    Source: Wilson 1927, JASA 22:209; without continuity correction.
    """
    if n == 0:
        return float("nan"), float("nan")
    found = stats.binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(found.low), float(found.high)


def guessing_p(right: int, n: int) -> float:
    """How often guessing gets at least `right` of `n` answers between two right: exact, one-sided, in [0, 1].

    Args:
        right: count of right answers, 0 to n.
        n: count of independent answers, fixed beforehand; 0 gives 1.
    Raises:
        InterpError: not 0 <= right <= n.
    """
    if not 0 <= right <= n:
        raise InterpError(f"{right} right of {n} answers cannot be; give a count from 0 to {n}.")
    return float(stats.binomtest(right, n, 0.5, alternative="greater").pvalue) if n else 1.0


def count_clusters(
    recipient_clusters: Sequence[str], donor_clusters: Sequence[str], support: ArrayLike | None = None
) -> NDArray[np.int64]:
    """How many distinct clusters the supported pairs touch, on both sides together, for each layer.

    Where that would do for an interval and one side has under 6, that side alone is counted: so few donors say little
    about donors, however many recipients there are, and an interval is refused as the p is.

    Args:
        recipient_clusters, donor_clusters: [n_pairs] names.
        support: [n_pairs, n_layers] bool, the pairs a number rests on; None means all of them in one column.
    Returns:
        [n_layers] counts.
    """
    recipients, donors, n_clusters = _codes(recipient_clusters, donor_clusters)
    mask = np.ones((len(recipients), 1), bool) if support is None else np.asarray(support, bool)
    touched = np.zeros((2, n_clusters, mask.shape[1]), bool)
    np.logical_or.at(touched[0], recipients, mask)
    np.logical_or.at(touched[1], donors, mask)
    fewest, both = touched.sum(axis=1).min(axis=0), touched.any(axis=0).sum(axis=0)
    return np.where((fewest < FEWEST_FOR_TEST) & (both >= FEWEST_FOR_INTERVAL), fewest, both)


def pigeonhole_weights(
    recipient_clusters: Sequence[str], donor_clusters: Sequence[str], *, draws: int = 2000, seed: int = 42
) -> Floats:
    """Bootstrap weights of pairs when the clusters behind their two clips are drawn again with replacement.

    Each draw takes as many clusters as there are, from the clusters of both sides together. A pair weighs the product
    of the two multiplicities, and one multiplicity where both clips sit in the same cluster, which was drawn once.

    Args:
        recipient_clusters, donor_clusters: [n_pairs] names, of one population of clusters.
    Returns:
        [draws, n_pairs] weights, whole numbers as float64. A draw may leave no pair at all (a row of zeros).
    Source: Owen 2007, Annals of Applied Statistics 1:386 (arXiv:0712.1111), with one population for both factors as
        for dyads in Davezies et al. 2021, Annals of Statistics 49:845.
    """
    recipients, donors, n_clusters = _codes(recipient_clusters, donor_clusters)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=draws).astype(np.float64)
    return times[:, recipients] * np.where(recipients == donors, 1.0, times[:, donors])


@dataclass(frozen=True)
class Interval:
    """95 % limits a layer, [n_layers] each; NaN where there is none, and then `method` says why."""

    low: Floats
    high: Floats
    method: str


def pigeonhole_interval(
    numerators: ArrayLike, weights: Floats, *, n_clusters: ArrayLike, denominators: ArrayLike | None = None
) -> Interval:
    """95 % percentile interval of a mean, or of a ratio of sums, for every layer at once.

    Args:
        numerators: [n_pairs, n_layers] values (or [n_pairs] for one layer); finite, 0 where a pair does not count.
        weights: [draws, n_pairs] from `pigeonhole_weights`.
        n_clusters: clusters the number rests on, one or [n_layers], from `count_clusters`.
        denominators: like numerators; 1 and 0 make the mean over a subset of pairs. None: the mean over all pairs.
    Returns:
        The 2.5 and 97.5 percentiles over the draws whose denominator is not 0 (a draw without a single pair that
        counts has no ratio). NaN for layers under 10 clusters or without such a draw.
    Raises:
        InterpError: shapes that do not fit, or a value that is not finite.
    """
    top = np.asarray(numerators, np.float64)
    top = top[:, None] if top.ndim == 1 else top
    bottom = np.ones_like(top) if denominators is None else np.asarray(denominators, np.float64).reshape(top.shape)
    if top.ndim != 2 or weights.ndim != 2 or weights.shape[1] != len(top):
        raise InterpError(f"weights {weights.shape} must be [draws, n_pairs] for values {top.shape} [n_pairs, layers].")
    if not (np.isfinite(top).all() and np.isfinite(bottom).all()):
        raise InterpError("a value to resample is NaN or infinite; give 0 over 0 to pairs that do not count.")
    clusters = np.broadcast_to(np.asarray(n_clusters), top.shape[1])
    totals, parts = weights @ bottom, weights @ top  # [draws, n_layers]
    ratios = np.divide(parts, totals, out=np.full_like(parts, np.nan), where=totals != 0)
    low, high = np.full((2, top.shape[1]), np.nan)
    for layer in np.flatnonzero((clusters >= FEWEST_FOR_INTERVAL) & np.isfinite(ratios).any(axis=0)):
        defined = ratios[np.isfinite(ratios[:, layer]), layer]
        low[layer], high[layer] = np.percentile(defined, [2.5, 97.5])
    if np.isfinite(low).any():
        method = f"pigeonhole bootstrap, {len(weights)} draws"
    else:
        fewest = int(clusters.min()) if clusters.size else 0
        method = f"no interval: {fewest} clusters, {FEWEST_FOR_INTERVAL} needed"
    return Interval(low, high, method)


def rate_intervals(
    hits: ArrayLike, clusters: Sequence[str], weights: ArrayLike | None = None
) -> tuple[Interval, Interval]:
    """95 % intervals of several rates over the same clips, and of their changes from the first, clips in clusters.

    A percentile bootstrap over a dozen clusters, or of a rate near 1, misses in 12 to 19 % of samples; these hold 95 %.

    Args:
        hits: [n, k] 0 or 1, clips by rates. clusters: [n] names. weights: [n] of the clips; None: all alike.
    Returns:
        Of the rates, [k]: Wilson's interval for as many clips as would be worth the cluster-robust standard error, with
        Student's t for the normal quantile; a rate of 0 or 1 counts clusters. Of rate minus first rate, [k]: it -+ t *
        its cluster-robust standard error. NaN with the reason under 10 clusters.
    Source: Korn & Graubard 1998, Survey Methodology 24:193 (effective n); Dean & Pagano 2015, Journal of Survey
        Statistics and Methodology 3:484 (with Wilson's interval).
    """
    values = np.asarray(hits, np.float64)
    shares = np.full(len(values), 1 / len(values)) if weights is None else np.asarray(weights) / np.sum(weights)
    names, codes = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    n = len(names)
    if n < FEWEST_FOR_INTERVAL:
        none, why = np.full(values.shape[1], np.nan), f"no interval: {n} clusters, {FEWEST_FOR_INTERVAL} needed"
        return Interval(none, none.copy(), why), Interval(none.copy(), none.copy(), why)
    t = stats.t.ppf(0.975, n - 1)

    def mean_and_error(of: Floats) -> tuple[Floats, Floats]:
        mean, sums = shares @ of, np.zeros((n, of.shape[1]))
        np.add.at(sums, codes, shares[:, None] * (of - mean))
        return mean, np.sqrt((sums**2).sum(axis=0) * n / (n - 1))

    rate, error = mean_and_error(values)
    rate = np.clip(rate, 0, 1)  # rounding of the weights
    inside = (rate > 1e-12) & (rate < 1 - 1e-12)
    worth = np.divide(rate * (1 - rate), error**2, out=np.full_like(rate, len(values)), where=error > 0)
    worth = np.where(inside, np.minimum(worth, len(values)), n)
    scale = 1 + t**2 / worth
    centre = (rate + t**2 / (2 * worth)) / scale
    reach = t / scale * np.sqrt(rate * (1 - rate) / worth + t**2 / (4 * worth**2))
    change, spread = mean_and_error(values - values[:, :1])
    said = f"cluster-robust over {n} clusters"
    return (
        Interval(np.clip(centre - reach, 0, 1), np.clip(centre + reach, 0, 1), f"{said}, Wilson with effective n"),
        Interval(np.clip(change - t * spread, -1, 1), np.clip(change + t * spread, -1, 1), said),
    )


def ratio_intervals(
    tops: ArrayLike, clusters: Sequence[str], bottoms: ArrayLike | None = None, *, rates: bool = False
) -> Interval:
    """95 % intervals of several ratios of sums over the same rows, in clusters: cluster-robust, with Student's t.

    As `rate_intervals`, for rows that do not all count, and for what is no rate.

    Args:
        tops, bottoms: [n, k] values, 0 where a row does not count; None: all count. clusters: [n] names.
        rates: tops are 0 or 1, and so are bottoms: Wilson's interval with the effective n.
    Returns:
        [k]; clusters are those of the rows with a bottom other than 0. NaN under 10 of them.
    Source: linearised ratio (Cochran 1977, Sampling Techniques, section 6.3) with clusters as the units; Wilson's as
        in `rate_intervals`.
    """
    top = np.asarray(tops, np.float64)
    bottom = np.ones_like(top) if bottoms is None else np.asarray(bottoms, np.float64)
    names, codes = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    low, high = np.full((2, top.shape[1]), np.nan)
    fewest = 0
    for at in range(top.shape[1]):
        counted = bottom[:, at] != 0
        n, total = len(np.unique(codes[counted])), bottom[:, at].sum()
        fewest = n if at == 0 else min(fewest, n)
        if n < FEWEST_FOR_INTERVAL or not total:
            continue
        ratio = top[:, at].sum() / total
        sums = np.bincount(codes, (top[:, at] - ratio * bottom[:, at]) / total, minlength=len(names))
        error, t = np.sqrt((sums**2).sum() * n / (n - 1)), stats.t.ppf(0.975, n - 1)
        low[at], high[at] = ratio - t * error, ratio + t * error
        if rates:
            inside = 1e-12 < ratio < 1 - 1e-12
            most = int(counted.sum())
            worth = (min(ratio * (1 - ratio) / error**2, most) if error > 0 else most) if inside else n
            scale, rate = 1 + t**2 / worth, min(max(ratio, 0.0), 1.0)
            centre = (rate + t**2 / (2 * worth)) / scale
            reach = t / scale * np.sqrt(rate * (1 - rate) / worth + t**2 / (4 * worth**2))
            low[at], high[at] = max(0.0, centre - reach), min(1.0, centre + reach)
    if np.isfinite(low).any():
        return Interval(low, high, "cluster-robust with t" + ", Wilson with effective n" * rates)
    return Interval(low, high, f"no interval: {fewest} clusters, {FEWEST_FOR_INTERVAL} needed")


@dataclass(frozen=True)
class MaxTest:
    """A test over all layers. `adjusted_p` and `statistic` are [n_layers]; both None where it cannot be done."""

    adjusted_p: Floats | None
    statistic: Floats | None
    n_clusters: int
    method: str  # names the test, or says why there is none


def sign_flip_max_test(
    differences: ArrayLike, clusters: Sequence[str], *, draws: int = 10_000, seed: int = 42
) -> MaxTest:
    """Family-wise p of every layer for "the differences are symmetric about 0", two-sided.

    The sign of all differences of a cluster is flipped together; a layer's p is the share of flips whose largest |t|
    over layers reaches the layer's own |t|. t is the mean over its cluster-robust standard error with the mean 0 of
    the null hypothesis put in: t = sum_c S_c / sqrt(sum_c S_c^2), S_c a cluster's sum. Flips leave that error alone,
    and for clusters of one size t orders layers and flips just as the error about the sample mean does, without
    dividing by 0 when all differences agree: the strongest possible effect.

    Args:
        differences: [n_pairs, n_layers], for example flipped by the donor minus flipped by a random donor.
        clusters: [n_pairs] names of one side's clusters; where the other side is shared too, see `crossed_max_test`.
        draws: random flips; where there are no more than that, each of the 2**n_clusters is taken once instead.
    Returns:
        adjusted_p in (0, 1]: (1 + hits) / (1 + draws), or hits / 2**n_clusters when exact. A layer whose clusters all
        sum to 0 has t = 0 and p = 1. Under 6 clusters no p, method "not testable: ...".
    Raises:
        InterpError: not [n_pairs, n_layers] with a cluster a row, or a difference that is not finite.
    Source: Westfall & Young 1993 (max-T); Romano & Wolf 2005, Econometrica 73:1237 (studentised maximum).
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 2 or len(values) != len(clusters):
        raise InterpError(f"differences {values.shape} must be [n_pairs, n_layers] with {len(clusters)} rows.")
    if not np.isfinite(values).all():
        raise InterpError("a difference is NaN or infinite; leave out pairs that lack one of the two conditions.")
    names, codes = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    n_clusters, n_layers = len(names), values.shape[1]
    if n_clusters < FEWEST_FOR_TEST:
        return MaxTest(None, None, n_clusters, f"not testable: {n_clusters} clusters, {FEWEST_FOR_TEST} needed")
    sums = np.zeros((n_clusters, n_layers))
    np.add.at(sums, codes, values)
    error = np.sqrt((sums**2).sum(axis=0))
    scaled = np.divide(sums, error, out=np.zeros_like(sums), where=error > 0)  # [clusters, layers]
    statistic = scaled.sum(axis=0)
    bar = np.abs(statistic) * (1 - 1e-9)  # counts repeat exactly in discrete data, up to the order of the sum
    exact = 2**n_clusters <= draws
    hits = np.zeros(n_layers)
    for signs in _all_signs(n_clusters) if exact else _random_signs(n_clusters, draws, seed):
        largest = np.abs(signs @ scaled).max(axis=1, initial=0)  # [flips]
        hits += (largest[:, None] >= bar).sum(axis=0)
    p = hits / 2**n_clusters if exact else (1 + hits) / (1 + draws)
    flips = f"all {2**n_clusters} flips" if exact else f"{draws} flips"
    said = f"studentised sign-flip max-t over layers, two-sided, {flips} of {n_clusters} clusters"
    return MaxTest(p, statistic, n_clusters, said)


def crossed_max_test(
    differences: ArrayLike, sides: Mapping[str, Sequence[str]], *, draws: int = 10_000, seed: int = 42
) -> MaxTest:
    """The larger p, layer by layer, of `sign_flip_max_test` over the clusters of each side of the pairs.

    Where a few donors serve many pairs, those pairs are one observation as much as pairs of one recipient are: over
    recipients alone, 8 donors of 60 pairs raise a false alarm in every third run. A layer has to stand every test.

    Args:
        differences: [n_pairs, n_layers].
        sides: name of a side (recipient, donor, random donor) -> [n_pairs] its clusters.
        draws, seed: as in `sign_flip_max_test`.
    Returns:
        As `sign_flip_max_test`; `n_clusters` is the fewest of a side, and fewer than 6 on one side leave no p.
    Raises:
        InterpError: as `sign_flip_max_test`.
    """
    counts = {side: len(set(clusters)) for side, clusters in sides.items()}
    said = " and ".join(", ".join(f"{count} {side}" for side, count in counts.items()).rsplit(", ", 1))
    fewest = min(counts.values())
    if fewest < FEWEST_FOR_TEST:
        return MaxTest(None, None, fewest, f"not testable: {said} clusters, {FEWEST_FOR_TEST} needed of each")
    tests = [sign_flip_max_test(differences, clusters, draws=draws, seed=seed) for clusters in sides.values()]
    p, t = (np.stack([getattr(test, name) for test in tests]) for name in ("adjusted_p", "statistic"))
    worst = p.argmax(axis=0)[None]
    method = f"studentised sign-flip max-t over layers, two-sided, the larger p of {said} clusters"
    return MaxTest(p.max(axis=0), np.take_along_axis(t, worst, axis=0)[0], fewest, method)


def _codes(recipient_clusters: Sequence[str], donor_clusters: Sequence[str]) -> tuple[NDArray, NDArray, int]:
    """Number the clusters of both sides in sorted order, so that the row order of the pairs changes no draw."""
    if len(recipient_clusters) != len(donor_clusters) or not len(recipient_clusters):
        raise InterpError(
            f"{len(recipient_clusters)} recipient and {len(donor_clusters)} donor clusters; give one of each a pair."
        )
    both = np.concatenate([np.asarray(recipient_clusters, dtype=str), np.asarray(donor_clusters, dtype=str)])
    names, codes = np.unique(both, return_inverse=True)
    return codes[: len(recipient_clusters)], codes[len(recipient_clusters) :], len(names)


def _all_signs(n_clusters: int) -> Iterator[Floats]:
    """Every pattern of +1 and -1 once, [2**n_clusters, n_clusters], the identity included."""
    bits = (np.arange(2**n_clusters)[:, None] >> np.arange(n_clusters)) & 1
    yield np.where(bits == 1, -1.0, 1.0)


def _random_signs(n_clusters: int, draws: int, seed: int) -> Iterator[Floats]:
    """`draws` patterns of +1 and -1, in slices of at most [1000, n_clusters]."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, 1000):
        yield rng.choice(np.array([-1.0, 1.0]), size=(min(1000, draws - start), n_clusters))
