"""The numbers of a map of heads: estimates of all of them, and what true patches say of those that were verified.

Estimates choose which heads are verified, on the same pairs; so the test of the verified heads goes over the estimates
of all heads as well, as if each of them had been tested: without that, the best of many heads would look like a finding
in runs in which there is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from interp_core.maths.stats import (
    FEWEST_FOR_INTERVAL,
    SIGNIFICANT,
    MaxTest,
    count_clusters,
    crossed_max_test,
    pigeonhole_interval,
    pigeonhole_weights,
    wilson,
)
from interp_core.sites import Kind

Floats = NDArray[np.float64]
RANDOM_HEADS = 10
"""Verified beside the largest, drawn among the others."""
TOP, RANDOM = "largest", "random"
COLUMNS = [
    *["kind", "prompt", "site", "layer", "head", "units", "n", "n_clusters"],
    *["estimate_mean", "estimate_low", "estimate_high", "estimate_rank", "verified"],
    *["true_mean", "true_low", "true_high", "random_donor_mean", "n_random_donor", "p_adjusted"],
    *["wrong_sign_rate", "wrong_sign_low", "wrong_sign_high", "n_signs"],
    *["attention_readout", "attention_text", "n_attention", "interval_method"],
]


@dataclass(frozen=True)
class Part:
    """A head, a whole attention or MLP, or a block of neurons: columns first to stop - 1 of a site in a layer."""

    site: Kind
    layer: int
    head: int | None
    first: int
    stop: int

    @property
    def units(self) -> str:
        return f"{self.first}-{self.stop - 1}" if self.site == "mlp_act" else ""


@dataclass(frozen=True, eq=False)
class Measured:
    """What the pairs of one kind showed under one question; the heads are the first parts.

    Attributes:
        parts: n_parts. chosen: number of a head -> "largest" or "random", the verified ones.
        estimates, of_random: [n, n_parts] nats, with B and with the random donor; NaN for a pair without one.
        truth, random_truth: [n, len(chosen)] true changes of the target's log-probability, in the order of `chosen`.
        attention: [n, 2, n_heads] share of the readout's and of the text's attention on the audio; NaN where unknown.
        recipients, donors, random_donors: [n] clusters; "" for a pair without a random donor.
    """

    parts: Sequence[Part]
    chosen: Mapping[int, str]
    estimates: Floats
    of_random: Floats
    truth: Floats
    random_truth: Floats
    attention: Floats
    recipients: Sequence[str]
    donors: Sequence[str]
    random_donors: Sequence[str]

    @property
    def n_heads(self) -> int:
        return sum(part.site == "head_out" for part in self.parts)


def choose(means: Floats, top: int, seed: int) -> dict[int, str]:
    """The heads to verify: the `top` largest |mean estimates|, then `RANDOM_HEADS` of the others; all where few are.

    A head whose estimate is exactly 0 is read by nothing behind it (at audio positions, those of a decoder's last
    layer): its true effect is 0 by construction, and it is not drawn.
    """
    order = np.argsort(-np.abs(means), kind="stable")
    rest = order[top:]
    rest = rest[means[rest] != 0]
    drawn = np.random.default_rng(seed).permutation(np.sort(rest))[:RANDOM_HEADS]
    return {int(i): TOP for i in order[:top]} | {int(i): RANDOM for i in np.sort(drawn)}


def summarise_heads(
    made: Measured, kind: str, prompt: int, *, draws: int = 2000, flips: int = 10_000, seed: int = 42, column: str = ""
) -> tuple[pd.DataFrame, dict[str, object]]:
    """The rows of a map, heads first, and one row on how far the estimate can be trusted.

    Args:
        draws: of the pigeonhole bootstrap. flips: of signs. column: what the clusters are, for the method's name.
    Returns:
        COLUMNS: `head` is -1 where a row is no head; `units` says which neurons, of mlp_act. Nats, NaN where there is
        none. `wrong_sign_rate` is the share of pairs whose estimate has another sign than the truth, of those where
        neither is 0 (n_signs). p_adjusted: two-sided sign-flip max-t of (B - random donor) over the verified heads'
        true changes and the estimates of all heads; NaN with the reason in interval_method.
        And of the verified heads together: spearman (mean estimate against mean truth, with its interval), the same
        over the random ones alone, its median within a pair, wrong_sign_rate.
    """
    n, heads = len(made.estimates), list(made.chosen)
    sides = list(made.recipients), list(made.donors)
    weights = pigeonhole_weights(*sides, draws=draws, seed=seed)
    n_clusters = int(count_clusters(*sides)[0])
    test = _test(made, flips, seed)
    estimate = pigeonhole_interval(made.estimates, weights, n_clusters=n_clusters)
    truth = pigeonhole_interval(made.truth, weights, n_clusters=n_clusters)
    signs = _signs(made.estimates[:, heads], made.truth)
    wrong, wrong_low, wrong_high = _rates(*signs, sides, weights)
    said = f"pigeonhole bootstrap over {column}, {draws} draws"
    if n_clusters < FEWEST_FOR_INTERVAL:
        said = f"no interval: {n_clusters} {column} clusters, {FEWEST_FOR_INTERVAL} needed"
    table = pd.DataFrame(
        {
            "kind": kind,
            "prompt": prompt,
            "site": [part.site for part in made.parts],
            "layer": [part.layer for part in made.parts],
            "head": [-1 if part.head is None else part.head for part in made.parts],
            "units": [part.units for part in made.parts],
            "n": n,
            "n_clusters": n_clusters,
            "estimate_mean": made.estimates.mean(0),
            "estimate_low": estimate.low,
            "estimate_high": estimate.high,
        }
    )
    largest = table["estimate_mean"].abs().groupby(table["site"], sort=False)
    table["estimate_rank"] = largest.rank(ascending=False, method="first").astype(int)
    table["verified"] = [made.chosen.get(i, "") for i in range(len(table))]
    with_random = np.array([bool(name) for name in made.random_donors])
    of_verified = {
        "true_mean": made.truth.mean(0),
        "true_low": truth.low,
        "true_high": truth.high,
        "random_donor_mean": made.random_truth[with_random].mean(0) if with_random.any() else np.nan,
        "n_random_donor": int(with_random.sum()),
        "p_adjusted": np.nan if test.adjusted_p is None else test.adjusted_p[: len(heads)],
        "wrong_sign_rate": wrong,
        "wrong_sign_low": wrong_low,
        "wrong_sign_high": wrong_high,
        "n_signs": signs[1].sum(0),
    }
    for name, values in of_verified.items():
        table[name] = np.nan
        table.loc[heads, name] = np.broadcast_to(np.asarray(values, float), len(heads))
    known = np.isfinite(made.attention).all((1, 2))
    for at, name in enumerate(("attention_readout", "attention_text")):
        table[name] = np.nan
        if known.any():
            table.loc[: made.n_heads - 1, name] = made.attention[known, at].mean(0)
    table["n_attention"] = np.where(table["site"] == "head_out", int(known.sum()), 0)
    table["interval_method"] = np.where(table["verified"] != "", f"{said}; p: {test.method}", said)
    return table[COLUMNS], _agreement(made, kind, prompt, weights, n_clusters, signs, sides, said)


def named(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of verified heads whose true change is told from a random donor's, adjusted p < .05, largest first."""
    rows = table[(table["verified"] != "") & (table["p_adjusted"] < SIGNIFICANT)]
    return rows.reindex(rows["true_mean"].abs().sort_values(ascending=False, kind="stable").index)


def _test(made: Measured, flips: int, seed: int) -> MaxTest:
    """Of the verified heads' true changes first, then of all heads' estimates."""
    rows = [row for row, name in enumerate(made.random_donors) if name]
    if not rows:
        return MaxTest(None, None, 0, "no random donor to test against")
    n_heads = made.n_heads
    differences = np.concatenate(
        [made.truth - made.random_truth, (made.estimates - made.of_random)[:, :n_heads]], axis=1
    )
    sides = {"recipient": made.recipients, "donor": made.donors, "random donor": made.random_donors}
    found = crossed_max_test(
        differences[rows], {side: [names[i] for i in rows] for side, names in sides.items()}, draws=flips, seed=seed
    )
    over = f"over {len(made.chosen)} verified heads and the estimates of {n_heads}"
    return MaxTest(found.adjusted_p, found.statistic, found.n_clusters, found.method.replace("over layers", over))


def _signs(estimates: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """[n, heads] 1 where the two have unlike signs, and 1 where both have one."""
    both = ((estimates != 0) & (truth != 0)).astype(float)
    return ((np.sign(estimates) != np.sign(truth)) & (both > 0)).astype(float), both


def _rates(
    hits: Floats, support: Floats, sides: tuple[list[str], list[str]], weights: Floats
) -> tuple[Floats, Floats, Floats]:
    """[columns] rate, low, high; Wilson's over clusters at 0 and 1, NaN without a pair or under 10 clusters."""
    units = count_clusters(*sides, support > 0)
    total = support.sum(0)
    rate = np.divide(hits.sum(0), total, out=np.full(len(total), np.nan), where=total > 0)
    found = pigeonhole_interval(hits, weights, n_clusters=units, denominators=support)
    low, high = found.low.copy(), found.high.copy()
    for i in np.flatnonzero(((rate == 0) | (rate == 1)) & (units >= FEWEST_FOR_INTERVAL)):
        low[i], high[i] = wilson(int(units[i] * rate[i]), int(units[i]))
    return rate, low, high


def _agreement(
    made: Measured,
    kind: str,
    prompt: int,
    weights: Floats,
    n_clusters: int,
    signs: tuple[Floats, Floats],
    sides: tuple[list[str], list[str]],
    said: str,
) -> dict[str, object]:
    heads = list(made.chosen)
    estimates, truth = made.estimates[:, heads], made.truth
    random = [at for at, head in enumerate(heads) if made.chosen[head] == RANDOM]
    low = high = np.nan
    if n_clusters >= FEWEST_FOR_INTERVAL:
        drawn = weights[weights.sum(1) > 0]
        found = spearman_rows(drawn @ estimates, drawn @ truth)
        if np.isfinite(found).any():
            low, high = np.nanpercentile(found, [2.5, 97.5])
    within = spearman_rows(estimates, truth)
    wrong, wrong_low, wrong_high = _rates(
        signs[0].sum(1, keepdims=True), signs[1].sum(1, keepdims=True), sides, weights
    )
    return {
        "kind": kind,
        "prompt": prompt,
        "n": len(estimates),
        "n_clusters": n_clusters,
        "n_heads": made.n_heads,
        "n_verified": len(heads),
        "n_random": len(random),
        "spearman": spearman_rows(estimates.mean(0)[None], truth.mean(0)[None])[0],
        "spearman_low": low,
        "spearman_high": high,
        "spearman_random": spearman_rows(estimates[:, random].mean(0)[None], truth[:, random].mean(0)[None])[0],
        "spearman_pair_median": np.nanmedian(within) if np.isfinite(within).any() else np.nan,
        "wrong_sign_rate": wrong[0],
        "wrong_sign_low": wrong_low[0],
        "wrong_sign_high": wrong_high[0],
        "n_signs": int(signs[1].sum()),
        "interval_method": said,
    }


def spearman_rows(x: Floats, y: Floats) -> Floats:
    """[rows] Spearman's rank correlation of each row of x with that of y, ties averaged; NaN where all are equal."""
    if x.shape[1] < 3:
        return np.full(len(x), np.nan)
    a, b = (rankdata(values, axis=1) for values in (x, y))
    a, b = (ranks - ranks.mean(1, keepdims=True) for ranks in (a, b))
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(len(x), np.nan), where=size > 0)
