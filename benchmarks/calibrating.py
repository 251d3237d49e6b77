"""What the calibration of p and intervals is made of: what a data set shows, designs, and how often it is off."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 400
"""Of bootstraps and permutations here: fewer than the product's, which moves a rate by less than a point."""


class Found(NamedTuple):
    """What one data set shows of one quantity.

    Attributes:
        p: [any] p values; the data set alarms where the smallest is .05 or less.
        low, high: [any] limits; the share of them that miss is counted. NaN where the product gives none.
        truth: what they should hold; None stands for the mean of `value` over all data sets.
    """

    p: ArrayLike | None = None
    low: ArrayLike = np.nan
    high: ArrayLike = np.nan
    value: ArrayLike = np.nan
    truth: ArrayLike | None = None


Named = Iterator[tuple[str, Found]]


def normal(rng: np.random.Generator, of: NDArray, *shape: int) -> NDArray:
    """One draw a cluster, handed to its members: [len(of), *shape]."""
    return rng.normal(size=(int(of.max()) + 1, *shape))[of]


def designs(rng: np.random.Generator) -> Iterator[tuple[str, NDArray, NDArray]]:
    """Three classes without any relation to the clips, and groups of three clips."""
    every, one = (
        (lambda n: rng.permuted(np.tile(np.arange(3), (n, 1)), axis=1).reshape(-1)),
        (lambda n: np.repeat(rng.permutation(np.arange(n) % 3), 3)),
    )
    for n in (12, 24):
        yield f"{n} groups with every class", every(n), np.repeat(np.arange(n), 3)
        yield f"{n} groups of one class", one(n), np.repeat(np.arange(n), 3)
    yield "10 of the first kind and 12 of the second", np.r_[every(10), one(12)], np.repeat(np.arange(22), 3)


def rates(found: Sequence[Found]) -> tuple[float, float, float]:
    """Share of data sets with p <= .05, share of intervals that miss, share of numbers without p and interval."""
    p = np.array([np.nan if one.p is None else np.min(one.p) for one in found], float)
    low, high, value = (np.array([getattr(one, name) for one in found], float) for name in ("low", "high", "value"))
    truth = np.array([one.truth for one in found], float)
    truth = truth.reshape(len(found), *truth.shape[1:], *[1] * (low.ndim - truth.ndim))
    if np.isnan(truth).any():
        truth = value.mean(axis=0)
    known = np.isfinite(low)
    missed = (((low > truth) | (high < truth)) & known).sum() / known.sum() if known.any() else np.nan
    tested = np.isfinite(p)
    return (p[tested] <= 0.05).mean() if tested.any() else np.nan, missed, 1 - max(known.mean(), tested.mean())
