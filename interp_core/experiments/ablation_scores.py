"""Which neurons carry a label: scores of every neuron, the overlap of two rankings, and the sets that are ablated."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from interp_core.errors import InterpError

STRENGTH = 1.0
"""C of the probes, for features of spread 1: the source's, and the library's default."""
WINDOW = 8
"""A matched random neuron is one of so many ranks on either side, or of an eighth of the width if that is more."""

Floats = NDArray[np.float64]


class LinearProbe:
    """A multinomial logistic regression on standardised features.

    Args:
        features: [n, width] of the training clips, already standardised.
        labels: [n] text, two classes or more.
    """

    def __init__(self, features: Floats, labels: NDArray) -> None:
        self.classes = tuple(sorted(set(labels.tolist())))
        with threadpool_limits(1, user_api="blas"), config_context(assume_finite=True):
            fitted = LogisticRegression(C=STRENGTH, max_iter=2000).fit(features, labels)
        weight, bias = fitted.coef_, fitted.intercept_
        if len(self.classes) == 2:  # one row for two classes: the other's logit is 0
            weight, bias = np.vstack([0 * weight, weight]), np.concatenate([0 * bias, bias])
        self.weight, self.bias = weight, bias  # [n_classes, width], [n_classes]

    def right(self, features: Floats, labels: NDArray) -> NDArray[np.bool_]:
        """[.., n] whether [.., n, width] standardised features are named as `labels` [n] say."""
        chosen = (features @ self.weight.T + self.bias).argmax(-1)
        return np.asarray(self.classes)[chosen] == labels


def coefficient_scores(probe: LinearProbe) -> Floats:
    """[width] the L2 norm over classes of every neuron's weight, classes centred, which the model leaves open."""
    return np.linalg.norm(probe.weight - probe.weight.mean(axis=0), axis=0)


def univariate_scores(features: Floats, labels: NDArray) -> Floats:
    """[width] the one-way F of every neuron by itself; 0 where it does not vary."""
    groups = [features[labels == label] for label in sorted(set(labels.tolist()))]
    n, k = len(features), len(groups)
    within = sum(((group - group.mean(axis=0)) ** 2).sum(axis=0) for group in groups)
    between = sum(len(group) * (group.mean(axis=0) - features.mean(axis=0)) ** 2 for group in groups)
    if n <= k:
        return np.zeros(features.shape[1])
    return np.divide(between / (k - 1), within / (n - k), out=np.zeros(features.shape[1]), where=within > 0)


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


def matched(neurons: NDArray[np.intp], impact: Floats, rng: np.random.Generator) -> tuple[int, ...]:
    """For each neuron another one near it in the order of impact, none twice."""
    width = len(impact)
    by_impact = np.argsort(impact, kind="stable")
    rank = np.empty(width, np.intp)
    rank[by_impact] = np.arange(width)
    free = np.ones(width, bool)
    if 2 * len(neurons) <= width:
        free[neurons] = False
    reach, chosen = max(WINDOW, width // 8), []
    for neuron in rng.permutation(neurons):
        at = by_impact[free[by_impact]]  # those that are left, by impact
        place = int(np.searchsorted(rank[at], rank[neuron]))
        near = at[max(0, place - reach) : place + reach]
        pick = int(rng.choice(near))
        free[pick] = False
        chosen.append(pick)
    return tuple(chosen)


def score_table(domain: Ranked, task: Ranked, impact: Floats) -> pd.DataFrame:
    """One row a neuron: both scores for both columns, ranks from 1, and impact."""
    frame = pd.DataFrame({"neuron": np.arange(len(impact))})
    for name, scores in (("domain", domain), ("task", task)):
        frame[f"{name}_coef"], frame[f"{name}_univariate"] = scores.coef, scores.univariate
        frame.loc[scores.order, f"{name}_rank"] = np.arange(1, len(impact) + 1)
        frame[f"{name}_rank"] = frame[f"{name}_rank"].astype(int)
    frame["impact"] = impact
    return frame
