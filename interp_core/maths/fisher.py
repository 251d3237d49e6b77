"""Fisher ratios of many points of a model at once: which heads, blocks or stages separate the classes, beyond chance.

The ratio is between- over within-class variance, one dimension at a time, averaged over a point's dimensions. It grows
with the number of classes and shrinks with the number of clips, so it comes with the same number on a scale where
labels without meaning give 1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.maths.arrays import Floats, to_float64
from interp_core.maths.permutation import FEWEST_ARRANGEMENTS, max_t_test, shuffled_labels
from interp_core.maths.resampling import grouped_jackknife
from interp_core.maths.stats import Interval, MaxTest

ADDED = 1e-8  # to every within-class sum of squares: part of the ratio's definition
SMALL = 1e-6  # within-class sums of squares below this are counted: there the constant above may decide the ratio
WORK_BYTES = 1 << 26  # of class sums at a time

Points = ArrayLike | Tensor | Sequence[ArrayLike | Tensor]


@dataclass(frozen=True)
class FisherMap:
    """Fisher ratios of points, in the caller's order; arrays are [n_points]."""

    ratio: Floats
    normalised: Floats  # ratio * (N - C) / (C - 1): about 1 for labels without meaning
    small_dims: NDArray[np.int64]  # dimensions whose within-class sum of squares is below 1e-6
    dims: NDArray[np.int64]
    live_dims: NDArray[
        np.int64
    ]  # dimensions whose total sum of squares is above 1e-8: the others count as a ratio of 0
    live: Floats  # normalised, averaged over live dimensions alone; NaN where there are none
    counts: dict[str, int]  # clips of every class
    scale: float  # (N - C) / (C - 1)


def fisher_ratio(points: Points, labels: Sequence[str]) -> FisherMap:
    """Diagonal Fisher discriminant ratio of every point: mean over dimensions of S_B / (S_W + 1e-8).

    S_B = sum over classes of n_c (mean_c - mean)^2 and S_W = sum over clips of (x - mean of its class)^2, per
    dimension. For Gaussian noise S_B / S_W has the mean (C - 1) / (N - C - 2), so the normalised ratio has the mean
    (N - C) / (N - C - 2): 1 but for small samples.

    Args:
        points: [N, n_points, d] pooled activations, or a [N, d_p] for every point where widths differ.
        labels: [N] class of every clip.
    Raises:
        InterpError: shapes that do not fit, a NaN, fewer than two classes, or no more clips than classes.
    """
    table = _Table.of(points, labels)
    onehot = np.eye(len(table.names))[table.codes]  # [N, C]
    means = (onehot / table.counts).T @ table.x  # [C, D] about the mean of all, which is 0
    between = table.counts @ means**2
    within = ((table.x - means[table.codes]) ** 2).sum(axis=0)
    ratio = table.over_dims(between / (within + ADDED))
    alive = between + within > ADDED
    live_dims = np.add.reduceat(alive.astype(np.int64), table.starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        live = table.over_dims(np.where(alive, between / (within + ADDED), 0)) * table.dims / live_dims * table.scale
    small = np.add.reduceat((within < SMALL).astype(np.int64), table.starts)
    counts = {str(name): int(count) for name, count in zip(table.names, table.counts, strict=True)}
    return FisherMap(ratio, ratio * table.scale, small, table.dims, live_dims, live, counts, table.scale)


def fisher_test(
    points: Points, labels: Sequence[str], groups: ArrayLike | None = None, *, draws: int = 999, seed: int = 42
) -> MaxTest:
    """Family-wise p of every point for "its Fisher ratio is no larger than under shuffled labels".

    Give the points of one granularity at a time (all heads, all blocks): the p adjusts for how many they are.

    Args:
        points, labels: as in `fisher_ratio`.
        groups: [N] what clips share (speaker, recording, utterance); None where they are unrelated.
    Returns:
        adjusted_p: [n_points]; None with the reason in `method` where the labels have fewer than 20 arrangements.
    Raises:
        InterpError: as `fisher_ratio`; not one group a clip.
    """
    table = _Table.of(points, labels)
    shuffles = shuffled_labels(table.codes, groups, draws=draws, seed=seed)
    if not shuffles.testable:
        why = f"not testable: fewer than {FEWEST_ARRANGEMENTS} ways to shuffle ({shuffles.scheme})"
        return MaxTest(None, None, shuffles.n_groups, why)
    ratios = np.concatenate(list(_ratios_of(table, np.vstack([table.codes[None], shuffles.codes]))))
    return max_t_test(ratios[0], ratios[1:], n_groups=shuffles.n_groups, scheme=shuffles.scheme)


def fisher_interval(points: Points, labels: Sequence[str], groups: ArrayLike | None = None) -> Interval:
    """95 % delete-a-group jackknife interval of every point's normalised Fisher ratio.

    Args:
        points, labels, groups: as in `fisher_test`; without groups every clip is left out alone.
    Returns:
        [n_points] limits, from the ratio on a log scale, so they stay positive. NaN with the reason in `method` under
        10 groups, or where a class comes from one group only.
    Raises:
        InterpError: as `fisher_ratio`; not one group a clip.
    """
    table = _Table.of(points, labels)
    names = np.arange(len(table.x)) if groups is None else np.asarray(groups, dtype=str)
    if names.shape != (len(table.x),):
        raise InterpError(f"groups {names.shape} must be [{len(table.x)}], one a clip.")
    _, members = np.unique(names, return_inverse=True)
    sizes = np.bincount(members)
    held = np.zeros((len(sizes), len(table.names)))
    np.add.at(held, (members, table.codes), 1)
    lonely = np.flatnonzero((held > 0).sum(axis=0) == 1)
    if len(lonely):
        none = np.full(len(table.starts), np.nan)
        return Interval(none, none.copy(), f"no interval: class {str(table.names[lonely[0]])!r} comes from one group")
    deleted = np.concatenate(list(_ratios_without(table, members, held)))
    whole = next(_ratios_of(table, table.codes[None]))[0]
    with np.errstate(divide="ignore", invalid="ignore"):  # a ratio of 0 has no logarithm and gets no interval
        found = grouped_jackknife(np.log(whole), np.log(deleted), sizes.tolist())
    return Interval(np.exp(found.low) * table.scale, np.exp(found.high) * table.scale, f"{found.method}, log scale")


@dataclass(frozen=True)
class ClassPlane:
    """Clips and class means of one point, seen along two directions."""

    names: tuple[str, ...]  # [C] in sorted order
    means: Floats  # [C, 2]
    clips: Floats  # [N, 2]
    shown: float  # share of the class means' variance that the two directions hold


def class_plane(x: ArrayLike | Tensor, labels: Sequence[str]) -> ClassPlane:
    """Project one point on the two directions in which its class means differ most.

    Args:
        x: [N, d] pooled activations of one point. labels: [N].
    Returns:
        Coordinates about the mean of the class means, in the units of x. Two classes' means lie on the first direction,
        and the second is that of the largest spread within classes. Each direction points to where its largest
        component is positive, so the same data give the same picture.
    Raises:
        InterpError: as `fisher_ratio`.
    """
    table = _Table.of([x], labels)
    means = np.stack([table.x[table.codes == code].mean(axis=0) for code in range(len(table.names))])
    centred = means - means.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    first, total = axes[0], (lengths**2).sum()
    if len(lengths) > 1 and lengths[1] > 1e-9 * lengths[0]:
        second = axes[1]
    else:  # two means, or means in a row, differ along one direction only
        rest = table.x - np.outer(table.x @ first, first)
        second = np.linalg.svd(rest, full_matrices=False)[2][0] if len(first) > 1 else np.zeros(1)
    plane = np.stack([first, second], axis=1)  # [d, 2]
    plane *= np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]] + 1e-300)
    shown = float((lengths[:2] ** 2).sum() / total) if total > 0 else float("nan")
    names = tuple(str(name) for name in table.names)
    return ClassPlane(names, centred @ plane, (table.x - means.mean(axis=0)) @ plane, shown)


@dataclass(frozen=True)
class _Table:
    """All points side by side: [N, D] about the mean of all clips, with where each point's dimensions begin."""

    x: Floats
    starts: NDArray[np.int64]
    dims: NDArray[np.int64]
    names: NDArray  # [C]
    codes: NDArray[np.int64]  # [N]
    counts: Floats  # [C]

    @property
    def scale(self) -> float:
        return (len(self.x) - len(self.names)) / (len(self.names) - 1)

    @staticmethod
    def of(points: Points, labels: Sequence[str]) -> "_Table":
        if isinstance(points, Tensor) or (isinstance(points, np.ndarray) and points.dtype != object):
            whole = to_float64(points)
            if whole.ndim != 3:
                raise InterpError(
                    f"points {whole.shape} must be [clips, points, width], or one [clips, width] a point."
                )
            parts = [whole[:, point] for point in range(whole.shape[1])]
        else:
            parts = [to_float64(part) for part in points]  # type: ignore[union-attr]
        if not parts or any(part.ndim != 2 or len(part) != len(labels) or not part.shape[1] for part in parts):
            shapes = ", ".join(sorted({str(part.shape) for part in parts}))
            raise InterpError(f"every point must be [{len(labels)} clips, width] to fit the labels; got {shapes}.")
        x = np.concatenate(parts, axis=1)
        if not np.isfinite(x).all():
            bad = [index for index, part in enumerate(parts) if not np.isfinite(part).all()]
            raise InterpError(
                f"{len(bad)} of {len(parts)} points hold a NaN or an infinity, the first is point {bad[0]}."
            )
        names, codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
        if len(names) < 2:
            raise InterpError(f"Fisher ratios need two classes; all {len(labels)} clips are {str(names[0])!r}.")
        if len(labels) <= len(names):
            raise InterpError(
                f"{len(labels)} clips in {len(names)} classes leave no variance within a class; add clips."
            )
        x -= x.mean(axis=0)
        dims = np.array([part.shape[1] for part in parts])
        return _Table(x, np.r_[0, np.cumsum(dims)[:-1]], dims, names, codes, np.bincount(codes).astype(np.float64))

    def over_dims(self, ratios: Floats) -> Floats:
        """[..., D] to the mean over every point's dimensions, [..., n_points]."""
        return np.add.reduceat(ratios, self.starts, axis=-1) / self.dims


def _ratios_of(table: _Table, codes: NDArray[np.int64]) -> Iterator[Floats]:
    """Yield [some, n_points] Fisher ratios under each of the labellings [draws, N], which may differ in their counts.

    The total sum of squares stays, so class sums are all that a labelling needs: one matrix product.
    """
    x = torch.from_numpy(table.x)
    total = (x * x).sum(dim=0)
    classes = torch.arange(len(table.names))[:, None]
    step = max(1, WORK_BYTES // (8 * len(table.names) * table.x.shape[1]))
    for low in range(0, len(codes), step):
        chosen = torch.from_numpy(codes[low : low + step])[:, None] == classes  # [draws, C, N]
        counts = chosen.sum(dim=2)
        # classes add up to 0 everywhere, the mean of all: the last follows from the others
        sums = (chosen[:, :-1].double().flatten(0, 1) @ x).unflatten(0, (len(chosen), -1))  # [draws, C - 1, D]
        between = (sums**2 / counts[:, :-1, None]).sum(dim=1) + sums.sum(dim=1) ** 2 / counts[:, -1:]
        within = (total - between).clamp_min(0)
        yield table.over_dims((between / (within + ADDED)).numpy())


def _ratios_without(table: _Table, members: NDArray, held: Floats) -> Iterator[Floats]:
    """Yield [some, n_points] Fisher ratios that leave out one group each, groups in order."""
    onehot = np.eye(len(table.names))[table.codes]
    class_sums, squares = onehot.T @ table.x, (table.x**2).sum(axis=0)
    step = max(1, WORK_BYTES // (8 * class_sums.size))
    for low in range(0, len(held), step):
        picked = np.arange(low, min(low + step, len(held)))
        rows = np.flatnonzero((members >= low) & (members < low + step))
        gone = np.zeros((len(picked), *class_sums.shape))
        np.add.at(gone, (members[rows] - low, table.codes[rows]), table.x[rows])
        lost = np.zeros((len(picked), table.x.shape[1]))
        np.add.at(lost, members[rows] - low, table.x[rows] ** 2)
        sums, counts = class_sums - gone, table.counts - held[picked]
        middle = sums.sum(axis=1) ** 2 / counts.sum(axis=1)[:, None]
        between = (sums**2 / counts[:, :, None]).sum(axis=1) - middle
        within = squares - lost - middle - between
        yield table.over_dims(np.maximum(between, 0) / (np.maximum(within, 0) + ADDED))
