"""Which neurons carry a label: scores of every neuron, the overlap of two rankings, and the sets that are ablated."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.feature_selection import f_classif

from interp_core.errors import InterpError
from interp_core.maths.linear import fit_logistic
from interp_core.maths.matching import matched

STRENGTH = 1.0
"""C of the probes, for features of spread 1: the source's, and the library's default."""

Floats = NDArray[np.float64]


class LinearProbe:
    """A multinomial logistic regression on standardised features.

    Args:
        features: [n, width] of the training clips, already standardised.
        labels: [n] text, two classes or more.
    """

    def __init__(self, features: Floats, labels: NDArray) -> None:
        fitted = fit_logistic(features, labels, strength=STRENGTH)
        self.classes, self.weight, self.bias = fitted.classes, fitted.weight, fitted.bias

    def right(self, features: Floats, labels: NDArray) -> NDArray[np.bool_]:
        """[.., n] whether [.., n, width] standardised features are named as `labels` [n] say."""
        chosen = (features @ self.weight.T + self.bias).argmax(-1)
        return np.asarray(self.classes)[chosen] == labels


def coefficient_scores(probe: LinearProbe) -> Floats:
    """[width] the L2 norm over classes of every neuron's weight, classes centred, which the model leaves open."""
    return np.linalg.norm(probe.weight - probe.weight.mean(axis=0), axis=0)


def univariate_scores(features: Floats, labels: NDArray) -> Floats:
    """[width] the one-way F of every neuron by itself; 0 where no class varies, as with one clip each."""
    names, codes = np.unique(labels, return_inverse=True)
    scores = np.zeros(features.shape[1])
    varies = np.any([np.ptp(features[codes == code], axis=0) > 0 for code in range(len(names))], axis=0)
    if varies.any():
        mean = features[:, varies].mean(axis=0)  # taken off, as it would cost the squares of F digits
        scores[varies], _ = f_classif(features[:, varies] - mean, codes)
    return scores


@dataclass(frozen=True)
class Ranked:
    """Scores of every neuron for one label column.

    Attributes:
        coef, univariate: [width], by `coefficient_scores` and `univariate_scores`.
        order: [width] neurons, the highest first, by the score that was asked for.
        agreement: Spearman correlation of the two scores.
    """

    coef: Floats = field(repr=False)
    univariate: Floats = field(repr=False)
    order: NDArray[np.intp] = field(repr=False)
    agreement: float


def ranked(features: Floats, labels: NDArray, probe: LinearProbe, by: str) -> Ranked:
    """Score every neuron both ways and rank by one: "coef" or "univariate"."""
    if by not in ("coef", "univariate"):
        raise InterpError(f"score {by!r} is neither coef nor univariate.")
    coef, univariate = coefficient_scores(probe), univariate_scores(features, labels)
    order = np.argsort(-(coef if by == "coef" else univariate), kind="stable")
    both = coef.std() > 0 and univariate.std() > 0
    return Ranked(coef, univariate, order, float(stats.spearmanr(coef, univariate).statistic) if both else float("nan"))


def overlap(a: Sequence[int], b: Sequence[int], width: int) -> dict[str, float]:
    """How many neurons two sets share, how many chance gives them, and p of so many or more (hypergeometric)."""
    shared = len(set(a) & set(b))
    return {
        "shared": shared,
        "expected": len(a) * len(b) / width,
        "p": float(stats.hypergeom.sf(shared - 1, width, len(a), len(b))),
    }


@dataclass(frozen=True)
class NeuronSet:
    """Neurons that are ablated together.

    Attributes:
        name: domain, task, random, or matched (random, of like weight).
        k: how many.
        draw: which random draw; 0 for the two that are ranked.
        neurons: their numbers.
    """

    name: str
    k: int
    draw: int
    neurons: tuple[int, ...]


def neuron_sets(
    domain: NDArray[np.intp], task: NDArray[np.intp], impact: Floats, ks: Sequence[int], draws: int, seed: int
) -> list[NeuronSet]:
    """The sets of a sweep: the K best for domain and for task, K random ones, and K random ones of like impact.

    Random draws are nested: the K of one draw are among its next larger K. A matched draw takes, for each of the K
    best domain neurons, another neuron of about its impact, from outside those K as long as there are enough.
    """
    width, rng = len(domain), np.random.default_rng(seed)
    made = [
        NeuronSet(name, k, 0, tuple(map(int, order[:k])))
        for name, order in (("domain", domain), ("task", task))
        for k in ks
    ]
    for draw in range(draws):
        order = rng.permutation(width)
        made += [NeuronSet("random", k, draw, tuple(map(int, order[:k]))) for k in ks if k]
    for draw in range(draws):
        made += [NeuronSet("matched", k, draw, matched(domain[:k], impact, rng)) for k in ks if k]
    return made


def score_table(domain: Ranked, task: Ranked, impact: Floats) -> pd.DataFrame:
    """One row a neuron: both scores for both columns, ranks from 1, and impact."""
    frame = pd.DataFrame({"neuron": np.arange(len(impact))})
    for name, scores in (("domain", domain), ("task", task)):
        frame[f"{name}_coef"], frame[f"{name}_univariate"] = scores.coef, scores.univariate
        frame.loc[scores.order, f"{name}_rank"] = np.arange(1, len(impact) + 1)
        frame[f"{name}_rank"] = frame[f"{name}_rank"].astype(int)
    frame["impact"] = impact
    return frame
