"""Intervals for what is not a mean: the jackknife that deletes groups, and speakers drawn again within each class.

A bootstrap puts a clip twice into a sample. Where a number compares clips with each other (CKA, Fisher ratios), a clip
and its own copy then look like a finding, so those numbers get a jackknife, which only ever leaves clips out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from interp_core.errors import InterpError
from interp_core.maths.stats import FEWEST_FOR_INTERVAL, Interval

Floats = NDArray[np.float64]


def grouped_jackknife(estimate: ArrayLike, deleted: ArrayLike, sizes: Sequence[int]) -> Interval:
    """95 % interval from the estimates that leave out one group each; groups may differ in size.

    Args:
        estimate: [...] the number on all examples.
        deleted: [n_groups, ...] the same number without group g.
        sizes: [n_groups] examples in each group.
    Returns:
        estimate -+ t * standard error with n_groups - 1 degrees of freedom, [...]; limits may leave the range of the
        number itself (CKA above 1). NaN where the estimate or a deleted one is NaN, and everywhere under 10 groups.
    Raises:
        InterpError: as many sizes as deleted estimates are needed, none of them below 1.
    Source: Busing, Meijer & van der Leeden 1999, Statistics and Computing 9:3 (delete-m_j jackknife); with groups of
        one size it is the textbook delete-a-group jackknife.
    """
    whole, parts, m = np.asarray(estimate, np.float64), np.asarray(deleted, np.float64), np.asarray(sizes, np.float64)
    if parts.shape != (len(m), *whole.shape) or (m < 1).any():
        raise InterpError(f"deleted {parts.shape} must be [{len(m)} groups, {whole.shape}] with sizes of 1 or more.")
    groups = len(m)
    if groups < FEWEST_FOR_INTERVAL:
        nothing = np.full(whole.shape, np.nan)
        return Interval(nothing, nothing.copy(), f"no interval: {groups} groups, {FEWEST_FOR_INTERVAL} needed")
    h = (m.sum() / m).reshape(-1, *([1] * whole.ndim))  # [n_groups, 1, ...]
    pseudo = h * whole - (h - 1) * parts
    centre = groups * whole - ((1 - 1 / h) * parts).sum(axis=0)
    error = np.sqrt(((pseudo - centre) ** 2 / (h - 1)).mean(axis=0))
    reach = stats.t.ppf(0.975, groups - 1) * error
    return Interval(whole - reach, whole + reach, f"delete-a-group jackknife, {groups} groups")


def over_folds(found: Interval, folds: int, *, lowest: float = -np.inf, highest: float = np.inf) -> Interval:
    """The interval of a cross-validated score, widened for the probes: those of two folds share most of their clips.

    A jackknife over held-out predictions takes the probes as they were fitted, so that it misses in 6 to 20 % of
    samples; other clips would have made other probes.

    Args:
        found: of the held-out predictions. folds: 2 or more. lowest, highest: that the score can be.
    Returns:
        The same centre, cut at what the score can be; the variance times 1 + folds * scored / learnt =
        1 + folds / (folds - 1).
    Source: Nadeau & Bengio 2003, Machine Learning 52:239 (corrected resampled t).
    """
    centre, reach = (found.low + found.high) / 2, (found.high - found.low) / 2
    reach = reach * np.sqrt(1 + folds / (folds - 1))
    said = (
        found.method if found.method.startswith("no") else f"{found.method}, of held-out predictions of {folds} folds"
    )
    return Interval(np.clip(centre - reach, lowest, highest), np.clip(centre + reach, lowest, highest), said)


def units_in_classes(classes: ArrayLike, units: ArrayLike) -> tuple[NDArray[np.int64], list[int]]:
    """Number the (class, unit) cells: a speaker who is heard in two classes is drawn apart in each.

    Args:
        classes: [n] the class of every clip.
        units: [n] what was really sampled (speaker, utterance).
    Returns:
        codes: [n] the cell of every clip, the cells of one class next to each other.
        counts: units in each class, classes in sorted order.
    """
    first, second = np.asarray(classes), np.asarray(units, dtype=str)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise InterpError(f"classes {first.shape} and units {second.shape} must be one [n] each.")
    _, kinds = np.unique(first, return_inverse=True)
    _, names = np.unique(second, return_inverse=True)
    cells, codes = np.unique(np.stack([kinds, names]), axis=1, return_inverse=True)
    return codes.reshape(-1), np.bincount(cells[0]).tolist()


def speakers_in_classes(classes: ArrayLike, speakers: ArrayLike) -> tuple[NDArray[np.int64], list[int]]:
    """As `units_in_classes` where no speaker is heard in two classes; else all speakers in one class, so that what a
    speaker says in one class and in another is drawn together."""
    codes, counts = units_in_classes(classes, speakers)
    together, all_of = units_in_classes(np.zeros(len(codes)), speakers)
    return (codes, counts) if sum(counts) == all_of[0] else (together, all_of)


def draws_within_classes(counts: Sequence[int], *, draws: int = 2000, seed: int = 42) -> Floats:
    """How often each unit is drawn when every class draws as many units as it has, with replacement.

    Args:
        counts: units in each class, from `units_in_classes`.
    Returns:
        [draws, n_cells] whole numbers as float64; index them by the codes of `units_in_classes` for weights of clips.
    """
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.multinomial(count, np.full(count, 1 / count), size=draws) for count in counts], axis=1
    ).astype(np.float64)
