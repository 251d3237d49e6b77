"""A few directions of a space of activations: those in which classes differ, and taking a concept out of all the rest.

An eraser is an affine map that changes as little as it can and leaves nothing of a concept that a linear classifier
could read from the clips it was fitted on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from interp_core.errors import InterpError

NOTHING = 1e-10
"""Singular values under this share of the largest are rounding, of numbers computed in float64."""
SAME = 1e-6
"""Class means that are apart by less than this share of their length are the same, where states came in float32."""


@dataclass(frozen=True, eq=False)
class Eraser:
    """x - (x - mean) @ right.T @ left.T: the part of x in a subspace taken out, its mean left where it was.

    Attributes:
        mean: [width] float64.
        left, right: [width, rank] and [rank, width] float64; right @ left is the identity, so that erasing twice is
            erasing once.
    """

    mean: Tensor
    left: Tensor
    right: Tensor

    @property
    def rank(self) -> int:
        """Dimensions that are taken out."""
        return len(self.right)

    def __call__(self, x: Tensor) -> Tensor:
        """Erase from [..., width] of any float dtype, in float64; the result has the dtype and device of x."""
        mean, left, right = (part.to(x.device) for part in (self.mean, self.left, self.right))
        wide = x.double()
        return (wide - (wide - mean) @ right.T @ left.T).to(x.dtype)


def fit_leace(x: ArrayLike | Tensor, labels: Sequence[str] | ArrayLike, *, shrink: bool = False) -> Eraser:
    """Least-squares concept erasure: of all affine maps after which x and the classes are uncorrelated the one that
    moves x least, on average over the clips and in the norm of their own covariance.

    With Sxx the covariance of x, Sxz that with the classes (an indicator each), W the pseudo-inverse of Sxx^1/2 and P
    the orthogonal projection on the columns of W Sxz: x - W^+ P W (x - mean).

    Args:
        x: [n, width] activations, one clip a row.
        labels: [n] the class of each.
        shrink: Sxx drawn toward a multiple of the identity (Ledoit & Wolf 2004, as scikit-learn has it), for an eraser
            that meets other clips than those it was fitted on. Nothing linear is left on the fitted ones all the same.
    Returns:
        Of rank classes - 1 or less.
    Raises:
        InterpError: shapes that do not fit, a NaN, one class only, or classes with the same mean.
    Source: Belrose et al. 2023, arXiv:2306.03819, theorem 4.3.
    """
    rows = torch.as_tensor(np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, np.float64))
    names, codes = np.unique(np.asarray(labels), return_inverse=True)
    if rows.ndim != 2 or not rows.numel() or codes.shape != (len(rows),):
        raise InterpError(f"x {tuple(rows.shape)} must be [clips, width] with one label a clip, not {codes.shape}.")
    if not rows.isfinite().all():
        raise InterpError("x holds a NaN or an infinity; leave such clips out.")
    if len(names) < 2:
        raise InterpError(f"all {len(rows)} clips are {str(names[0])!r}; a concept to erase needs two classes.")
    mean = rows.mean(0)
    u, s, axes = torch.linalg.svd(rows - mean, full_matrices=False)  # the span of the clips, in which all happens
    kept = s > s[0] * max(rows.shape) * torch.finfo(s.dtype).eps
    u, s, axes = u[:, kept], s[kept], axes[kept]
    variance = s**2 / len(rows)
    if shrink and len(s):
        by = float(ledoit_wolf_shrinkage((rows - mean).numpy(), assume_centered=True))
        variance = (1 - by) * variance + by * variance.sum() / rows.shape[1]
    indicators = torch.nn.functional.one_hot(torch.from_numpy(codes), len(names)).double()
    shared = s[:, None] * (u.T @ (indicators - indicators.mean(0))) / len(rows)  # Sxz in the span
    left, sizes, _ = torch.linalg.svd(shared / variance.sqrt()[:, None], full_matrices=False)
    found = sizes > NOTHING * max(1.0, float(sizes.max()) if len(sizes) else 0.0)
    if not found.any():
        raise InterpError(f"the clips of the {len(names)} classes have the same mean: there is no concept to erase.")
    left = left[:, found]
    spread = variance.sqrt()[:, None]
    return Eraser(mean, axes.T @ (spread * left), (left / spread).T @ axes)


def random_eraser(mean: Tensor, rank: int, *names: Any) -> Eraser:
    """Take a random subspace out, orthogonally, the control of an eraser of the same rank.

    Args:
        mean: [width] what is left where it was. rank: dimensions. names: the same ones, the same subspace.
    """
    basis = random_basis(len(mean), rank, *names)
    return Eraser(mean.double(), basis.T, basis)


def mean_differences(means: Tensor, rank: int) -> Tensor:
    """The subspace in which class means differ most: the top right singular vectors of the centred class means.

    Args:
        means: [n_classes, width], every class counted alike.
        rank: directions, at most n_classes - 1 and the width.
    Returns:
        [rank, width] float64 of length 1 and at right angles; rows of 0 where the means differ in fewer directions.
    Raises:
        InterpError: a rank that so many classes, or this width, do not have.
    """
    n, width = means.shape
    if not 0 <= rank <= min(n - 1, width):
        raise InterpError(
            f"{n} class means of width {width} differ in {max(0, min(n - 1, width))} directions at most, not in {rank}."
        )
    wide = means.double()
    _, sizes, basis = torch.linalg.svd(wide - wide.mean(0), full_matrices=False)
    real = sizes > SAME * wide.norm(dim=1).max()
    return (basis * real[:, None])[:rank]


def random_basis(width: int, rank: int, *names: Any) -> Tensor:
    """[rank, width] float64 of length 1 and at right angles, in a random direction; the same names, the same basis.

    Raises:
        InterpError: a rank beyond the width.
    """
    if not 0 <= rank <= width:
        raise InterpError(f"a space of width {width} has no subspace of rank {rank}.")
    seed = int.from_bytes(hashlib.sha256("|".join(map(str, names)).encode()).digest()[:7], "big")
    drawn = torch.randn(width, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(drawn)[0].T.contiguous()
