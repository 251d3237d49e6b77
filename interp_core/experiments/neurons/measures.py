"""Numbers of a sweep: probes on edited features, accuracies with intervals over units, area under the dose, verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp_core.experiments.neurons.scores import LinearProbe, NeuronSet
from interp_core.maths.draws import FEWEST_DRAWS
from interp_core.maths.stats import rate_intervals

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TOLERATED_OOD, TOLERATED_TASK = 0.01, 0.02  # accuracy that a selective ablation may cost: out of domain, of the task


def frozen(probe: LinearProbe, base: Floats, new: Floats, masks: Bools, truth: NDArray) -> Bools:
    """[sets, m] whether the probe, as fitted, names clips right when neurons of each set are edited.

    All sets are one product: an edit adds (new - base) * mask @ weight to the logits.

    Args:
        base, new: [m, width] standardised, as they are and with every neuron edited.
        masks: [sets, width]; truth: [m] labels.
    """
    n_classes = len(probe.classes)
    plain = base @ probe.weight.T + probe.bias  # [m, classes]
    weights = (masks[:, None] * probe.weight[None]).reshape(-1, masks.shape[1])  # [sets * classes, width]
    added = ((new - base) @ weights.T).reshape(len(base), -1, n_classes)  # [m, sets, classes]
    chosen = (plain[:, None] + added).argmax(-1).T  # [sets, m]
    return np.asarray(probe.classes)[chosen] == truth


def balance(truth: NDArray) -> Floats:
    """[m] weights under which a mean is the mean over classes: 1 / (classes * clips of the class)."""
    _, codes, counts = np.unique(truth, return_inverse=True, return_counts=True)
    return 1 / (len(counts) * counts[codes])


@dataclass(frozen=True)
class Measured:
    """An accuracy of every set, its change from the first, both with 95 % limits: [sets] each."""

    value: Floats
    low: Floats
    high: Floats
    change: Floats
    change_low: Floats
    change_high: Floats
    method: str


def measured(right: Bools, weights: Floats, units: NDArray) -> Measured:
    """Weighted accuracy of [sets, m] answers, the first set being the unedited model; clips [m] come in units."""
    own, moved = rate_intervals(right.T, units.tolist(), weights)
    value = right @ (weights / weights.sum())
    method = own.method.replace("clusters", "units")
    return Measured(value, own.low, own.high, value - value[0], moved.low, moved.high, method)


def area(ks: Sequence[int], change: Sequence[float]) -> float:
    """Trapezoid of a change over log2(K + 1), divided by the range: the mean change over doses on that scale."""
    x = np.log2(np.asarray(ks, float) + 1)
    return float(np.trapezoid(np.asarray(change, float), x) / (x[-1] - x[0])) if len(x) > 1 else float("nan")


def verdict_k(width: int) -> int:
    """The dose at which the verdict is given, fixed beforehand: 32, or a sixteenth of a width below 512."""
    return 32 if width >= 512 else max(1, width // 16)


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on, at one dose; accuracies are shares, changes are against K = 0.

    Attributes:
        domain_drop: of the domain probe, frozen; NaN where it cannot be measured, `refused` says why.
        random_drop: 97.5 percentile of the same over random draws.
        ood_change, ood_low, ood_high: of the head out of domain, with its 95 % limits.
        matched_change: mean of the same over matched random draws.
        task_change: of the task probe, frozen.
        draws: random sets that random_drop is a percentile of.
    """

    k: int
    domain_drop: float
    random_drop: float
    ood_change: float
    ood_low: float
    ood_high: float
    matched_change: float
    task_change: float
    draws: int
    refused: str = ""


def _moved(drop: float) -> str:
    return f"drops by {drop:.3f}" if drop >= 0 else f"rises by {-drop:.3f}"


def judge(e: Evidence) -> tuple[str, str]:
    """The word and the sentence that says why: selective, not selective, undecided."""
    if e.refused:
        return "undecided", f"the domain probe cannot be measured: {e.refused}"
    beyond = e.domain_drop > e.random_drop
    if not beyond:
        return "not selective", (
            f"the domain probe {_moved(e.domain_drop)}, inside what random neurons do ({e.random_drop:z.3f})"
        )
    if e.ood_high < 0:
        return "not selective", f"accuracy out of domain falls (95 % limits {e.ood_low:+z.3f} to {e.ood_high:+z.3f})"
    doubts = []
    if e.draws < FEWEST_DRAWS:  # one of 20 sets without an effect is the largest of all
        doubts.append(f"{e.draws} random draws are too few to rank the drop among: --draws {FEWEST_DRAWS}")
    if e.ood_change < 0:
        doubts.append(f"accuracy out of domain changes by {e.ood_change:+z.3f}")
    if not e.ood_low > -TOLERATED_OOD:
        limit = "has no interval" if np.isnan(e.ood_low) else f"may fall by {-e.ood_low:.3f}"
        doubts.append(f"accuracy out of domain {limit}")
    if not e.ood_change > e.matched_change:
        doubts.append(f"random neurons of like weight change it by {e.matched_change:+z.3f}, no less")
    if not abs(e.task_change) < TOLERATED_TASK:
        doubts.append(f"the task probe changes by {e.task_change:+z.3f}")
    if doubts:
        return "undecided", "; ".join(doubts)
    return "selective", (
        f"the domain probe {_moved(e.domain_drop)} (random neurons at most {e.random_drop:z.3f}), accuracy out of "
        f"domain changes by {e.ood_change:+z.3f}, the task probe by {e.task_change:+z.3f}"
    )


def accuracy_so_far(
    name: str, sets: Sequence[NeuronSet], truth: NDArray[np.intp], answers: NDArray[np.intp]
) -> pd.DataFrame:
    """Accuracy of the head by K over the clips that are through, as `AblationResult.profile` has it.

    Args:
        truth: the right answer to each clip. answers: [sets, clips that are through].
    """
    right = (answers == truth[: answers.shape[1]]).mean(axis=1)
    table = pd.DataFrame({"set": [one.name for one in sets], "x": [one.k for one in sets], "value": right})
    means = table.groupby(["set", "x"], sort=False)["value"].mean().reset_index()
    series = f"{name}, neurons of " + means["set"]
    return means.assign(series=series, n=answers.shape[1])[["series", "x", "value", "n"]].sort_values(["series", "x"])
