"""One way in for what the caller holds: tensors of any device and width, arrays, lists."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def to_numpy(values: ArrayLike | torch.Tensor) -> NDArray:
    """The same numbers as an array on the CPU; bfloat16, which numpy lacks, becomes float32 without loss."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def to_float64(values: ArrayLike | torch.Tensor) -> Floats:
    """The same numbers in double precision; the caller's own array where it is one already."""
    return to_numpy(values).astype(np.float64, copy=False)
