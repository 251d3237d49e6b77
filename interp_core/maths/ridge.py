"""What a linear probe can read off a representation of a number, such as a recording's pitch: held-out R2 of ridge.

Clips of one group never stand on both sides of a fold. The strength is fixed, in shares of the mean eigenvalue that
features of spread 1 have, so that representations of any width are compared alike. A fold's predictions are one matrix
times its values, which serves the values as they are, every shuffle of them and the control tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import GroupKFold
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.maths.arrays import Floats, to_float64
from interp_core.maths.linear import one_thread
from interp_core.maths.permutation import max_t_test
from interp_core.maths.probes import FEWEST_GROUPS, scaled
from interp_core.maths.resampling import grouped_jackknife, over_folds
from interp_core.maths.stats import Interval, MaxTest

RIDGE = 0.1
"""The usual strength of the penalty, in shares of the mean eigenvalue."""


@dataclass(frozen=True)
class RidgeScore:
    """Held-out R2 of a ridge probe; NaN and empty where `reason` is not."""

    r2: float  # 1 - squared errors over squared distances from the mean of all values; below 0 is worse than the mean
    interval: Interval  # 95 %, [1]: see `_interval`
    n_groups: int
    predicted: Floats = field(repr=False)  # [n] held-out predictions
    reason: str


def ridge_probe(
    features: ArrayLike | Tensor,
    values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    folds: int = 5,
    ridge: float = RIDGE,
    seed: int = 42,
) -> RidgeScore:
    """Fit and score a ridge regression by grouped cross-validation.

    Args:
        features: [n, d] one row a clip; any float dtype. values: [n] finite.
        groups: [n] what may not be split; None where clips are unrelated.
        folds: at most; fewer where there are fewer groups.
        ridge: the penalty on weights of features of spread 1, times max(clips in the fold, d).
    Returns:
        Refused, R2 NaN with a reason, where all values are the same or come from under 3 groups.
    Raises:
        InterpError: shapes that do not fit, or a number that is not finite.
    """
    x, y, members = _checked(features, values, groups)
    n_groups = int(members.max()) + 1
    if reason := _refusal(y, n_groups):
        nothing = Interval(np.full(1, np.nan), np.full(1, np.nan), f"no interval: {reason}")
        return RidgeScore(float("nan"), nothing, n_groups, np.zeros(0), reason)
    with one_thread():
        predicted = _held_out(x, y[:, None], members, folds, ridge, seed)[:, 0]
    r2 = float(_r2(predicted[:, None], y[:, None])[0])
    deleted = np.stack([_r2(predicted[kept, None], y[kept, None]) for kept in _without(members)])
    interval = _interval(np.array([r2]), deleted, np.bincount(members).tolist(), min(folds, n_groups))
    return RidgeScore(r2, interval, n_groups, predicted, "")


def ridge_test(
    features: Sequence[ArrayLike | Tensor],
    values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    folds: int = 5,
    ridge: float = RIDGE,
    draws: int = 999,
    seed: int = 42,
) -> MaxTest:
    """p of "the features say nothing about the value" for several representations, corrected over all of them.

    Args:
        features: [n, d_i] each, of the same clips; values, groups: [n].
    Returns:
        adjusted_p: one a representation, by the maximum of R2 over them under each shuffle; None with the reason where
        the values cannot be probed.
    """
    _, y, members = _checked(features[0], values, groups)
    n_groups = int(members.max()) + 1
    if reason := _refusal(y, n_groups):
        return MaxTest(None, None, n_groups, f"not testable: {reason}")
    shuffles, scheme = shuffled_values(y, members, draws=draws, seed=seed)
    every = np.vstack([y[None], shuffles]).T  # [n, draws + 1]
    with one_thread():
        found = np.stack(
            [_r2(_held_out(_checked(x, y, groups)[0], every, members, folds, ridge, seed), every) for x in features],
            axis=1,
        )
    return max_t_test(found[0], found[1:], n_groups=n_groups, scheme=scheme)


def control_r2(
    features: ArrayLike | Tensor,
    values: ArrayLike,
    groups: ArrayLike,
    *,
    folds: int = 5,
    ridge: float = RIDGE,
    draws: int = 3,
    seed: int = 42,
) -> tuple[float, str]:
    """R2 of the same probe at a control task: one value a group, the groups' means drawn at random among them.

    As `control_accuracy`: clips of a group stand on both sides of a fold, so that the value can be known by heart.

    Returns:
        The mean R2 over draws, and what was done; NaN with the reason where groups hold one clip each or there are
        under 3 groups.
    """
    x, y, members = _checked(features, values, groups)
    n_groups = int(members.max()) + 1
    if n_groups == len(x):
        return float("nan"), "no control task: every clip is a group of its own, so no value of a group can be known"
    if reason := _refusal(y, n_groups):
        return float("nan"), f"no control task: {reason}"
    means = np.bincount(members, y) / np.bincount(members)
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.permutation(means)[members] for _ in range(draws)], axis=1)  # [n, draws]
    with one_thread():
        found = _r2(_held_out(x, drawn, np.arange(len(x)), folds, ridge, seed), drawn)
    return float(found.mean()), f"one random value a group, {draws} draws, clips of a group in several folds"


def shuffled_values(values: Floats, members: NDArray[np.intp], *, draws: int, seed: int) -> tuple[Floats, str]:
    """Arrangements of the values that keep related clips together: [draws, n], and what was shuffled.

    Groups of one size exchange all their values as wholes, and the values within a group are exchanged too: both leave
    the values of related clips together.

    Args:
        values: [n]. members: [n] the number of each clip's group.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(members, kind="stable")
    of_group = np.split(order, np.cumsum(np.bincount(members))[:-1])
    by_size: dict[int, list[NDArray[np.intp]]] = {}
    for rows in of_group:
        by_size.setdefault(len(rows), []).append(rows)
    drawn = np.tile(values, (draws, 1))
    for alike in by_size.values():
        rows = np.stack(alike)  # [groups of this size, size]
        for draw in range(draws):
            taken = rows[rng.permutation(len(rows))]
            drawn[draw, rows] = values[rng.permuted(taken, axis=1)]
    within = any(size > 1 for size in by_size)
    return drawn, f"values shuffled over {len(of_group)} groups" + (" of one size, and within them" if within else "")


def _checked(
    features: ArrayLike | Tensor, values: ArrayLike, groups: ArrayLike | None
) -> tuple[Floats, Floats, NDArray[np.intp]]:
    x, y = to_float64(features), np.asarray(values, np.float64)
    held = np.arange(len(y)) if groups is None else np.asarray(groups)
    if x.ndim != 2 or not x.size or y.shape != (len(x),) or held.shape != (len(x),):
        raise InterpError(
            f"features {x.shape} must be [clips, width] with a value and a group a clip; got values {y.shape}, groups "
            f"{held.shape}."
        )
    for name, bad in (("features", ~np.isfinite(x).all(axis=1)), ("value", ~np.isfinite(y))):
        if bad.any():
            raise InterpError(
                f"{int(bad.sum())} of {len(x)} clips hold a NaN or an infinity in their {name}, the first at row "
                f"{int(bad.argmax())}."
            )
    return x, y, np.unique(held, return_inverse=True)[1]


def _refusal(y: Floats, n_groups: int) -> str:
    if np.ptp(y) <= 1e-12 * max(1.0, float(np.abs(y).max())):
        return f"all {len(y)} clips have one value"
    if n_groups < FEWEST_GROUPS:
        return f"the clips come from {n_groups} groups, {FEWEST_GROUPS} needed"
    return ""


def _held_out(x: Floats, every: Floats, members: NDArray, folds: int, ridge: float, seed: int) -> Floats:
    """Held-out predictions [n, sets] of values [n, sets]."""
    predicted = np.empty_like(every)
    splitter = GroupKFold(min(folds, int(members.max()) + 1), shuffle=True, random_state=seed)
    for learn, score in splitter.split(x, groups=members):
        a, b = scaled(x[learn], x[score])
        weight = ridge * max(a.shape)
        if a.shape[1] < a.shape[0]:
            hat = b @ np.linalg.solve(a.T @ a + weight * np.eye(a.shape[1]), a.T)
        else:
            hat = b @ np.linalg.solve(a @ a.T + weight * np.eye(a.shape[0]), a).T
        centre = every[learn].mean(axis=0)
        predicted[score] = hat @ (every[learn] - centre) + centre
    return predicted


def _r2(predicted: Floats, every: Floats) -> Floats:
    """[sets] of [n, sets]; NaN where all values are the same."""
    spread = ((every - every.mean(axis=0)) ** 2).sum(axis=0)
    errors = ((every - predicted) ** 2).sum(axis=0)
    return 1 - np.divide(errors, spread, out=np.full_like(errors, np.nan), where=spread > 0)


def _interval(r2: Floats, deleted: Floats, sizes: Sequence[int], folds: int) -> Interval:
    """The limits of log(1 - R2), taken back: a share of squared errors cannot be below 0 and is far from symmetric.

    Where a value belongs to a group, limits that lie alike on both sides of R2 itself miss in 15 % of samples.

    Args:
        r2: [1]. deleted: [n_groups, 1] without a group each. sizes: of the groups.
    """
    smallest = np.finfo(np.float64).tiny
    unexplained, without = (np.log(np.maximum(1 - of, smallest)) for of in (r2, deleted))
    found = over_folds(grouped_jackknife(unexplained, without, sizes), folds)
    said = found.method if found.method.startswith("no") else f"{found.method}, of log(1 - R2)"
    return Interval(1 - np.exp(found.high), 1 - np.exp(found.low), said)


def _without(members: NDArray) -> list[NDArray]:
    """The rows that are left without each group in turn."""
    return [members != group for group in range(int(members.max()) + 1)]
