"""Multinomial logistic regression, with a row of weights for every class, also where there are only two."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from interp_core.errors import InterpError
from interp_core.maths.arrays import Floats

TOLERANCE = 1e-8
"""Largest slope of the loss at which a fit has arrived. The library's 1e-4 stops on the way, at weights that the last
digit of a feature (another number of threads) moves in their third one."""
MOST_STEPS = 20_000

_FITTING = threading.Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Fit on one thread of the linear algebra: probes are many and small, threads cost them three to seven times.

    The limit is the process's, so one caller at a time sets it, or two could leave it behind; do not nest.
    """
    with _FITTING, threadpool_limits(1, user_api="blas"):
        yield


def regression(*, warm: bool = False) -> LogisticRegression:
    """The multinomial logistic regression of every probe, to be fitted under `one_thread`; C is the caller's to set.

    Args:
        warm: whether a fit starts where the one before it ended, which changes its time and not its weights.
    """
    return LogisticRegression(tol=TOLERANCE, max_iter=MOST_STEPS, warm_start=warm)


@dataclass(frozen=True, eq=False)
class Logistic:
    """Logits of classes as an affine map of features.

    Attributes:
        classes: sorted, in the order of the logits.
        weight, bias: [n_classes, width], [n_classes]; of two classes the first has zeros.
    """

    classes: tuple[str, ...]
    weight: Floats = field(repr=False)
    bias: Floats = field(repr=False)


def fit_logistic(features: Floats, labels: Sequence[str] | NDArray, *, strength: float) -> Logistic:
    """Fit a multinomial logistic regression with an L2 penalty.

    Args:
        features: [n, width] finite, one row an example; standardised, for `strength` to mean the same everywhere.
        labels: [n] what each row is.
        strength: C, the inverse of the penalty.
    Raises:
        InterpError: one class only, or other than a label a row.
    """
    classes = tuple(sorted(set(map(str, labels))))
    if len(classes) < 2 or len(labels) != len(features):
        raise InterpError(
            f"{len(features)} rows with {len(labels)} labels of {', '.join(classes) or 'no class'}; a logistic "
            "regression needs one label a row and two classes or more."
        )
    with one_thread(), config_context(assume_finite=True):
        fitted = regression().set_params(C=strength).fit(features, labels)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(classes) == 2:  # one row for two classes: the other's logit is 0
        weight, bias = np.vstack([0 * weight, weight]), np.concatenate([0 * bias, bias])
    return Logistic(classes, weight, bias)
