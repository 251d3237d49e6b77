"""Centered kernel alignment (CKA): how alike two representations of the same clips are, for one pair of layers or all.

Both estimates are given everywhere. The plain one is what papers report, and with few clips it calls unrelated layers
alike. The unbiased one (Song et al.) is about 0 there and may be negative. All sums are float64 over centred features,
and no constant is added inside a root: scaling a layer leaves its similarity alone, however small the scale.

`CkaStream` compares all layers of two models in one pass. It holds clips as they come, up to a byte limit; when the
limit is reached it folds what it holds into sums of HSIC as one minibatch and goes on (Nguyen et al. 2021). While
everything fits there is one minibatch, and the numbers are those of all clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.maths.arrays import Floats, to_numpy
from interp_core.maths.hsic import FEWEST_UNBIASED, HsicSums, Minibatch
from interp_core.maths.resampling import grouped_jackknife
from interp_core.maths.stats import Interval

Layers = Sequence[ArrayLike | Tensor]


def divergence_onset(diagonal: ArrayLike, tolerance: float = 1e-6) -> int | None:
    """First layer whose similarity to its counterpart is below 1 by more than the tolerance; None where all agree.

    Args:
        diagonal: [n_layers] CKA of layer l of one model with layer l of the other. A NaN is no value below 1: say where
            there is one before the layer that comes out, because the models may part there.
    """
    below = np.flatnonzero(np.asarray(diagonal, np.float64) < 1 - tolerance)
    return int(below[0]) if len(below) else None


@dataclass(frozen=True)
class CkaMatrix:
    """CKA of every layer of one model with every layer of the other; arrays are [n_layers_x, n_layers_y]."""

    plain: Floats
    unbiased: Floats
    plain_interval: Interval  # 95 %, low and high shaped as the estimates; `method` says why there is none
    unbiased_interval: Interval
    plain_reason: NDArray  # why NaN, "" where the value is a number
    unbiased_reason: NDArray
    n: int  # clips used
    left_out: int  # clips of a last minibatch too small to use
    minibatches: int  # 1: the numbers are those of all clips at once


class CkaStream:
    """CKA of all pairs of layers of two models from one pass over the clips, in bounded memory.

    Args:
        max_bytes: limit on what the stream holds and works with; the caller's own batches come on top. One layer of
            the clips held is also copied to float64 at a time.
        minibatch: fold after this many clips instead of when memory asks for it; None: as late as possible, which is
            the better estimate.
    Use: `add` batch by batch, then `result` once.
    """

    def __init__(self, *, max_bytes: int = 1 << 30, minibatch: int | None = None) -> None:
        if max_bytes < 1 << 16 or (minibatch is not None and minibatch < FEWEST_UNBIASED):
            raise InterpError(
                f"max_bytes={max_bytes} and minibatch={minibatch}: give at least 65536 bytes and "
                f"{FEWEST_UNBIASED} clips a minibatch."
            )
        self._max_bytes, self._minibatch = max_bytes, minibatch
        self._held: list[list[NDArray]] = []  # a list of [b, d_l] a layer, x's layers first
        self._widths: list[int] = []
        self._groups: list[str] = []
        self._rows = self._used = self._left_out = self._folds = 0
        self._shape: tuple[int, int] | None = None
        self._totals: HsicSums | None = None
        self._changes: dict[str, HsicSums] = {}  # what leaving a group out changes in the totals
        self._sizes: dict[str, int] = {}
        self._grouped: bool | None = None
        self._varies: NDArray | None = None
        self._finite: NDArray | None = None

    def add(self, x: Layers, y: Layers, groups: Sequence[str] | None = None) -> None:
        """Take one batch of clips.

        Args:
            x, y: a [b, d_l] array or tensor a layer; widths may differ from layer to layer.
            groups: [b] utterance of every clip; given with every batch or with none. Intervals delete one at a time.
        Raises:
            InterpError: shapes that do not fit the batch or the batches before, groups only now and then.
        """
        layers = [to_numpy(layer) for layer in (*x, *y)]
        rows = len(layers[0]) if layers and layers[0].ndim else 0
        if not x or not y or any(layer.ndim != 2 or len(layer) != rows for layer in layers):
            shapes = ", ".join(str(layer.shape) for layer in layers)
            raise InterpError(f"every layer must be [clips, width] with one count of clips; got {shapes}.")
        if self._shape is None:
            self._shape, self._grouped = (len(x), len(y)), groups is not None
            self._held, self._widths = [[] for _ in layers], [layer.shape[1] for layer in layers]
            self._varies, self._finite = np.zeros(len(layers), bool), np.ones(len(layers), bool)
        if self._shape != (len(x), len(y)) or self._grouped != (groups is not None):
            raise InterpError("a stream takes the same layers in every batch, and groups with every batch or none.")
        if groups is not None and len(groups) != rows:
            raise InterpError(f"{len(groups)} groups for {rows} clips; give one a clip.")
        if [layer.shape[1] for layer in layers] != self._widths:
            raise InterpError("a layer's width differs from the batch before; pass the same site in every batch.")
        per_row = sum(layer.itemsize * layer.shape[1] for layer in layers)
        room = self._minibatch or max(FEWEST_UNBIASED, self._max_bytes // 2 // max(per_row, 1))
        start = 0
        while start < rows:
            taken = min(rows - start, room - self._rows)
            for held, layer in zip(self._held, layers, strict=True):
                held.append(layer[start : start + taken].copy())  # the batch may be overwritten by the next forward
            self._groups += [str(name) for name in groups[start : start + taken]] if groups is not None else []
            self._rows, start = self._rows + taken, start + taken
            if self._rows == room and start < rows:
                self._fold()

    def result(self) -> CkaMatrix:
        """The matrices over all clips that came.

        Raises:
            InterpError: fewer than 2 clips came.
        """
        if self._rows:
            self._fold()
        if self._totals is None or self._shape is None or self._varies is None or self._finite is None:
            raise InterpError(f"{self._left_out} clips came; CKA compares 2 or more.")
        faults = [
            "holds a NaN or an infinity" if not finite else "is the same in every clip" if not varies else ""
            for varies, finite in zip(self._varies, self._finite, strict=True)
        ]
        names = list(self._changes)
        sizes = [self._sizes[name] for name in names]
        left = [self._totals.plus(self._changes[name]) for name in names]
        parts = []
        for kind in (0, 1):
            values = self._totals.cka(kind, faults, of_all=self._totals)
            reasons = self._totals.reasons(kind, faults, of_all=self._totals)
            deleted = [sums.cka(kind, faults, of_all=self._totals) for sums in left]
            if names:
                interval = grouped_jackknife(values, np.stack(deleted), sizes)
            else:
                nothing = np.full(values.shape, np.nan)
                interval = Interval(nothing, nothing.copy(), "no interval: no groups were given")
            parts.append((values, interval, reasons))
        (plain, plain_interval, plain_reason), (unbiased, unbiased_interval, unbiased_reason) = parts
        return CkaMatrix(
            plain, unbiased, plain_interval, unbiased_interval, plain_reason, unbiased_reason,
            self._used, self._left_out, self._folds,
        )  # fmt: skip

    def _fold(self) -> None:
        """Turn the clips held into sums of HSIC and let them go."""
        layers = []
        for held in self._held:  # layer by layer, so that the clips are never held twice
            layers.append(np.concatenate(held))
            held.clear()
        rows, groups = self._rows, self._groups
        self._groups, self._rows = [], 0
        if rows < 2 or (self._totals is not None and rows < FEWEST_UNBIASED):
            self._left_out += rows
            return
        assert self._shape is not None and self._varies is not None and self._finite is not None
        batch = Minibatch(layers, self._shape[0], max_bytes=self._max_bytes // 2)
        self._varies |= batch.varies
        self._finite &= batch.finite
        whole, without = batch.sums(groups if self._grouped else None)
        self._totals = whole if self._totals is None else self._totals.plus(whole)
        for name, (sums, size) in without.items():
            change = sums.plus(whole, -1)
            self._changes[name] = self._changes[name].plus(change) if name in self._changes else change
            self._sizes[name] = self._sizes.get(name, 0) + size
        self._used += rows
        self._folds += 1
