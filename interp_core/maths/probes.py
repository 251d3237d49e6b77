"""What a linear probe can read off a representation, held to clips it has no relative of, against chance.

Clips of one group (the codec versions of an utterance, the takes of a recording) never stand on both sides of a split,
neither where the probe is scored nor where its strength C is chosen. The scale of the features is learned inside the
fold. Accuracy is balanced: the mean over classes of the share of their clips that is named right, so chance is 1 / k
for k classes of any size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.maths.arrays import Floats, to_float64
from interp_core.maths.linear import one_thread, regression
from interp_core.maths.permutation import FEWEST_ARRANGEMENTS, max_t_test, shuffled_labels
from interp_core.maths.resampling import grouped_jackknife, over_folds
from interp_core.maths.stats import Interval, MaxTest

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of C, for features of spread 1
FEWEST_GROUPS = 3  # of every class: one to score, one to choose C on, one to learn from
INNER_FOLDS = 3
RIDGE = 0.03  # of the test's probe, in shares of the mean eigenvalue that features of spread 1 have
WORK_BYTES = 1 << 26  # of label indicators at a time


@dataclass(frozen=True)
class ProbeScore:
    """Held-out accuracy of a linear probe; everything is NaN, None or empty where `reason` is not."""

    accuracy: float  # balanced, over all held-out predictions together
    chance: float  # 1 / number of classes
    interval: Interval  # 95 % of the accuracy, [1]; see `over_folds`
    p: float | None  # of the permutation test
    test: str  # names the test, or says why there is none
    strengths: tuple[float, ...]  # C chosen in each fold
    counts: dict[str, int]  # clips of every class
    n_groups: int
    n_folds: int
    predicted: tuple[str, ...] = field(repr=False)  # [n] held-out predictions
    reason: str


def linear_probe(
    features: ArrayLike | Tensor,
    labels: Sequence[str],
    groups: ArrayLike | None = None,
    *,
    folds: int = 5,
    strengths: Sequence[float] = STRENGTHS,
    draws: int = 999,
    seed: int = 42,
) -> ProbeScore:
    """Fit and score a multinomial logistic probe by nested, grouped cross-validation.

    Args:
        features: [n, d] one row a clip; any float dtype.
        labels: [n] what the probe should name (codec, speaker, class).
        groups: [n] what may not be split; None where clips are unrelated.
        folds: at most; fewer where a class comes from fewer groups.
        strengths: values of C to choose from inside each fold (the smallest of the best); one value is not chosen.
        draws: of the permutation test, see `permutation_p`; 0 for none.
    Returns:
        Refused, accuracy NaN with a reason, where there is one class only, or a class comes from under 3 groups.
    Raises:
        InterpError: shapes that do not fit, a NaN, no strength.
    """
    x, names, codes, members = _checked(features, labels, groups)
    if folds < 2 or not strengths or min(strengths) <= 0:
        raise InterpError(f"folds={folds} and strengths={tuple(strengths)}: give 2 folds or more and positive values.")
    counts = {str(name): int(count) for name, count in zip(names, np.bincount(codes), strict=True)}
    n_groups = int(members.max()) + 1
    reason, splits = _splits(codes, members, names, folds, seed)
    if reason:
        none = Interval(np.full(1, np.nan), np.full(1, np.nan), f"no interval: {reason}")
        return ProbeScore(np.nan, 1 / len(names), none, None, f"no test: {reason}", (), counts, n_groups, 0, (), reason)
    predicted, chosen = np.empty_like(codes), []
    with one_thread():
        for learn, score in splits:
            best = _strength(x[learn], codes[learn], members[learn], sorted(strengths), seed)
            predicted[score] = _fitted(x[learn], codes[learn], x[score], [best])[0]
            chosen.append(best)
    right = (predicted == codes)[None]
    interval = _interval(right, codes, members, len(splits), lambda values: values, lowest=0.0)
    p, test = (None, "no test was asked for") if not draws else permutation_p(
        x, codes, members, folds=folds, draws=draws, seed=seed
    )  # fmt: skip
    return ProbeScore(
        float(_balanced(right, codes)[0]), 1 / len(names), interval, p, test, tuple(chosen), counts, n_groups,
        len(splits), tuple(str(names[code]) for code in predicted), "",
    )  # fmt: skip


def permutation_p(
    features: ArrayLike | Tensor,
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    folds: int = 5,
    draws: int = 999,
    seed: int = 42,
) -> tuple[float | None, str]:
    """p of "the features say nothing about the labels", by shuffling the labels among related clips.

    The number compared is the held-out balanced accuracy of a ridge probe of fixed strength on folds that are drawn
    without looking at the labels: the observed and the shuffled labels are then treated exactly alike, and one matrix
    a fold serves all shuffles. How labels are shuffled: `shuffled_labels`.

    Args:
        features: [n, d]; labels, groups: [n] as in `linear_probe`.
    Returns:
        p, the share of arrangements (the observed one included) at least as accurate, and what was done; None and the
        reason where the labels have fewer than 20 arrangements, or there are under 2 groups or classes.
    """
    x, names, codes, members = _checked(features, labels, groups)
    n_groups = int(members.max()) + 1
    if len(names) < 2 or n_groups < 2:
        return None, f"not testable: {len(names)} classes in {n_groups} groups"
    shuffles = shuffled_labels(codes, None if groups is None else members, draws=draws, seed=seed)
    if not shuffles.testable:
        return None, f"not testable: fewer than {FEWEST_ARRANGEMENTS} ways to shuffle ({shuffles.scheme})"
    accuracy = _ridge_accuracies(x, np.vstack([codes[None], shuffles.codes]), members, len(names), folds, seed)
    p = float(np.mean(accuracy >= accuracy[0] - 1e-12))
    return p, (
        f"permutation, one-sided, {draws} draws, {shuffles.scheme}; held-out accuracy {accuracy[0]:.3f} of a ridge "
        f"probe against {accuracy[1:].mean():.3f} shuffled"
    )


def family_test(
    features: Sequence[ArrayLike | Tensor],
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    folds: int = 5,
    draws: int = 999,
    seed: int = 42,
) -> MaxTest:
    """As `permutation_p` for several representations of the same clips, corrected over all of them.

    Every representation meets the same shuffles, so that the largest of all numbers under a shuffle is what chance
    gives to whoever picks the best of them.

    Args:
        features: [n, d_i] each; labels, groups: [n].
    Returns:
        adjusted_p: one a representation; None with the reason where the labels cannot be shuffled.
    """
    _, names, codes, members = _checked(features[0], labels, groups)
    n_groups = int(members.max()) + 1
    if len(names) < 2 or n_groups < 2:
        return MaxTest(None, None, n_groups, f"not testable: {len(names)} classes in {n_groups} groups")
    shuffles = shuffled_labels(codes, None if groups is None else members, draws=draws, seed=seed)
    if not shuffles.testable:
        said = f"not testable: fewer than {FEWEST_ARRANGEMENTS} ways to shuffle ({shuffles.scheme})"
        return MaxTest(None, None, n_groups, said)
    every = np.vstack([codes[None], shuffles.codes])
    found = np.stack(
        [_ridge_accuracies(_checked(x, labels, groups)[0], every, members, len(names), folds, seed) for x in features],
        axis=1,
    )  # [draws + 1, n_representations]
    return max_t_test(found[0], found[1:], n_groups=n_groups, scheme=shuffles.scheme)


def control_accuracy(
    features: ArrayLike | Tensor,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    folds: int = 5,
    strength: float,
    draws: int = 3,
    seed: int = 42,
) -> tuple[float, str]:
    """Accuracy of the same probe at a control task: one label a group, drawn at random, in the shares of the labels.

    Nothing but which group a clip is of tells such a label, so the probe can only have learned it by heart. Clips of a
    group therefore stand on both sides of a fold, or there would be nothing to remember.

    Args:
        features: [n, d]; labels: [n], for how often each class comes; groups: [n].
        strength: C of the probe. draws: control tasks; the mean over them is returned.
    Returns:
        Balanced accuracy, and what was done; NaN with the reason where groups hold one clip each, or are under two a
        class.
    Source: Hewitt & Liang 2019, arXiv:1909.03368: selectivity is the accuracy less that at the control task.
    """
    x, names, codes, members = _checked(features, labels, groups)
    n_groups = int(members.max()) + 1
    if n_groups == len(x):
        return float("nan"), "no control task: every clip is a group of its own, so no label of a group can be known"
    if n_groups < 2 * len(names):
        return float("nan"), f"no control task: {n_groups} groups for {len(names)} classes, twice as many needed"
    rng = np.random.default_rng(seed)
    shares = np.sort(codes)[np.linspace(0, len(codes) - 1, n_groups).round().astype(int)]
    found = []
    for draw in range(draws):
        drawn = rng.permutation(shares)[members]
        score = linear_probe(
            x, [str(code) for code in drawn], folds=folds, strengths=(strength,), draws=0, seed=seed + draw
        )
        found.append(score.accuracy)
    known = [value for value in found if value == value]
    if not known:
        return float("nan"), "no control task: a class of it would come from too few clips"
    return float(np.mean(known)), f"one random label a group, {len(known)} draws, clips of a group in several folds"


def probe_difference(
    base: ProbeScore, other: ProbeScore, labels: Sequence[str], groups: ArrayLike | None = None
) -> tuple[float, Interval]:
    """Accuracy of `other` minus that of `base` on the same clips, with a 95 % interval over groups ([1]).

    Args:
        base, other: probes of two representations (before and after a patch) with the same labels and groups.
    Returns:
        NaN with the reason where one of them was refused.
    """
    reason = base.reason or other.reason
    if reason:
        return float("nan"), Interval(np.full(1, np.nan), np.full(1, np.nan), f"no interval: {reason}")
    _, names, codes, members = _checked(np.zeros((len(labels), 1)), labels, groups)
    if not len(base.predicted) == len(other.predicted) == len(codes):
        raise InterpError(
            f"{len(base.predicted)} and {len(other.predicted)} predictions for {len(codes)} labels: not the same clips."
        )
    truth = names[codes]
    right = np.stack([np.asarray(probe.predicted) == truth for probe in (base, other)])
    both = _balanced(right, codes)
    folds = min(base.n_folds, other.n_folds)
    moved = _interval(right, codes, members, folds, lambda values: values[1:] - values[:1], lowest=-1.0)
    return float(both[1] - both[0]), moved


def _checked(
    features: ArrayLike | Tensor, labels: ArrayLike, groups: ArrayLike | None
) -> tuple[Floats, NDArray, NDArray[np.intp], NDArray[np.intp]]:
    """Features, class names, the class and the group of every clip by number."""
    x, given = to_float64(features), np.asarray(labels)
    held = np.arange(len(given)) if groups is None else np.asarray(groups)
    if x.ndim != 2 or not x.size or given.shape != (len(x),) or held.shape != (len(x),):
        raise InterpError(
            f"features {x.shape} must be [clips, width] with a label and a group a clip; got labels {given.shape}, "
            f"groups {held.shape}."
        )
    if not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        raise InterpError(f"{len(bad)} of {len(x)} clips hold a NaN or an infinity, the first at row {bad[0]}.")
    names, codes = np.unique(given, return_inverse=True)
    return x, names, codes, np.unique(held, return_inverse=True)[1]


def _splits(
    codes: NDArray, members: NDArray, names: NDArray, folds: int, seed: int
) -> tuple[str, list[tuple[NDArray, NDArray]]]:
    """Why there is no probe ("" where there is one), and the outer folds."""
    if len(names) < 2:
        return f"all {len(codes)} clips are {str(names[0])!r}; a probe needs two classes", []
    held = [len(np.unique(members[codes == code])) for code in range(len(names))]
    fewest = int(np.argmin(held))
    if held[fewest] < FEWEST_GROUPS:
        return f"class {str(names[fewest])!r} comes from {held[fewest]} groups, {FEWEST_GROUPS} needed", []
    splitter = StratifiedGroupKFold(min(folds, held[fewest]), shuffle=True, random_state=seed)
    splits = list(splitter.split(codes, codes, members))
    for learn, _ in splits:
        if missing := set(range(len(names))) - set(codes[learn].tolist()):
            return f"class {str(names[min(missing)])!r} falls into a single fold: its groups are too few or large", []
    return "", splits


def _strength(x: Floats, codes: NDArray, members: NDArray, strengths: Sequence[float], seed: int) -> float:
    """The smallest of the C that do best on groups held out of the learning part."""
    held = min(len(np.unique(members[codes == code])) for code in np.unique(codes))
    if len(strengths) == 1 or held < 2:
        return strengths[len(strengths) // 2]
    splitter = StratifiedGroupKFold(min(INNER_FOLDS, held), shuffle=True, random_state=seed)
    predicted = np.empty((len(strengths), len(codes)), codes.dtype)
    for learn, score in splitter.split(codes, codes, members):
        predicted[:, score] = _fitted(x[learn], codes[learn], x[score], strengths)
    return strengths[int(_balanced(predicted == codes, codes).argmax())]


def scaled(learn: Floats, score: Floats) -> tuple[Floats, Floats]:
    """Both with the learning part's mean taken off and spread set to 1; a dimension without spread becomes 0."""
    centre, spread = learn.mean(axis=0), learn.std(axis=0)
    still = spread <= 1e-12 * np.abs(learn).max(axis=0)
    factor = np.where(still, 0, 1 / np.where(still, 1, spread))
    return (learn - centre) * factor, (score - centre) * factor


def _fitted(learn: Floats, codes: NDArray, score: Floats, strengths: Sequence[float]) -> NDArray:
    """Predictions of the scored clips by the probe of every strength, [n_strengths, n_score]."""
    if len(np.unique(codes)) == 1:
        return np.full((len(strengths), len(score)), codes[0])
    learn, score = scaled(learn, score)
    if learn.shape[1] > len(learn):  # the weights lie in the span of the clips: the same probe in fewer dimensions
        basis = np.linalg.qr(learn.T)[0]
        learn, score = learn @ basis, score @ basis
    classes, at, counts = np.unique(codes, return_inverse=True, return_counts=True)
    alike = (len(codes) / (len(classes) * counts))[at]  # every class weighs as much as any other
    probe, predicted = regression(warm=True), []
    with config_context(assume_finite=True, skip_parameter_validation=True):  # checked once by `_checked`
        for strength in strengths:
            probe.C = strength
            probe.fit(learn, codes, sample_weight=alike)
            logits = score @ probe.coef_.T + probe.intercept_
            predicted.append(classes[logits.argmax(axis=1) if len(classes) > 2 else (logits[:, 0] > 0).astype(int)])
    return np.stack(predicted)


def _balanced(right: NDArray, codes: NDArray) -> Floats:
    """Mean over classes of the share named right: [n_sets, n] to [n_sets]."""
    return np.stack([right[:, codes == code].mean(axis=1) for code in np.unique(codes)]).mean(axis=0)


def _interval(
    right: NDArray, codes: NDArray, members: NDArray, folds: int, take: Callable[[Floats], Floats], *, lowest: float
) -> Interval:
    """Delete-a-group jackknife of a number made of balanced accuracies, widened for the folds' probes."""
    n_groups, n_classes = int(members.max()) + 1, int(codes.max()) + 1
    sums = np.zeros((n_groups, n_classes, len(right)))
    np.add.at(sums, (members, codes), right.T)
    counts = np.zeros((n_groups, n_classes, 1))
    np.add.at(counts, (members, codes), 1)
    without = ((sums.sum(axis=0) - sums) / (counts.sum(axis=0) - counts)).mean(axis=1)  # [n_groups, n_sets]
    deleted = np.stack([take(values) for values in without])
    found = grouped_jackknife(take(_balanced(right, codes)), deleted, np.bincount(members).tolist())
    return over_folds(found, folds, lowest=lowest, highest=1.0)


def _ridge_accuracies(
    x: Floats, labellings: NDArray, members: NDArray, n_classes: int, folds: int, seed: int
) -> Floats:
    """Held-out balanced accuracy of a ridge probe under every labelling, [draws].

    A fold's predictions are one matrix times its labels: indicators of the classes over their shares in the learning
    part, less 1, so that rare classes weigh as much as frequent ones.
    """
    predicted = np.empty_like(labellings)
    splitter = GroupKFold(min(folds, int(members.max()) + 1), shuffle=True, random_state=seed)
    step = max(1, WORK_BYTES // (8 * n_classes * len(x)))
    for learn, score in splitter.split(x, groups=members):
        a, b = (torch.from_numpy(part) for part in scaled(x[learn], x[score]))
        weight = RIDGE * max(a.shape)
        if a.shape[1] < a.shape[0]:
            hat = b @ torch.linalg.solve(a.T @ a + weight * torch.eye(a.shape[1], dtype=a.dtype), a.T)
        else:
            hat = b @ a.T @ torch.linalg.inv(a @ a.T + weight * torch.eye(a.shape[0], dtype=a.dtype))
        for low in range(0, len(labellings), step):
            part = torch.from_numpy(labellings[low : low + step][:, learn])  # [draws, learn]
            onehot = (part[:, :, None] == torch.arange(n_classes)).double()  # [draws, learn, classes]
            shares = onehot.mean(dim=1, keepdim=True)
            lift = hat @ (onehot / shares.clamp_min(1 / len(learn)) - 1)  # a class that is missing is never named
            predicted[low : low + step, score] = lift.argmax(dim=2).numpy()
    sets = labellings[:, :, None] == np.arange(n_classes)
    right = (predicted == labellings)[:, :, None] & sets
    return (right.sum(axis=1) / sets.sum(axis=1)).mean(axis=1)
