"""Error rates of a spoofing countermeasure: EER, minDCF, ROC and DET points, tables by codec and attack, intervals.

A score is higher for bona fide speech, and a clip is rejected where its score is at or below the threshold. FRR is the
share of bona fide clips rejected, FAR the share of spoofed clips accepted.

The thesis that Patchbay reads checkpoints of and the ASVspoof 5 challenge walk through the clips one at a time. Where
clips of both classes share a score, as saturated probabilities do, a clip at a time is no threshold: which of them
comes first decides, and the challenge's code, which puts bona fide first, calls equal scores for everything an EER of
100 %. So three numbers stand side by side: theirs, to be compared with published ones, and the same rule at unique
scores, where clips of one score fall on one side together. Without such ties it is the challenge's number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.maths.arrays import Floats, to_float64
from interp_core.maths.resampling import draws_within_classes, speakers_in_classes
from interp_core.maths.stats import FEWEST_FOR_INTERVAL, Interval


@dataclass(frozen=True)
class Costs:
    """What minDCF weighs: the default is ASVspoof 5, track 1, and the thesis code's default since spring 2026."""

    p_spoof: float = 0.05
    c_miss: float = 1.0  # of rejecting a bona fide clip
    c_fa: float = 10.0  # of accepting a spoofed one

    def normalised(self, frr: Floats, far: Floats) -> Floats:
        """Cost at each point over that of the better of accepting and rejecting everything."""
        miss, accept = self.c_miss * (1 - self.p_spoof), self.c_fa * self.p_spoof
        return (miss * frr + accept * far) / min(miss, accept)


PUBLISHED_THESIS_COSTS = Costs(p_spoof=0.95, c_miss=1.0, c_fa=1.0)
"""The thesis code's default until spring 2026, behind its published table (minDCF .64 at an EER of 8.5 %)."""


@dataclass(frozen=True)
class ErrorCurve:
    """Error rates at every threshold that changes one; [n_thresholds] each, thresholds ascending.

    The first threshold is -inf, where everything is accepted; the last is the highest score, where nothing is.
    """

    thresholds: Floats
    frr: Floats
    far: Floats

    def det(self) -> tuple[Floats, Floats]:
        """FAR and FRR on normal-deviate axes; points where either is 0 or 1 lie at infinity and are left out."""
        inside = (self.far > 0) & (self.far < 1) & (self.frr > 0) & (self.frr < 1)
        return norm.ppf(self.far[inside]), norm.ppf(self.frr[inside])


@dataclass(frozen=True)
class Detection:
    """How well scores tell bona fide from spoof. Rates are shares, not percent; all NaN where `reason` is not empty."""

    n_bonafide: int
    n_spoof: int
    eer: float  # at unique scores
    eer_thesis: float
    eer_challenge: float
    threshold: float
    threshold_thesis: float
    threshold_challenge: float
    min_dcf: float  # at unique scores
    min_dcf_thesis: float
    min_dcf_challenge: float
    tied: float  # share of clips with a score that a clip of the other class has too
    reason: str  # why it is undefined

    @property
    def warning(self) -> str:
        """What a person should know before believing the number; "" where nothing stands out."""
        said = []
        if self.eer > 0.5:
            said.append(
                f"EER {self.eer:.1%} is above 50 %: the scores rank spoof above bona fide. Check the bona fide index "
                "(0 in the thesis, 1 in the challenge's baselines)."
            )
        if self.tied > 0.05:
            said.append(
                f"{self.tied:.0%} of the clips share a score with a clip of the other class; saturated probabilities "
                "do that, logit differences do not."
            )
        return " ".join(said)


def logit_difference(logits: ArrayLike | Tensor, *, bonafide_index: int) -> Floats:
    """Score of every clip: log-odds of bona fide, which do not saturate as probabilities do.

    Args:
        logits: [n, n_classes], of two classes or more.
        bonafide_index: column of bona fide; the others are all spoof.
    Returns:
        [n] nats: the bona fide logit minus the spoof logit (the log-sum-exp of several).
    Raises:
        InterpError: not [n, 2 or more], or an index outside.
    """
    values = to_float64(logits)
    if values.ndim != 2 or values.shape[1] < 2 or not 0 <= bonafide_index < values.shape[1]:
        raise InterpError(f"bona fide index {bonafide_index} does not fit logits {values.shape} of [n, 2 or more].")
    return values[:, bonafide_index] - logsumexp(np.delete(values, bonafide_index, axis=1), axis=1)


def error_curve(scores: ArrayLike | Tensor, is_bonafide: ArrayLike) -> ErrorCurve:
    """FRR and FAR at -inf and at every unique score.

    Args:
        scores: [n], higher for bona fide; finite.
        is_bonafide: [n] bool.
    Raises:
        InterpError: shapes that do not fit, a score that is not finite, or a class without a clip.
    """
    values, bonafide = _checked(scores, is_bonafide)
    if bonafide.all() or not bonafide.any():
        raise InterpError(f"error rates are undefined: {_missing(bonafide)}.")
    order, last = _walk(values)
    frr, far = _rates(bonafide[order].astype(np.float64)[None], last)
    return ErrorCurve(np.r_[-np.inf, values[order][last]], frr[0], far[0])


def detection(scores: ArrayLike | Tensor, is_bonafide: ArrayLike, *, costs: Costs | None = None) -> Detection:
    """EER and minDCF of one set of scores, by the thesis, by the challenge and at unique scores.

    Args:
        scores: [n], higher for bona fide; finite. In the order of the score file: the thesis's numbers hang on it
            where scores are tied.
        is_bonafide: [n] bool.
        costs: of minDCF; None for ASVspoof 5's.
    Returns:
        All NaN with a reason where one class has no clip (the thesis's code returns 0.5 and 1 there).
    Raises:
        InterpError: shapes that do not fit, or a score that is not finite.
    """
    values, bonafide = _checked(scores, is_bonafide)
    costs = costs or Costs()
    n_bonafide, n_spoof = int(bonafide.sum()), int((~bonafide).sum())
    if not n_bonafide or not n_spoof:
        none = _Point(np.nan, np.nan, np.nan)
        return _together(n_bonafide, n_spoof, none, none, none, np.nan, f"undefined: {_missing(bonafide)}")
    thesis = _one_at_a_time(values, bonafide, np.argsort(values), accept_all=False)  # its unstable sort
    # bona fide first among equals: they stand first in the challenge's stable sort
    challenge = _one_at_a_time(values, bonafide, np.lexsort((~bonafide, values)), accept_all=True)
    points = [_Point.of(curve, costs) for curve in (error_curve(values, bonafide), thesis, challenge)]
    shared = np.intersect1d(values[bonafide], values[~bonafide])
    tied = float(np.isin(values, shared).mean())
    return _together(n_bonafide, n_spoof, points[0], points[1], points[2], tied, "")


def by_codec(
    scores: ArrayLike | Tensor, is_bonafide: ArrayLike, codecs: Sequence[str], *, costs: Costs | None = None
) -> dict[str, Detection]:
    """`detection` of every codec, that codec's bona fide clips against that codec's spoofs; names in sorted order."""
    values, bonafide = _checked(scores, is_bonafide)
    names = _names(codecs, values, "codecs")
    return {
        str(name): detection(values[names == name], bonafide[names == name], costs=costs) for name in sorted({*names})
    }


def by_attack(
    scores: ArrayLike | Tensor, is_bonafide: ArrayLike, attacks: Sequence[str], *, costs: Costs | None = None
) -> dict[str, Detection]:
    """`detection` of every attack: its spoofs against all bona fide clips, which carry no attack of their own.

    Args:
        attacks: [n] names; those of bona fide clips are not looked at.
    Returns:
        Names in sorted order; undefined, with the reason, where there is no bona fide clip at all.
    """
    values, bonafide = _checked(scores, is_bonafide)
    names = _names(attacks, values, "attacks")
    made = {}
    for name in sorted({*names[~bonafide]}):
        chosen = bonafide | (names == name)
        made[str(name)] = detection(values[chosen], bonafide[chosen], costs=costs)
    return made


@dataclass(frozen=True)
class ScoreBootstrap:
    """One measure of several models on the same clips; arrays are [n_models], differences are to the first model."""

    value: Floats
    interval: Interval
    difference: Floats
    difference_interval: Interval
    speakers: tuple[int, int]  # of bona fide clips, of spoofed clips


def bootstrap_over_speakers(
    scores: ArrayLike | Tensor,
    is_bonafide: ArrayLike,
    speakers: Sequence[str],
    *,
    measure: Literal["eer", "min_dcf"] = "eer",
    costs: Costs | None = None,
    draws: int = 2000,
    seed: int = 42,
) -> ScoreBootstrap:
    """95 % intervals of a measure and of its differences between models, speakers drawn again.

    Every draw takes as many bona fide speakers and as many spoofed speakers as there are. Where a speaker is heard in
    both classes, all speakers are drawn together, each with all clips: who scores high in one class may score high (or
    low) in the other. The draws are the same for all models, so a difference is between models on one sample.

    Args:
        scores: [n_models, n], higher for bona fide; the first is the base.
        is_bonafide, speakers: [n].
        measure: at unique scores.
    Returns:
        Percentile limits; NaN with the reason in `method` where a class has fewer than 10 speakers.
    Raises:
        InterpError: shapes that do not fit, a score that is not finite, a class without a clip.
    """
    models = to_float64(scores)
    if models.ndim != 2 or not len(models):
        raise InterpError(f"scores {models.shape} must be [n_models, n]; give one model as [1, n].")
    checked = [_checked(row, is_bonafide) for row in models]
    bonafide = checked[0][1]
    if bonafide.all() or not bonafide.any():
        raise InterpError(f"error rates are undefined: {_missing(bonafide)}.")
    named = _names(speakers, models[0], "speakers")
    many = (len(set(named[bonafide])), len(set(named[~bonafide])))
    costs = costs or Costs()
    take: dict[str, Callable[[Floats, Floats], Floats]] = {
        "eer": _eer,
        "min_dcf": lambda a, b: costs.normalised(a, b).min(axis=-1),
    }
    if measure not in take:
        raise InterpError(f"unknown measure {measure!r}; one of {', '.join(take)}.")
    walks = [_walk(row) for row in models]

    def measured(weights: Floats) -> Floats:
        """[n_models, draws] from the clips' weights [draws, n]."""
        found = []
        for order, last in walks:
            placed = weights[:, order]
            with np.errstate(invalid="ignore"):  # a draw that happens to have no clip of a class has no rates
                found.append(take[measure](*_rates(placed * bonafide[order], last, placed * ~bonafide[order])))
        return np.stack(found)

    value = measured(np.ones((1, models.shape[1])))[:, 0]
    if min(many) < FEWEST_FOR_INTERVAL:
        none = np.full(len(models), np.nan)
        why = f"no interval: {many[0]} bona fide and {many[1]} spoof speakers, {FEWEST_FOR_INTERVAL} needed of each"
        return ScoreBootstrap(
            value, Interval(none, none.copy(), why), value - value[0], Interval(none, none.copy(), why), many
        )
    codes, counts = speakers_in_classes(bonafide, named)
    times = draws_within_classes(counts, draws=draws, seed=seed)
    step = max(1, (1 << 22) // models.shape[1])  # about 32 MB of weights at a time
    drawn = np.concatenate([measured(times[low : low + step][:, codes]) for low in range(0, draws, step)], axis=1)
    both = f" ({sum(many) - sum(counts)} in both)" if sum(many) > sum(counts) else ""
    method = f"bootstrap over {many[0]} bona fide and {many[1]} spoof speakers{both}, {draws} draws"

    def limits(values: Floats, words: str) -> Interval:
        low, high = np.nanpercentile(values, [2.5, 97.5], axis=1)
        return Interval(low, high, words)

    # A sample's smallest cost fits the sample; limits centred on the value missed as often (benchmarks/README.md).
    doubt = "; of a smallest cost it misses about 1 in 10" if measure == "min_dcf" else ""
    return ScoreBootstrap(
        value, limits(drawn, method + doubt), value - value[0], limits(drawn - drawn[0], f"paired {method}"), many
    )


def _checked(scores: ArrayLike | Tensor, is_bonafide: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    values, bonafide = to_float64(scores), np.asarray(is_bonafide)
    if values.ndim != 1 or bonafide.shape != values.shape or not len(values):
        raise InterpError(f"scores {values.shape} and is_bonafide {bonafide.shape} must be one [n] each.")
    if bonafide.dtype != bool:
        raise InterpError(
            f"is_bonafide must be True or False a clip, not {bonafide.dtype}: 0 is bona fide in some files."
        )
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values))
        raise InterpError(f"{len(bad)} of {len(values)} scores are NaN or infinite, the first at row {bad[0]}.")
    return values, bonafide


def _names(names: Sequence[str], values: Floats, what: str) -> NDArray[np.str_]:
    if len(names) != len(values):
        raise InterpError(f"{len(names)} {what} for {len(values)} scores; give one a clip.")
    return np.asarray(names, dtype=str)


def _missing(bonafide: NDArray[np.bool_]) -> str:
    return "no spoofed clip" if bonafide.all() else "no bona fide clip"


def _walk(values: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order of ascending scores and, in that order, the last place of every unique score."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    return order, np.flatnonzero(np.r_[ascending[1:] != ascending[:-1], True])


def _rates(bonafide: Floats, last: NDArray[np.intp], spoof: Floats | None = None) -> tuple[Floats, Floats]:
    """FRR and FAR, [draws, 1 + n_unique], from the clips' weights in ascending order of score, [draws, n]."""
    spoof = 1 - bonafide if spoof is None else spoof
    rejected, caught = (np.cumsum(part, axis=1) for part in (bonafide, spoof))
    start = np.zeros((len(bonafide), 1))
    frr = np.concatenate([start, rejected[:, last]], axis=1) / rejected[:, -1:]
    far = (caught[:, -1:] - np.concatenate([start, caught[:, last]], axis=1)) / caught[:, -1:]
    return frr, far


def _eer(frr: Floats, far: Floats) -> Floats:
    """Mean of both rates where they are nearest, along the last axis."""
    at = np.argmin(np.abs(frr - far), axis=-1)[..., None]
    return (np.take_along_axis(frr, at, -1) + np.take_along_axis(far, at, -1))[..., 0] / 2


def _one_at_a_time(values: Floats, bonafide: NDArray, order: NDArray, *, accept_all: bool) -> ErrorCurve:
    """Rates after each clip of the order, with or without the point before the first one."""
    frr, far = _rates(bonafide[order].astype(np.float64)[None], np.arange(len(values)))
    skipped = 0 if accept_all else 1
    return ErrorCurve(np.r_[-np.inf, values[order]][skipped:], frr[0, skipped:], far[0, skipped:])


@dataclass(frozen=True)
class _Point:
    """What one way of walking through the scores finds."""

    eer: float
    threshold: float
    min_dcf: float

    @staticmethod
    def of(curve: ErrorCurve, costs: Costs) -> "_Point":
        at = int(np.argmin(np.abs(curve.frr - curve.far)))
        eer = float((curve.frr[at] + curve.far[at]) / 2)
        return _Point(eer, float(curve.thresholds[at]), float(costs.normalised(curve.frr, curve.far).min()))


def _together(
    n_bonafide: int, n_spoof: int, unique: _Point, thesis: _Point, challenge: _Point, tied: float, reason: str
) -> Detection:
    return Detection(
        n_bonafide=n_bonafide,
        n_spoof=n_spoof,
        eer=unique.eer,
        eer_thesis=thesis.eer,
        eer_challenge=challenge.eer,
        threshold=unique.threshold,
        threshold_thesis=thesis.threshold,
        threshold_challenge=challenge.threshold,
        min_dcf=unique.min_dcf,
        min_dcf_thesis=thesis.min_dcf,
        min_dcf_challenge=challenge.min_dcf,
        tied=tied,
        reason=reason,
    )
