"""CKA of one pair of layers with all clips at once, as the papers write it: what `CkaStream` has to agree with."""

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.maths.arrays import Floats, to_float64
from interp_core.maths.hsic import FEWEST_UNBIASED, ROUNDING, spread


class Similarity(float):
    """A CKA value that says why it is NaN: `reason` is empty where the value is a number."""

    reason: str

    def __new__(cls, value: float, reason: str = "") -> "Similarity":
        made = super().__new__(cls, value)
        made.reason = reason
        return made


def linear_cka(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Similarity:
    """Linear centered kernel alignment of two representations of the same n clips.

    Args:
        x: [n, d_x] activations, one clip a row; any float dtype, computed in float64.
        y: [n, d_y] activations of the same clips in the same order.
    Returns:
        Similarity in [0, 1], no unit; rotating, scaling or shifting x or y leaves it alone. Biased up when n is
        small: unrelated Gaussian x and y of width d score about d / (n + d). NaN with a reason where x or y is
        constant or holds a NaN.
    Raises:
        InterpError: not two matrices with one row count of 2 or more.
    Source: Kornblith et al. 2019, arXiv:1905.00414, section 3.
    """
    a, b, reason = _centred_pair(x, y)
    if reason:
        return Similarity(np.nan, reason)
    if len(a) < max(a.shape[1], b.shape[1]):  # the same three norms from [n, n], cheaper for wide layers
        a, b = a @ a.T, b @ b.T
        return Similarity(float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b))))
    return Similarity(float(np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))))


def unbiased_cka(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> Similarity:
    """Linear CKA from unbiased estimates of HSIC: about 0 for unrelated data at any n, and then as often below 0.

    Args:
        x, y: [n, d_x] and [n, d_y] activations of the same clips; any float dtype, computed in float64.
    Returns:
        At most about 1, not clipped. NaN with a reason where a self-HSIC is not positive, n < 4, or x or y is
        constant or holds a NaN.
    Raises:
        InterpError: not two matrices with one row count of 2 or more.
    Source: Song et al. 2012, JMLR 13:1393, equation 5; as CKA in Nguyen et al. 2021, arXiv:2010.15327, section 2.1.
    """
    a, b, reason = _centred_pair(x, y)
    if reason or len(a) < FEWEST_UNBIASED:
        return Similarity(np.nan, reason or f"n = {len(a)} clips, {FEWEST_UNBIASED} needed")
    grams = [a @ a.T, b @ b.T]
    plain = [(gram**2).sum() / (len(a) - 1) ** 2 for gram in grams]
    for gram in grams:
        np.fill_diagonal(gram, 0)

    def hsic(k: Floats, m: Floats) -> float:
        n = len(k)
        ends = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ m.sum(0)) / (n - 2)
        return ((k * m).sum() + ends) / (n * (n - 3))

    own = [hsic(gram, gram) for gram in grams]
    for value, biased, name in zip(own, plain, "xy", strict=True):
        if value <= ROUNDING * biased:
            return Similarity(np.nan, f"the unbiased self-HSIC of {name} is not positive ({value:.3g})")
    return Similarity(hsic(*grams) / (np.sqrt(own[0]) * np.sqrt(own[1])))


def _centred_pair(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> tuple[Floats, Floats, str]:
    """Both in float64, centred and divided by their largest number, and why they have no CKA ("" where they have)."""
    pair = [to_float64(values) for values in (x, y)]
    a, b = pair
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < 2:
        raise InterpError(f"x {a.shape} and y {b.shape} must be [n, d_x] and [n, d_y] with one n >= 2.")
    faults = []
    for name, values in zip("xy", pair, strict=True):
        finite, varies = spread(values)
        if not finite:
            faults.append(f"{name} holds a NaN or an infinity")
        elif not varies:
            faults.append(f"{name} is the same in every clip")
    if faults:
        return a, b, "; ".join(faults)
    a, b = (values - values.mean(axis=0) for values in pair)
    return a / np.abs(a).max(), b / np.abs(b).max(), ""  # CKA has no scale, but its fourth powers can leave the range
