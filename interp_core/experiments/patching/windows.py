"""The span of a patch cut into windows of time."""

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from interp_core.experiments.patching.positions import Aligned
from interp_core.experiments.patching.request import PatchRequest
from interp_core.maths.arrays import Floats
from interp_core.models.prompted import Prompted
from interp_core.trace.patch import Patch

USUAL_WINDOWS = 8
FEWEST_POSITIONS = 2
"""Of a window, in time; a span of fewer than twice as many is one window."""


@dataclass(frozen=True, eq=False)
class Window:
    """Positions of a span that are next to each other in time, in every band of a spectrogram.

    Attributes:
        positions, source: of the recipient, and of the donor, as in a patch.
        first, stop: frames of the span, from its first.
        seconds: (start, stop) in the recipient's recording.
    """

    positions: Tensor
    source: Tensor
    first: int
    stop: int
    seconds: tuple[float, float]

    def of(self, patch: Patch) -> Patch:
        """The patch in this window alone."""
        return replace(patch, positions=self.positions, source=self.source)


@dataclass(frozen=True, eq=False)
class Span:
    """What a patch replaces, as frames in time.

    Attributes:
        a: the recipient. replaced: the span's positions and the donor's that go there, band by band.
    """

    a: Prompted
    replaced: Aligned | Patch

    @property
    def frames(self) -> int:
        return len(self.replaced.positions) // self.a.bands[0]

    def window(self, first: int, stop: int) -> Window:
        """The frames [first, stop) of the span, in every band."""
        positions, source = (each.view(self.a.bands[0], -1) for each in (self.replaced.positions, self.replaced.source))
        before, step = int(positions[0, first]) - self.a.audio[0], self.a.seconds_per_position
        here, there = (each[:, first:stop].flatten() for each in (positions, source))
        return Window(here, there, first, stop, (before * step, (before + stop - first) * step))

    def cut(self, count: int) -> list[Window]:
        """Equal windows, their lengths apart by one frame at most; fewer than `count` where some would be too short."""
        count = max(1, min(count, self.frames // FEWEST_POSITIONS))
        edges = [number * self.frames // count for number in range(count + 1)]
        return [self.window(first, stop) for first, stop in zip(edges, edges[1:], strict=False)]


def windows_of(settings: PatchRequest, patch: Patch) -> list[Window]:
    """The windows into which the settings cut the span of a patch."""
    prompted = patch.recipient.prompted
    span = Span(prompted, patch)
    if settings.window_seconds is None:
        return span.cut(settings.windows or USUAL_WINDOWS)
    return span.cut(max(1, round(span.frames * prompted.seconds_per_position / settings.window_seconds)))


def shares(cells: int, windows: int) -> Floats:
    """How a span's windows stand in the cells of a grid that cuts the same span otherwise.

    Returns:
        [cells, windows] the share of each cell that lies in each window; rows sum to 1; the unit matrix where the two
        are as many.
    """
    cell, window = np.linspace(0, 1, cells + 1), np.linspace(0, 1, windows + 1)
    stop = np.minimum(cell[1:, None], window[None, 1:])
    start = np.maximum(cell[:-1, None], window[None, :-1])
    found = np.clip(stop - start, 0, None) * cells
    found[found < 1e-9] = 0  # rounding
    return found / found.sum(axis=1, keepdims=True)
