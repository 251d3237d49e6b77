"""Permutation tests where clips come in groups: which shuffles of the labels are fair, and max-T over many numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from interp_core.errors import InterpError
from interp_core.maths.arrays import Floats
from interp_core.maths.stats import MaxTest

FEWEST_ARRANGEMENTS = 20  # of the labels; with fewer no p can reach .05


@dataclass(frozen=True)
class Shuffles:
    """Labels as they could have fallen if they had nothing to do with the clips."""

    codes: NDArray[np.int64]  # [draws, n]
    n_groups: int
    scheme: str  # what was shuffled, in words
    testable: bool  # whether the labels have at least 20 arrangements under the scheme


def shuffled_labels(codes: ArrayLike, groups: ArrayLike | None = None, *, draws: int = 999, seed: int = 42) -> Shuffles:
    """Draw arrangements of the labels that keep related clips together.

    Labels are exchanged within each group that holds several of them (the codec versions of an utterance, a speaker's
    laughs and coughs). A group with one label throughout (takes from one recording) keeps one label: such groups
    exchange theirs among each other, as wholes. Clips without relatives are groups of one, so they exchange freely.

    Args:
        codes: [n] labels as whole numbers.
        groups: [n] the group of every clip; None where clips are unrelated.
    Returns:
        [draws, n] codes; the arrangement that was observed is not among them except by chance.
    Raises:
        InterpError: not one group a clip.
    """
    labels = np.asarray(codes, np.int64)
    names = np.arange(len(labels)) if groups is None else np.asarray(groups, dtype=str)
    if labels.ndim != 1 or names.shape != labels.shape or not len(labels):
        raise InterpError(f"labels {labels.shape} and groups {names.shape} must be one [n] each.")
    _, members = np.unique(names, return_inverse=True)
    n_groups, n_labels = int(members.max()) + 1, int(labels.max()) + 1
    counts = np.zeros((n_groups, n_labels))
    np.add.at(counts, (members, labels), 1)
    single = (counts > 0).sum(axis=1) == 1  # [n_groups]
    rng = np.random.default_rng(seed)
    drawn = np.tile(labels, (draws, 1))
    mixed = np.flatnonzero(~single[members])
    if len(mixed):
        order = mixed[np.argsort(members[mixed], kind="stable")]  # a group's clips side by side
        keys = members[order] + rng.random((draws, len(order)))  # sorting them shuffles inside every group
        drawn[:, order] = labels[order][np.argsort(keys, axis=1)]
    wholes = np.flatnonzero(single)
    if len(wholes):
        held = counts[wholes].argmax(axis=1)  # the one label of each
        exchanged = np.zeros((draws, n_groups), np.int64)
        exchanged[:, wholes] = rng.permuted(np.tile(held, (draws, 1)), axis=1)
        alone = np.flatnonzero(single[members])
        drawn[:, alone] = exchanged[:, members[alone]]
    inside = counts[~single]
    arrangements = (gammaln(inside.sum(axis=1) + 1) - gammaln(inside + 1).sum(axis=1)).sum()
    arrangements += gammaln(len(wholes) + 1) - gammaln(np.bincount(counts[wholes].argmax(axis=1)) + 1).sum()
    said = [f"within {n_groups - len(wholes)} groups"] * (len(wholes) < n_groups)
    said += [f"over {len(wholes)} " + ("clips" if groups is None else "groups of one label")] * bool(len(wholes))
    testable = bool(arrangements > np.log(FEWEST_ARRANGEMENTS) - 1e-9)
    return Shuffles(drawn, n_groups, f"labels shuffled {' and '.join(said)}", testable)


def max_t_test(observed: ArrayLike, shuffled: ArrayLike, *, n_groups: int, scheme: str) -> MaxTest:
    """Family-wise p of every number for "no larger than under shuffled labels", one-sided.

    Every number is centred and scaled by its mean and spread over the observed and the shuffled labels together, so
    that a number with a wide null does not decide the maximum alone; treating the observed labels like any other
    arrangement keeps the test exact.

    Args:
        observed: [n_numbers]; shuffled: [draws, n_numbers].
        n_groups, scheme: from `Shuffles`, for the report.
    Returns:
        adjusted_p: [n_numbers] in (0, 1], the share of arrangements (the observed one included) whose largest scaled
        number reaches this one's. A number that no shuffle moves gets p = 1.
    Source: Westfall & Young 1993 (max-T); Phipson & Smyth 2010 for counting the observed arrangement.
    """
    values = np.vstack([np.asarray(observed, np.float64)[None], np.asarray(shuffled, np.float64)])
    if not np.isfinite(values).all():
        raise InterpError("a number to test is NaN or infinite; leave it out.")
    centre, spread = values.mean(axis=0), values.std(axis=0)
    still = spread <= 1e-12 * np.abs(values).max(axis=0)  # rounding
    scaled: Floats = np.divide(values - centre, spread, out=np.zeros_like(values), where=~still)
    largest = np.sort(scaled.max(axis=1, initial=-np.inf))
    bar = scaled[0] - 1e-9 * np.maximum(1, np.abs(scaled[0]))  # equal arrangements repeat up to rounding
    reached = len(largest) - np.searchsorted(largest, bar, side="left")
    p = np.where(still, 1.0, reached / len(largest))
    return MaxTest(
        p, scaled[0], n_groups, f"studentised permutation max-T, one-sided, {len(values) - 1} draws, {scheme}"
    )
