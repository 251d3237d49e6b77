"""Random neurons that are like given ones in what they weigh."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WINDOW = 8
"""A matched random neuron is one of so many ranks on either side, or of an eighth of the width if that is more."""


def matched(neurons: NDArray[np.intp], impact: Floats, rng: np.random.Generator) -> tuple[int, ...]:
    """For each neuron another one near it in the order of impact, none twice."""
    width = len(impact)
    by_impact = np.argsort(impact, kind="stable")
    rank = np.empty(width, np.intp)
    rank[by_impact] = np.arange(width)
    free = np.ones(width, bool)
    if 2 * len(neurons) <= width:
        free[neurons] = False
    reach, chosen = max(WINDOW, width // 8), []
    for neuron in rng.permutation(neurons):
        at = by_impact[free[by_impact]]  # those that are left, by impact
        place = int(np.searchsorted(rank[at], rank[neuron]))
        near = at[max(0, place - reach) : place + reach]
        pick = int(rng.choice(near))
        free[pick] = False
        chosen.append(pick)
    return tuple(chosen)
