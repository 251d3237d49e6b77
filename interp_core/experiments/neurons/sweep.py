"""Do a few neurons carry a shortcut, and does taking them out help where the shortcut does not hold?

Neurons of one site are ranked by how much a probe of the domain leans on them, and edited K at a time inside the
forward pass; beside them the K best for the task (a control that must hurt), and K random ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from interp_core.errors import InterpError
from interp_core.experiments.downstream import Downstream, fillings
from interp_core.experiments.figures import sign
from interp_core.experiments.neurons.erase import Erasers, erasure_table
from interp_core.experiments.neurons.figures import dose_figure
from interp_core.experiments.neurons.limits import LIMITS
from interp_core.experiments.neurons.measures import (
    Bools,
    Evidence,
    Floats,
    Measured,
    accuracy_so_far,
    area,
    balance,
    frozen,
    judge,
    measured,
    verdict_k,
)
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.scores import (
    LinearProbe,
    NeuronSet,
    Ranked,
    neuron_sets,
    overlap,
    ranked,
    score_table,
)
from interp_core.experiments.neurons.table import HEADS, MEASURES, MOST_DRAWS, PROBES, REFITS, Table, answers_table
from interp_core.experiments.result import Result
from interp_core.jobs import Progress, silent
from interp_core.sinks import MEMORY

MIN_TRAIN = 4


@dataclass(frozen=True, eq=False, repr=False)
class AblationResult(Result):
    """A finished ablation.

    Attributes:
        curve: one row a (set, k): sets domain, task (ranked; `_low`, `_high`, `_change`, `_change_low`, `_change_high`
            are 95 % over units), random and matched (mean over draws; `_std`, and `_low`, `_high` are the 2.5 and 97.5
            percentiles over draws). Measures: head accuracy out of and in domain, balanced accuracy in domain of the
            two probes as fitted and fitted again.
        scores: one row a neuron. answers: one row a (ranked set, k, measured clip).
        report: verdict and its evidence, areas, overlaps, counts, routes, reasons.
        erasure: one row a set (domain, task, random), as in the curve; empty where nothing was erased.
        words: answers in words, one row a clip and ranked set; see `edited_answers`. Empty where none were written.
    """

    curve: pd.DataFrame
    scores: pd.DataFrame
    answers: pd.DataFrame
    report: dict[str, Any]
    erasure: pd.DataFrame = field(default_factory=pd.DataFrame)
    words: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def metrics(self) -> pd.DataFrame:
        """The curve over doses."""
        return self.curve

    def tables(self) -> dict[str, pd.DataFrame]:
        erased = {"erasure": self.erasure} if len(self.erasure) else {}
        spoken = {"words": self.words} if len(self.words) else {}
        return {"curve": self.curve, "scores": self.scores, "answers": self.answers, **erased, **spoken}

    limits = LIMITS
    profile_x = "K"

    def profile(self) -> pd.DataFrame:
        parts = [
            pd.DataFrame({"series": f"{measure}, neurons of {name}", "x": rows["k"], "value": rows[measure]})
            for measure in (*HEADS, *PROBES)
            if measure in self.report["base"]
            for name, rows in self.curve.groupby("set", sort=False)
        ]
        return pd.concat(parts, ignore_index=True)

    def figure(self) -> Figure:
        return sign(dose_figure(self.config, self.curve, self.report, self.erasure), self.signature())

    @property
    def counted(self) -> str:
        return f"n = {self.answers['clip_id'].nunique()} measured clips"

    @property
    def method(self) -> str:
        settings = self.config["settings"]
        ranked = {"coef": "weight in a probe", "univariate": "each neuron by itself"}[settings["score"]]
        return f"neurons ranked by {ranked}, {settings['kind']} in their place"


def doses(request: AblateRequest, width: int) -> tuple[int, ...]:
    """The K of a sweep: those asked for up to the width, 0, and that of the verdict."""
    return tuple(sorted({0, verdict_k(width), *(k for k in request.ks if k <= width)}))


def run_sweep(
    table: Table,
    rest: Downstream,
    impact: Floats,
    settings: AblateRequest,
    *,
    config: Mapping[str, Any],
    gather: Callable[[], None] = MEMORY.gather,
    progress: Progress = silent,
) -> AblationResult:
    """Rank neurons on the training clips, ablate them, and measure on the other two splits.

    Args:
        table: the clips.
        rest: the model behind the site.
        impact: [width] how much each neuron moves the answer, for matched draws.
        settings: of the sweep; None draws are 100 of each sort.
        config: kept in the result.
        progress: called with (done, total, note).
        gather: called when every clip has been answered for; may raise where some were left to others.
    Raises:
        InterpError: too few training clips, one class in the task or the domain, labels that the head does not answer.
    """
    width = table.features.shape[1]
    ks = doses(settings, width)
    x = table.features.double().numpy()
    centre, spread = x[table.train].mean(axis=0), x[table.train].std(axis=0)
    scale = 1 / np.where(spread > 1e-12 * (1 + np.abs(centre)), spread, np.inf)
    z = (x - centre) * scale
    fitted = {name: _fit(z, table, name) for name in ("domain", "task")}
    rankings = {name: _rank(z, table, name, fitted[name], settings.score) for name in fitted}
    progress(1, 4, "neurons ranked")
    draws = MOST_DRAWS if settings.draws is None else settings.draws
    sets = neuron_sets(rankings["domain"].order, rankings["task"].order, impact, ks, draws, settings.seed)
    masks = np.zeros((len(sets), width), bool)
    for i, chosen in enumerate(sets):
        masks[i, list(chosen.neurons)] = True

    fill = fillings(settings.kind, table.features, table.train, settings.seed)
    new = ((-x if fill is None else fill.double().numpy()) - centre) * scale
    rows = {"head_ood": _answerable(table, table.ood, "ood"), "head_id": _answerable(table, table.id, "id")}
    refused = {"domain_probe": _refusal(table, "domain"), "task_probe": _refusal(table, "task")}
    for name in PROBES:
        column = table.column(name)
        seen = np.isin(column[table.id], fitted[name.partition("_")[0]].classes)
        rows[name] = table.id[seen]
    right: dict[str, Bools] = {}
    answered = {}
    torch_masks = torch.from_numpy(masks)
    for step, name in enumerate(HEADS, 2):
        truth = np.asarray([table.labels.index(label) for label in table.task[rows[name]]], np.intp)
        shown = partial(accuracy_so_far, name, sets, truth)
        answered[name] = rest.answers(rows[name], torch_masks, fill, shown)
        right[name] = answered[name] == truth
        progress(step, 4, f"accuracy of the head, {'out of' if name == 'head_ood' else 'in'} domain")
    erased = Erasers.fit(table, settings) if settings.erase else None
    taken_out = erased.answered(rest, rows) if erased else {}
    gather()
    for name in PROBES:
        if not refused[name]:
            probe, at = fitted[name.partition("_")[0]], rows[name]
            right[name] = frozen(probe, z[at], new[at], masks, table.column(name)[at])
    if settings.refits:
        again = [i for i, chosen in enumerate(sets) if chosen.draw < settings.refits]
        for name in PROBES:
            if not refused[name]:
                right[name.replace("probe", "refit")] = _refitted(z, new, table, name, rows[name], masks, again)
    progress(4, 4, "done")
    found = {name: _of_sets(sets, right[name], rows, name, table, settings) for name in right}
    curve = pd.DataFrame([_row(name, k, sets, found) for name in ("domain", "task", "random", "matched") for k in ks])
    curve = curve[(curve["k"] > 0) | curve["set"].isin(("domain", "task"))].reset_index(drop=True)
    report = _report(table, rest, rankings, sets, curve, found, refused, settings, ks)
    scores = score_table(rankings["domain"], rankings["task"], impact)
    answers, erasure = answers_table(table, sets, rows, answered), pd.DataFrame()
    if erased:
        base = {name: right[name][0] for name in right}  # K = 0
        erasure = erasure_table(erased, table, taken_out, base, rows, fitted, (centre, scale), settings)
        report["erasure"] = erased.about
    return AblationResult(config, curve, scores, answers, report, erasure)


def _fit(z: Floats, table: Table, name: str) -> LinearProbe:
    at = table.train[table.column(name)[table.train] != ""]
    labels = table.column(name)[at]
    classes = sorted(set(labels.tolist()))
    if len(classes) < 2 or len(at) < MIN_TRAIN:
        raise InterpError(
            f"the training clips hold {len(at)} clips with a {name}, of {', '.join(classes) or 'none'}; neurons can "
            f"be ranked for two classes or more over {MIN_TRAIN} clips or more: choose another column or split."
        )
    return LinearProbe(z[at], labels)


def _rank(z: Floats, table: Table, name: str, probe: LinearProbe, by: str) -> Ranked:
    at = table.train[table.column(name)[table.train] != ""]
    return ranked(z[at], table.column(name)[at], probe, by)


def _answerable(table: Table, rows: NDArray[np.intp], split: str) -> NDArray[np.intp]:
    kept = rows[np.isin(table.task[rows], table.labels)]
    if not len(kept):
        raise InterpError(
            f"none of the {len(rows)} {split} clips has a label that the head answers ({', '.join(table.labels)}; the "
            f"clips have {', '.join(sorted(set(table.task[rows].tolist()))) or 'none'}); name the head's labels in its "
            "order (--labels), or another column (--task)."
        )
    return kept


def _refusal(table: Table, name: str) -> str:
    """Why a probe cannot be measured in domain; "" where it can."""
    trained = set(table.column(name)[table.train].tolist()) - {""}
    here = sorted(set(table.column(name)[table.id].tolist()) & trained)
    if len(here) > 1:
        return ""
    held = f"all hold {here[0]!r}" if here else "hold none that was trained on"
    return f"the {len(table.id)} clips for validation in domain {held}; a {name} probe needs two classes there"


def _refitted(
    z: Floats, new: Floats, table: Table, name: str, at: NDArray[np.intp], masks: Bools, again: Sequence[int]
) -> Bools:
    """As `frozen`, the probe fitted on training clips with the same edit; rows that are not asked for stay False."""
    column = table.column(name)
    train = table.train[column[table.train] != ""]
    right = np.zeros((len(masks), len(at)), bool)
    for i in again:
        edited = np.where(masks[i], new, z)
        right[i] = LinearProbe(edited[train], column[train]).right(edited[at], column[at])
    return right


@dataclass(frozen=True, eq=False)
class _OfSets:
    """One measure: ranked sets with intervals, random draws as [draws] values by (set, k)."""

    ranked: dict[tuple[str, int], tuple[float, ...]]
    drawn: dict[tuple[str, int], Floats]
    base: float
    method: str


def _of_sets(
    sets: Sequence[NeuronSet],
    right: Bools,
    rows: dict[str, NDArray[np.intp]],
    name: str,
    table: Table,
    settings: AblateRequest,
) -> _OfSets:
    at = rows[name.replace("refit", "probe")]
    weights = np.full(len(at), 1 / len(at)) if name in HEADS else balance(table.column(name)[at])
    first = [i for i, chosen in enumerate(sets) if chosen.name in ("domain", "task")]
    found: Measured = measured(right[first], weights, table.units[at])
    limits = (found.value, found.low, found.high, found.change, found.change_low, found.change_high)
    ranked_ = {(sets[i].name, sets[i].k): tuple(float(v[j]) for v in limits) for j, i in enumerate(first)}
    drawn: dict[tuple[str, int], list[float]] = {}
    accuracy = right @ weights
    for i, chosen in enumerate(sets):
        if chosen.name in ("random", "matched") and (name not in REFITS or chosen.draw < settings.refits):
            drawn.setdefault((chosen.name, chosen.k), []).append(float(accuracy[i]))
    return _OfSets(ranked_, {key: np.asarray(v) for key, v in drawn.items()}, float(found.value[0]), found.method)


def _row(name: str, k: int, sets: Sequence[NeuronSet], found: dict[str, _OfSets]) -> dict[str, Any]:
    row: dict[str, Any] = {"set": name, "k": k, "draws": sum(s.name == name and s.k == k for s in sets)}
    ends = ("", "_low", "_high", "_change", "_change_low", "_change_high")
    for measure in MEASURES:
        values: tuple[float, ...] = (float("nan"),) * 6
        spread = float("nan")
        if measure in found and (name, k) in found[measure].ranked:
            values = found[measure].ranked[name, k]
        elif measure in found and (name, k) in found[measure].drawn:
            drawn, base = found[measure].drawn[name, k], found[measure].base
            band = np.percentile(drawn, [2.5, 97.5])
            spread = float(drawn.std())
            values = (float(drawn.mean()), *band.tolist(), float(drawn.mean()) - base, *(band - base).tolist())
        row |= {f"{measure}{end}": value for end, value in zip(ends, values, strict=True)}
        row[f"{measure}_std"] = spread
    return row


def _report(
    table: Table,
    rest: Downstream,
    rankings: dict[str, Ranked],
    sets: Sequence[NeuronSet],
    curve: pd.DataFrame,
    found: dict[str, _OfSets],
    refused: dict[str, str],
    settings: AblateRequest,
    ks: Sequence[int],
) -> dict[str, Any]:
    width, k = table.features.shape[1], verdict_k(table.features.shape[1])
    best = {name: rankings[name].order for name in rankings}
    domain_drawn = (
        found["domain_probe"].base - found["domain_probe"].drawn["random", k] if not refused["domain_probe"] else None
    )
    evidence = Evidence(
        k=k,
        domain_drop=float("nan") if domain_drawn is None else -found["domain_probe"].ranked["domain", k][3],
        random_drop=float("nan") if domain_drawn is None else float(np.percentile(domain_drawn, 97.5)),
        ood_change=found["head_ood"].ranked["domain", k][3],
        ood_low=found["head_ood"].ranked["domain", k][4],
        ood_high=found["head_ood"].ranked["domain", k][5],
        matched_change=float(found["head_ood"].drawn["matched", k].mean()) - found["head_ood"].base,
        task_change=float("nan") if refused["task_probe"] else found["task_probe"].ranked["domain", k][3],
        draws=0 if domain_drawn is None else len(domain_drawn),
        refused=refused["domain_probe"],
    )
    word, why = judge(evidence)
    areas = {}
    for name, rows in curve.groupby("set", sort=False):
        start = [0.0] if name in ("random", "matched") else []  # K = 0 has no draws
        for measure in (*HEADS, *PROBES):
            if measure in found:
                areas[f"{name}_{measure}"] = area(ks, [*start, *rows[f"{measure}_change"].tolist()])
    return {
        "verdict": word,
        "why": why,
        "evidence": asdict(evidence),
        "areas": areas,
        "overlap": {str(n): overlap(best["domain"][:n].tolist(), best["task"][:n].tolist(), width) for n in ks if n},
        "score_agreement": {name: rankings[name].agreement for name in rankings},
        "base": {name: found[name].base for name in found},
        "refused": {name: reason for name, reason in refused.items() if reason},
        "intervals": {name: found[name].method for name in found},
        "width": width,
        "doses": list(ks),
        "route": rest.route,
        "counts": {
            name: {
                "clips": len(rows),
                "units": len(set(table.units[rows].tolist())),
                "task": _counted(table.task[rows]),
                "domain": _counted(table.domain[rows]),
            }
            for name, rows in (("train", table.train), ("id", table.id), ("ood", table.ood))
        },
        "ablations": len(sets),
        "kind": settings.kind,
    }


def _counted(values: NDArray) -> dict[str, int]:
    return {str(name): int(count) for name, count in zip(*np.unique(values, return_counts=True), strict=True)}
