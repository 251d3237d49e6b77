"""What a transplant does to the answers: error rates with intervals, accuracy, how far the scores moved, and whose."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from interp_core.experiments.compare.transplants import ERASURES, SAYS, Transplant
from interp_core.experiments.compare.units import Units
from interp_core.maths.scores import bootstrap_over_speakers, by_attack, by_codec, detection, logit_difference
from interp_core.maths.stats import rate_intervals

Logits = Mapping[str, NDArray[np.float32]]
"""[n, n_labels] by the name of the model: `base`, `donor`, or a transplant's."""
Row = dict[str, Any]

RATES = ("eer", "eer_thesis", "eer_challenge", "min_dcf", "min_dcf_thesis", "min_dcf_challenge")
SWEEPS = ("each", "cumulative")
"""Beginnings of `Transplant.chosen` of the transplants that make up a curve."""


def score(logits: NDArray[np.float32], positive: int) -> NDArray[np.float64]:
    """[n] the positive class's log-odds against all others, in nats."""
    return logit_difference(logits, bonafide_index=positive)


def summary_table(
    logits: Logits,
    transplants: Sequence[Transplant],
    units: Units,
    labels: Sequence[str],
    *,
    seed: int = 42,
    draws: int = 2000,
) -> pd.DataFrame:
    """One row a model: base, donor, every transplant. Numbers are of the reporting half, 95 % intervals over speakers.

    Differences are to the model that the transplant changes: the base, or in reverse the donor.

    Args:
        logits: of every model that ran.
        labels: the classes, in the order of the logits.
    """
    positive = labels.index(units.positive) if units.positive in labels else 0
    rows: dict[str, Row] = {"base": _model_row("base"), "donor": _model_row("donor")}
    rows |= {transplant.name: _transplant_row(transplant) for transplant in transplants}
    here = units.reported
    for name, found in logits.items():
        reverse = rows[name]["reverse"]
        own, other = (logits["donor"], logits["base"]) if reverse else (logits["base"], logits["donor"])
        rows[name] |= {"n": int(here.sum()), **movement(found[here], own[here], other[here], positive)}
    families = [_family(rows, logits, reverse) for reverse in (False, True)]
    if units.scored and units.positive in labels:
        _add_detection(rows, logits, families, units, positive, seed, draws)
    if set(units.labels[here]) <= set(labels):
        _add_accuracy(rows, logits, families, units, labels)
    return pd.DataFrame(list(rows.values()))


def _model_row(name: str) -> Row:
    needs = "no" if name == "base" else "it is the donor"
    return {
        "model": name, "mode": "", "sites": "", "reverse": False, "chosen": "", "null": "", "forwards_per_clip": 1,
        "needs_donor": needs, "notes": "",
    }  # fmt: skip


def _transplant_row(transplant: Transplant) -> Row:
    needs = (
        "yes" if transplant.needs_donor else "its layer weights" if transplant.mode == "weights" else "no, only to fit"
    )
    if transplant.mode in ERASURES:
        needs = "no"
    return {
        "model": transplant.name,
        "mode": transplant.mode,
        "sites": " ".join(map(str, transplant.sites)),
        "reverse": transplant.reverse,
        "chosen": transplant.chosen,
        "null": transplant.null,
        "forwards_per_clip": transplant.forwards,
        "needs_donor": needs,
        "notes": SAYS[transplant.mode],
    }


def movement(found: NDArray, own: NDArray, other: NDArray, positive: int) -> dict[str, float]:
    """How far a model's answers are from those of the model it is made from, and from those of the other one.

    Args:
        found, own, other: [n, n_labels] logits of the same clips.
    Returns:
        Changes of the score in nats; `recovered`: 0 is no nearer to the other model than before, 1 is its scores.
    """
    a, b, c = (score(part, positive) for part in (found, own, other))
    gap = float(np.abs(b - c).mean())
    return {
        "score_change_mean": float(np.abs(a - b).mean()),
        "score_shift_mean": float((a - b).mean()),
        "score_change_max": float(np.abs(a - b).max()),
        "logit_change_max": float(np.abs(found - own).max()),
        "recovered": 1 - float(np.abs(a - c).mean()) / gap if gap > 0 else np.nan,
        "answers_changed": float((found.argmax(1) != own.argmax(1)).mean()),
    }


def _family(rows: Mapping[str, Row], logits: Logits, reverse: bool) -> list[str]:
    """The models whose differences are to one model, that one first. The donor's own is to the base."""
    transplants = [name for name, row in rows.items() if row["mode"] and row["reverse"] == reverse]
    return [name for name in [*(["donor"] if reverse else ["base", "donor"]), *transplants] if name in logits]


def _add_detection(
    rows: dict[str, Row],
    logits: Logits,
    families: Sequence[Sequence[str]],
    units: Units,
    positive: int,
    seed: int,
    draws: int,
) -> None:
    here, truth = units.reported, units.is_positive
    for name, found in logits.items():
        values = score(found, positive)
        made = detection(values[here], truth[here])
        rows[name] |= {column: getattr(made, column) for column in RATES}
        rows[name]["eer_chosen_on"] = detection(values[units.chosen_on], truth[units.chosen_on]).eer
        rows[name]["notes"] = f"{rows[name]['notes']} {made.warning}".strip()
    if truth[here].all() or not truth[here].any():
        return
    speakers = units.speakers[here].tolist()
    for names in families:
        scores = np.stack([score(logits[name], positive)[here] for name in names])
        for measure in ("eer", "min_dcf"):
            many = bootstrap_over_speakers(scores, truth[here], speakers, measure=measure, draws=draws, seed=seed)
            limits = (many.interval.low, many.interval.high)
            gaps = (many.difference, many.difference_interval.low, many.difference_interval.high)
            _fill(rows, names, measure, limits, gaps, many.interval.method)


def _add_accuracy(
    rows: dict[str, Row],
    logits: Logits,
    families: Sequence[Sequence[str]],
    units: Units,
    labels: Sequence[str],
) -> None:
    here = units.reported
    truth = np.array([labels.index(label) for label in units.labels[here]])
    for names in families:
        right = np.stack([logits[name][here].argmax(1) == truth for name in names]).astype(float)
        value, limits, gaps, method = accuracies(right, units.speakers[here].tolist())
        for i, name in enumerate(names):
            rows[name]["accuracy"] = value[i]
        _fill(rows, names, "accuracy", limits, (value - value[0], *gaps), method)


def _fill(
    rows: dict[str, Row],
    names: Sequence[str],
    measure: str,
    limits: tuple[NDArray, NDArray],
    gaps: tuple[NDArray, NDArray, NDArray],
    method: str,
) -> None:
    """Write intervals and differences of a family; a family that the donor leads leaves the donor's row alone."""
    for i, name in enumerate(names):
        if name == "donor" and not i:
            continue
        rows[name] |= {f"{measure}_low": limits[0][i], f"{measure}_high": limits[1][i]}
        rows[name].setdefault("interval_method", method)
        if i:
            named = (f"{measure}_difference", f"{measure}_difference_low", f"{measure}_difference_high")
            rows[name] |= {column: part[i] for column, part in zip(named, gaps, strict=True)}


def accuracies(
    right: NDArray[np.float64], units: Sequence[str]
) -> tuple[NDArray, tuple[NDArray, NDArray], tuple[NDArray, NDArray], str]:
    """Accuracy of several models on the same clips, with paired 95 % intervals, clips coming in units.

    Args:
        right: [n_models, n] 1 where a model names the clip right; the first model is the base.
        units: [n] what was sampled.
    Returns:
        The values, their limits, the limits of the differences to the first, [n_models] each; the method, or why none.
    """
    own, gaps = rate_intervals(right.T, units)
    said = own.method.replace("clusters", "units")
    return right.mean(axis=1), (own.low, own.high), (gaps.low, gaps.high), said


def breakdown_table(
    logits: Logits,
    transplants: Sequence[Transplant],
    units: Units,
    labels: Sequence[str],
    domain: NDArray[np.str_],
    attack: NDArray[np.str_],
) -> pd.DataFrame:
    """EER of every codec (its own bona fide and spoofs) and every attack (all bona fide pooled), reporting half.

    Args:
        domain, attack: [n] values, all "" where there is no such column.
    """
    if not units.scored or units.positive not in labels:
        return pd.DataFrame()
    positive, here = labels.index(units.positive), units.reported
    shown = [
        "base",
        "donor",
        *(transplant.name for transplant in transplants if not transplant.chosen.startswith(SWEEPS)),
    ]
    rows = []
    for name in [name for name in shown if name in logits]:
        values, truth = score(logits[name], positive)[here], units.is_positive[here]
        for what, by, names in (("domain", by_codec, domain[here]), ("attack", by_attack, attack[here])):
            for value, made in (by(values, truth, names.tolist()) if any(names) else {}).items():
                rates = {column: getattr(made, column) for column in RATES}
                counts = {"n_bonafide": made.n_bonafide, "n_spoof": made.n_spoof}
                rows.append({"model": name, "by": what, "value": value, **counts, **rates, "reason": made.reason})
    return pd.DataFrame(rows)


def rank_correlation(divergence: Sequence[float], effect: Sequence[float]) -> dict[str, Any]:
    """Spearman's rho between how little alike the models are at a layer and what patching that layer alone does."""
    a, b = np.asarray(divergence, float), np.asarray(effect, float)
    known = np.isfinite(a) & np.isfinite(b)
    n = int(known.sum())
    if n < 4:
        return {"rho": None, "n": n, "reason": f"{n} layers with both numbers, 4 needed"}
    if np.ptp(a[known]) <= 1e-12 or np.ptp(b[known]) <= 1e-12:
        return {"rho": None, "n": n, "reason": "one of the two is the same at every layer"}
    return {"rho": float(stats.spearmanr(a[known], b[known]).statistic), "n": n, "reason": ""}
