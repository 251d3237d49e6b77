"""What one direction does beside what random ones do, where each of them served every clip or pair.

A direction that serves all clips is one draw, however many clips there are: a test over clips alone takes what is
peculiar to that one draw for an effect. So the direction is ranked among the random ones, as one more of them.
"""

import numpy as np
from numpy.typing import ArrayLike

from interp_core.errors import InterpError
from interp_core.maths.arrays import Floats
from interp_core.maths.stats import MaxTest

FEWEST_DRAWS = 20  # the smallest p of a rank among 19 random draws and the own is 1 / 20, which is not under .05


def draw_rank_test(own: ArrayLike, drawn: ArrayLike, *, tolerance: float = 0.0) -> MaxTest:
    """Family-wise p of every cell for "the own draw is one more random draw", one-sided: it does more.

    Each draw counts with its largest distance, over cells, from the mean of all draws in that cell, its own included; a
    cell's p is the share of draws, the own among them, whose largest distance reaches the own one in the cell. Exact
    where the own draw could change places with the others, and blind to how many clips the numbers are means of.

    Args:
        own: [n_cells] means over clips. drawn: [draws, n_cells] the same of random draws, over the same clips.
        tolerance: a distance that is shorter by no more than this reaches it; rounding makes no effect.
    Returns:
        adjusted_p in (0, 1]; `statistic` the distances; `n_clusters` the random draws. Under 20 draws no p, method
        "not testable: ...".
    Raises:
        InterpError: shapes that do not fit, or a number that is not finite.
    """
    one, others = np.asarray(own, np.float64), np.asarray(drawn, np.float64)
    if one.ndim != 1 or others.ndim != 2 or others.shape[1] != len(one):
        raise InterpError(f"draws {others.shape} must be [draws, n_cells] beside the own {one.shape} [n_cells].")
    if not (np.isfinite(one).all() and np.isfinite(others).all()):
        raise InterpError("a mean over clips is NaN or infinite; leave out cells that a draw did not meet.")
    n = len(others)
    if n < FEWEST_DRAWS:
        return MaxTest(None, None, n, f"not testable: {n} random draw{'s' * (n != 1)}, {FEWEST_DRAWS} needed")
    every = np.vstack([one, others])
    distance = every - every.mean(axis=0)
    largest: Floats = distance[1:].max(axis=1, initial=-np.inf)
    hits = (largest[:, None] >= distance[0] - max(tolerance, 1e-12)).sum(axis=0)
    said = f"rank among {n} random draws, largest distance from their mean over cells, one-sided"
    return MaxTest((1 + hits) / (1 + n), distance[0], n, said)


def larger_of(over_clips: MaxTest, over_draws: MaxTest) -> MaxTest:
    """The larger p of a test over clips and one over draws, cell by cell; without one of them there is none."""
    missing = [test.method for test in (over_draws, over_clips) if test.adjusted_p is None]
    if over_clips.adjusted_p is None or over_draws.adjusted_p is None:
        return MaxTest(None, None, over_draws.n_clusters, missing[0])
    p = np.maximum(over_clips.adjusted_p, over_draws.adjusted_p)
    return MaxTest(
        p, over_draws.statistic, over_draws.n_clusters, f"the larger of {over_draws.method}, and {over_clips.method}"
    )
