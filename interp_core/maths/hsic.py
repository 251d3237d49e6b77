"""Hilbert-Schmidt independence criteria (HSIC) of all pairs of layers at once, and without each group of clips.

With K and L the Gram matrices of two layers over m clips, K' and L' the same with zeros on their diagonals, both
estimates come from four sums: of K' * L' over all pairs of clips, of the product of their row sums, of each one's row
sums, and of the product of the diagonals. Each of them splits by clips, so a group's share can be taken off again:
the Gram matrices are made once, a slice of columns at a time, and serve the estimate on all clips and every estimate
that leaves a group out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from interp_core.maths.arrays import Floats, to_float64

FEWEST_UNBIASED = 4  # the unbiased HSIC divides by n (n - 3)
CONSTANT = 1e-12  # max|X - mean| up to this share of max|X| is rounding, not variation
ROUNDING = 1e-12  # a self-HSIC up to this share of the plain one of all clips is 0 but for rounding


def spread(values: NDArray) -> tuple[bool, bool]:
    """Whether a layer's [n, d] values are all finite, and whether its clips differ at all."""
    values = to_float64(values)
    if not np.isfinite(values).all():
        return False, False
    return True, bool(np.abs(values - values.mean(axis=0)).max() > CONSTANT * np.abs(values).max())


@dataclass(frozen=True)
class HsicSums:
    """m * HSIC summed over minibatches of m clips, for every pair of layers and for every layer with itself.

    The factor m weighs minibatches by their clips; it cancels in CKA. `cross` and `own` hold (plain, unbiased).
    """

    cross: tuple[Floats, Floats]  # [n_x, n_y] each
    own: tuple[Floats, Floats]  # [n_x + n_y] each
    clips: tuple[int, int]  # behind the plain and the unbiased sums

    @staticmethod
    def of(cross: Floats, own: Floats, rows: Floats, diagonal: Floats, m: int) -> "HsicSums":
        """Both estimates over m clips.

        Args:
            cross: [n_x, n_y] sums of K' * L' over pairs of clips, x's layers against y's.
            own: [n_x + n_y] sums of K' * K'.
            rows: [n_x + n_y, clips] row sums of every K'; diagonal: the same shape, what stood on the diagonals.
                Both 0 at clips that are left out. The Gram matrices may be centred over more clips than these m.
        Source: Song et al. 2012, JMLR 13:1393, equation 5 (unbiased); trace(K H L H) / (m - 1)^2 (plain).
        """
        diagonals = _products(diagonal, len(cross))
        row_products, full_products = _products(rows, len(cross)), _products(rows + diagonal, len(cross))
        ends, full_ends = _outer(rows.sum(axis=1), len(cross)), _outer((rows + diagonal).sum(axis=1), len(cross))
        plain, unbiased = [], []
        for i, pairs in enumerate((cross, own)):
            trace = pairs + diagonals[i] - 2 * full_products[i] / m + full_ends[i] / m**2 if m > 1 else 0 * pairs
            plain.append(m * trace / max(m - 1, 1) ** 2)
            if m < FEWEST_UNBIASED:
                unbiased.append(0 * pairs)
                continue
            fair = pairs + ends[i] / ((m - 1) * (m - 2)) - 2 * row_products[i] / (m - 2)
            unbiased.append(fair / (m - 3))
        counts = (m, m if m >= FEWEST_UNBIASED else 0)
        return HsicSums((plain[0], unbiased[0]), (plain[1], unbiased[1]), counts)

    def plus(self, other: "HsicSums", sign: int = 1) -> "HsicSums":
        return HsicSums(
            (self.cross[0] + sign * other.cross[0], self.cross[1] + sign * other.cross[1]),
            (self.own[0] + sign * other.own[0], self.own[1] + sign * other.own[1]),
            (self.clips[0] + sign * other.clips[0], self.clips[1] + sign * other.clips[1]),
        )

    def cka(self, kind: int, faults: Sequence[str], *, of_all: "HsicSums") -> Floats:
        """CKA of every pair of layers, [n_x, n_y]; NaN exactly where `reasons` has one. Arguments as there."""
        n_x = len(self.cross[kind])
        fine = [not fault for fault in self._faults(kind, faults, of_all)]
        root = np.sqrt(np.where(fine, self.own[kind], np.nan))
        return self.cross[kind] / root[:n_x, None] / root[None, n_x:]

    def reasons(self, kind: int, faults: Sequence[str], *, of_all: "HsicSums") -> NDArray[np.str_]:
        """Why a pair of layers has no CKA, [n_x, n_y]; "" where it has.

        Args:
            kind: 0 plain, 1 unbiased.
            faults: [n_x + n_y] why a layer has no CKA at all, "" where it has.
            of_all: the sums over all clips: what is rounding beside them is not a self-HSIC.
        """
        n_x, said = len(self.cross[kind]), self._faults(kind, faults, of_all)
        x = [fault and f"x {fault}" for fault in said[:n_x]]
        y = [fault and f"y {fault}" for fault in said[n_x:]]
        return np.array([["; ".join(filter(None, (a, b))) for b in y] for a in x])

    def _faults(self, kind: int, faults: Sequence[str], of_all: "HsicSums") -> list[str]:
        said = []
        for fault, value, whole in zip(faults, self.own[kind], of_all.own[0], strict=True):
            if not fault and not self.clips[kind]:
                fault = f"comes in {self.clips[0]} clips, {FEWEST_UNBIASED} needed"
            elif not fault and not value > ROUNDING * whole:
                fault = f"has a self-HSIC that is not positive ({value:.3g})"
            said.append(fault)
        return said


class Minibatch:
    """The clips that are held together, and the sums over their Gram matrices.

    Args:
        layers: [n, d_l] a layer, x's first; any float dtype. Constant layers and layers with a NaN count as 0.
        n_x: how many of them are x's.
        max_bytes: limit on the slice of all Gram matrices that is worked on at a time (at least one column of each).
    """

    def __init__(self, layers: Sequence[NDArray], n_x: int, *, max_bytes: int) -> None:
        self._layers, self._n_x, self._n = layers, n_x, len(layers[0])
        self._width = max(1, min(self._n, max_bytes // (8 * len(layers) * self._n)))
        found = [spread(layer) for layer in layers]
        self.finite = np.array([finite for finite, _ in found])
        self.varies = np.array([varies for _, varies in found])

    def sums(self, groups: Sequence[str] | None) -> tuple[HsicSums, dict[str, tuple[HsicSums, int]]]:
        """The sums over all clips and, by name, those without each group together with the group's size."""
        names, codes = np.unique(np.zeros(self._n) if groups is None else np.asarray(groups, str), return_inverse=True)
        order = np.argsort(codes, kind="stable")  # a group's clips side by side
        edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
        diagonal = np.stack([(self._centred(layer, order) ** 2).sum(axis=1) for layer in range(len(self._layers))])
        total: _Share | None = None
        open_share: _Share | None = None  # of a group that may go on in the next slice
        partial: list[HsicSums] = []
        for low, grams in self._slices(order):
            high = low + len(grams)
            first, last = np.searchsorted(edges, [low, high - 1], side="right") - 1
            for group in range(first, last + 1):
                start, stop = edges[group], edges[group + 1]
                share = _Share.of(grams[max(low, start) - low : min(high, stop) - low], self._n_x, start, stop)
                share = share if open_share is None else open_share.plus(share)
                open_share = share if stop > high else None
                if open_share is not None:
                    continue
                total = share.without_rows() if total is None else total.plus(share.without_rows())
                if groups is not None:
                    partial.append(share.left_out(diagonal, start, stop))
        assert total is not None
        whole = HsicSums.of(total.cross, total.own, -diagonal, diagonal, self._n)  # centred: the rows of K sum to 0
        if groups is None:
            return whole, {}
        # what a group leaves is linear in the sums over all pairs of clips, which are known only now
        without = {}
        for name, rest, size in zip(names, partial, np.diff(edges), strict=True):
            base = HsicSums.of(total.cross, total.own, 0 * diagonal, 0 * diagonal, self._n - int(size))
            without[str(name)] = (rest.plus(replace(base, clips=(0, 0))), int(size))
        return whole, without

    def _centred(self, layer: int, order: NDArray) -> Floats:
        if not (self.finite[layer] and self.varies[layer]):
            return np.zeros((self._n, 1))
        values = to_float64(self._layers[layer])[order]
        values -= values.mean(axis=0)
        return values

    def _slices(self, order: NDArray) -> Iterator[tuple[int, Floats]]:
        """Yield (first column, [columns, n_layers, n]) of all Gram matrices, zeros on their diagonals.

        Every slice is written over the one before.
        """
        buffer = np.empty((self._width, len(self._layers), self._n))
        for low in range(0, self._n, self._width):
            high = min(low + self._width, self._n)
            grams = buffer[: high - low]
            for layer in range(len(self._layers)):
                values = torch.from_numpy(self._centred(layer, order))
                # torch's product: numpy's own threads spin while they wait and stall a busy machine
                torch.matmul(values[low:high], values.T, out=torch.from_numpy(grams[:, layer]))
            grams[np.arange(high - low), :, np.arange(low, high)] = 0
            yield low, grams


@dataclass(frozen=True)
class _Share:
    """What the columns of one group add to the sums."""

    cross: Floats  # [n_x, n_y] sums of K' * L' over (any clip, clip of the group)
    own: Floats  # [n_layers]
    inside_cross: Floats  # the same over (clip of the group, clip of the group)
    inside_own: Floats
    rows: Floats  # [n_layers, n] sums over the group's columns

    @staticmethod
    def of(grams: Floats, n_x: int, start: int, stop: int) -> "_Share":
        """From [columns, n_layers, n] of a group whose clips stand at start to stop."""
        cross, own = _contracted(grams, n_x)
        inside_cross, inside_own = _contracted(grams[:, :, start:stop], n_x)
        return _Share(cross, own, inside_cross, inside_own, grams.sum(axis=0))

    def plus(self, other: "_Share") -> "_Share":
        return _Share(
            self.cross + other.cross,
            self.own + other.own,
            self.inside_cross + other.inside_cross,
            self.inside_own + other.inside_own,
            self.rows + other.rows,
        )

    def without_rows(self) -> "_Share":
        return replace(self, rows=np.zeros(()))

    def left_out(self, diagonal: Floats, start: int, stop: int) -> HsicSums:
        """The sums over the other clips, but for the sums over all pairs of clips."""
        rows, rest = -diagonal - self.rows, diagonal.copy()
        rows[:, start:stop] = rest[:, start:stop] = 0
        cross, own = self.inside_cross - 2 * self.cross, self.inside_own - 2 * self.own
        return HsicSums.of(cross, own, rows, rest, diagonal.shape[1] - (stop - start))


def _contracted(grams: Floats, n_x: int) -> tuple[Floats, Floats]:
    """Sums over columns and rows of products of [columns, n_layers, rows]: x's layers with y's, each with itself."""
    return (grams[:, :n_x] @ grams[:, n_x:].transpose(0, 2, 1)).sum(axis=0), np.einsum("clr,clr->l", grams, grams)


def _products(a: Floats, n_x: int) -> tuple[Floats, Floats]:
    """Sums over clips of products of [n_layers, clips]: x's layers with y's, each with itself."""
    return a[:n_x] @ a[n_x:].T, (a * a).sum(axis=1)


def _outer(a: Floats, n_x: int) -> tuple[Floats, Floats]:
    """Products of [n_layers]: x's layers with y's, each with itself."""
    return np.outer(a[:n_x], a[n_x:]), a * a
