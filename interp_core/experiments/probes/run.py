"""At which layer and site can a linear probe read a label, or an acoustic quantity, of the clip?

Every clip runs once, unedited. A chunk of the reading is a batch of clips; what is read is fitted when all states are
there, and a chunk of that is a target. Related clips (the unit's) never stand on both sides of a fold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from interp_core.errors import InterpError
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.facts import before_semicolon
from interp_core.experiments.figures import sign
from interp_core.experiments.probes import figures, tables
from interp_core.experiments.probes.capture import Read, read_states
from interp_core.experiments.probes.limits import LIMITS
from interp_core.experiments.probes.plan import ALONE, Point, ProbesPlan, Target
from interp_core.experiments.probes.request import ProbesRequest
from interp_core.experiments.result import Result
from interp_core.jobs import Progress, silent
from interp_core.maths.probes import control_accuracy, family_test, linear_probe
from interp_core.maths.ridge import control_r2, ridge_probe, ridge_test
from interp_core.maths.stats import MaxTest
from interp_core.sinks import MEMORY, Sink, array_table, table_arrays

FITS = "fits"
FEWEST_CLIPS = 10
"""With a value, for a quantity to be read at all."""


@dataclass(frozen=True, eq=False, repr=False)
class ProbesResult(Result):
    """A finished run.

    Attributes:
        table: one row a target and point: target, is_label, site, place, layer (-1: what enters layer 0), n, units,
            unit, classes, score (balanced accuracy of a label, R2 of a quantity, on held-out units) with score_low and
            _high, accuracy (plain), chance, control, selectivity, p_adjusted (over all points of the target), and how
            each was made: interval_method, test, control_method, or the reason why there is none.
        predicted: by target, [points, clips of the target] what a held-out probe says: labels, or values.
        clips: by target, one row a clip: clip_id, unit, value.
    """

    table: pd.DataFrame
    predicted: Mapping[str, NDArray[Any]] = field(repr=False)
    clips: Mapping[str, pd.DataFrame] = field(repr=False)

    limits = LIMITS
    profile_x = "layer"

    @property
    def metrics(self) -> pd.DataFrame:
        """The table of all probes."""
        return self.table

    def tables(self) -> dict[str, pd.DataFrame]:
        return {"probes": self.table, "best": self.best, "clips": self.read_of()}

    @property
    def best(self) -> pd.DataFrame:
        """One row a target: the point that is named, or the best of those that chance would give."""
        return tables.best_points(self.table)

    def read_of(self) -> pd.DataFrame:
        """One row a target and clip: its value, and what the probe at the target's best point says of it, held out."""
        found = []
        for row in self.best.to_dict("records"):
            name = str(row["target"])
            said = self.at(name, str(row["site"]), str(row["place"]), int(row["layer"]))
            columns = {"target": name, "site": row["site"], "place": row["place"], "layer": row["layer"]}
            found.append(said.assign(**columns))
        if not found:
            return pd.DataFrame()
        every = pd.concat(found, ignore_index=True).astype({"value": str, "read": str})
        return every[["target", "site", "place", "layer", "clip_id", "unit", "value", "read"]]

    def at(self, target: str, site: str, place: str, layer: int) -> pd.DataFrame:
        """One row a clip: clip_id, unit, value, and what the held-out probe at a point reads."""
        rows = tables.of_target(self.table, target).reset_index(drop=True)
        here = rows[(rows["site"] == site) & (rows["place"] == place) & (rows["layer"] == layer)]
        if not len(here) or not len(self.predicted.get(target, ())):
            return self.clips[target].assign(read="") if target in self.clips else pd.DataFrame()
        return self.clips[target].assign(read=self.predicted[target][int(here.index[0])])

    def remarks(self) -> Sequence[str]:
        return tables.remarks(self.config, self.table)

    def profile(self) -> pd.DataFrame:
        return tables.curves(self.table)

    def figure(self) -> Figure:
        return sign(
            figures.curves_figure(self.config, self.table), self.signature(", ".join(self.config["settings"]["sites"]))
        )

    @property
    def counted(self) -> str:
        return f"n = {int(self.table['n'].max())} clips"

    @property
    def method(self) -> str:
        folds = self.config["settings"]["folds"]
        return f"logistic and ridge probes, {folds} folds; {before_semicolon(self.table['interval_method'])}".rstrip(
            "; "
        )


def run_probes(
    reader: ClipReader,
    plan: ProbesPlan,
    config: Mapping[str, Any],
    *,
    sink: Sink = MEMORY,
    progress: Progress = silent,
) -> ProbesResult:
    """Read every clip, then fit every probe.

    Args:
        reader: of the model, under the question. plan: what to read where.
        config: kept in the result.
        sink: takes chunks as they are done and gives back those that an earlier run finished.
        progress: called with (done, total, note) and may raise to cancel.
    """
    total = len(plan.clips) + len(plan.targets)

    def reading(done: int, total: int, note: str = "") -> None:
        progress(done, total + len(plan.targets), note)

    read = read_states(reader, plan, batch_size=plan.settings.batch_size, sink=sink, progress=reading)
    made: list[pd.DataFrame] = []
    predicted: dict[str, NDArray[Any]] = {}
    clips: dict[str, pd.DataFrame] = {}
    for number, target in enumerate(plan.targets):
        target, values = _values(target, read)
        saved = sink.arrays(FITS, number)
        if saved is None:
            table, said = fit(target, values, read, plan.points, plan.settings)
            saved = sink.keep_arrays(FITS, number, {**table_arrays(table=table), "predicted": said})
        table = array_table(saved, "table")
        made.append(table)
        predicted[target.name] = np.asarray(saved["predicted"])
        ids = [plan.clips[row].clip_id for row in target.rows]
        clips[target.name] = pd.DataFrame({"clip_id": ids, "unit": target.units, "value": values})
        sink.show(partial(tables.so_far, list(made)))
        progress(len(plan.clips) + number + 1, total, f"probes of {target.name}")
    found = pd.concat(made, ignore_index=True)
    if not found["score"].notna().any():
        raise InterpError(f"nothing could be read: {'; '.join(dict.fromkeys(found['reason']))}.")
    return ProbesResult(config, found, predicted, clips)


def _values(target: Target, read: Read) -> tuple[Target, NDArray[Any]]:
    """The values of a target; of a quantity, the clips that have one."""
    if target.is_label:
        return target, np.asarray(target.labels)
    values = read.measured[target.name][target.rows]
    kept = np.isfinite(values)
    return target.among(kept), values[kept]


def fit(
    target: Target, values: NDArray[Any], read: Read, points: Sequence[Point], settings: ProbesRequest
) -> tuple[pd.DataFrame, NDArray[Any]]:
    """The probes of one target at every point.

    Args:
        values: [n] labels or numbers, one a clip of the target.
    Returns:
        The rows of `ProbesResult.table`, and [points, n] held-out predictions; [points, 0] where there is no probe.
    """
    states = [read.at[point][target.rows] for point in points]
    groups = None if target.unit == ALONE else np.asarray(target.units)
    if not target.is_label and len(values) < FEWEST_CLIPS:
        reason = f"{len(values)} clips have a {target.name}, {FEWEST_CLIPS} needed"
        rows = [_row(target, point, len(values), reason) for point in points]
        return pd.DataFrame(rows), np.zeros((len(points), 0))
    test = _tested(target, values, states, groups, settings)
    rows, said = [], []
    for number, (point, x) in enumerate(zip(points, states, strict=True)):
        row, predicted = _one(target, values, x, groups, point, settings)
        if test.adjusted_p is not None and not row["reason"]:
            row["p_adjusted"] = float(test.adjusted_p[number])
        rows.append({**row, "test": test.method})
        said.append(predicted)
    return pd.DataFrame(rows), np.stack(said)


def _tested(
    target: Target, values: NDArray[Any], states: Sequence[NDArray], groups: NDArray | None, settings: ProbesRequest
) -> MaxTest:
    usual: dict[str, Any] = {"folds": settings.folds, "draws": settings.draws, "seed": settings.seed}
    if target.is_label:
        return family_test(states, values, groups, **usual)
    return ridge_test(states, values, groups, ridge=settings.ridge, **usual)


def _row(target: Target, point: Point, n: int, reason: str = "") -> dict[str, Any]:
    none = float("nan")
    return {
        "target": target.name, "is_label": target.is_label, "site": point.kind, "place": point.place,
        "layer": point.layer, "n": n, "units": len(set(target.units)), "unit": target.unit,
        "classes": len(set(target.labels)), "score": none, "score_low": none, "score_high": none, "accuracy": none,
        "chance": none, "control": none, "selectivity": none, "p_adjusted": none, "interval_method": "",
        "control_method": "", "reason": reason, "test": "",
    }  # fmt: skip


def _one(
    target: Target, values: NDArray[Any], x: NDArray, groups: NDArray | None, point: Point, settings: ProbesRequest
) -> tuple[dict[str, Any], NDArray[Any]]:
    """One probe with its control task."""
    row, folds, seed = _row(target, point, len(values)), settings.folds, settings.seed
    alone = np.arange(len(values)) if groups is None else groups
    often: dict[str, Any] = {"folds": folds, "draws": settings.controls, "seed": seed}
    if target.is_label:
        label = linear_probe(
            x, values.tolist(), groups, folds=folds, strengths=(settings.strength,), draws=0, seed=seed
        )
        score, interval, reason, said = label.accuracy, label.interval, label.reason, np.asarray(label.predicted)
        row |= {"chance": label.chance}
        if not reason:
            row["accuracy"] = float(np.mean(said == values))
            if settings.controls:
                found = control_accuracy(x, values, alone, strength=settings.strength, **often)
                row["control"], row["control_method"] = found
                row["selectivity"] = score - found[0]
    else:
        number = ridge_probe(x, values, groups, folds=folds, ridge=settings.ridge, seed=seed)
        score, interval, reason, said = number.r2, number.interval, number.reason, number.predicted
        row |= {"chance": 0.0}
        if not reason and settings.controls:
            found = control_r2(x, values, alone, ridge=settings.ridge, **often)
            row["control"], row["control_method"] = found
            row["selectivity"] = score - (max(0.0, found[0]) if found[0] == found[0] else found[0])
    row |= {"score": score, "score_low": float(interval.low[0]), "score_high": float(interval.high[0])}
    return row | {"interval_method": interval.method, "reason": reason}, said
