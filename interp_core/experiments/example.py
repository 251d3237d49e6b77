"""A pair of clips by which a run is shown and heard."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Sound:
    """A recording as a model hears it.

    Attributes:
        label: shown beside it, as text.
        samples: float32 [n_samples], mono, full scale at 1.
        sample_rate: in Hz.
    """

    label: str
    samples: np.ndarray = field(compare=False, repr=False)
    sample_rate: int


@dataclass(frozen=True)
class Example:
    """Two clips of a run.

    Attributes:
        name: of the pair. a, b: their clip_ids.
        said: what became of them, in a sentence.
        draw: a figure of the pair from both recordings, A's first.
    """

    name: str
    a: str
    b: str
    said: str
    draw: Callable[[Sound, Sound], Figure]
