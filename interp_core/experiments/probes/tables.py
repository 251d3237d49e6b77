"""What the table of probes says: the point that is named, curves, sentences."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from interp_core.experiments.probes.request import EMB
from interp_core.experiments.wording import p_said
from interp_core.maths.stats import SIGNIFICANT

NAMES = {
    "f0": "median F0", "level": "level", "rate": "modulation rate", "centroid": "spectral centroid",
    "duration": "duration",
}  # fmt: skip
PLACE_NAMES = {"mean": "mean over the recording", "last": "last position"}


def name_of(target: str, is_label: bool) -> str:
    """A target for a person."""
    return target if is_label else NAMES.get(target, target)


def layer_name(layer: int) -> str:
    """As on a chart: `emb` is what enters layer 0."""
    return "emb" if layer == EMB else f"layer {layer}"


def of_target(table: pd.DataFrame, target: str) -> pd.DataFrame:
    """The rows of one target, in the order of the points."""
    return table[table["target"] == target]


def targets(table: pd.DataFrame) -> list[str]:
    """Every target, in the run's order."""
    return [str(name) for name in dict.fromkeys(table["target"])]


def share(row: Mapping[str, Any]) -> float:
    """A score on one scale for labels and quantities: 0 is chance (the mean of all values), 1 is everything read."""
    return (row["score"] - row["chance"]) / (1 - row["chance"])


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """The score of every target by layer, a series a target, site and place: series, x, value."""
    series = table["target"] + ": " + table["site"] + ", " + table["place"]
    return pd.DataFrame({"series": series.to_numpy(), "x": table["layer"].to_numpy(), "value": table["score"]})


def so_far(made: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """What a run shows while it goes on: the curves of the targets that are through, and the clips they rest on."""
    table = pd.concat(made, ignore_index=True)
    return curves(table).assign(n=table["n"].to_numpy())


def best_points(table: pd.DataFrame) -> pd.DataFrame:
    """One row a target: the highest score among the points beyond chance, or among all where none is; `beyond` says
    how many are, of `points`."""
    found = []
    for name in targets(table):
        rows = of_target(table, name).dropna(subset=["score"])
        if not len(rows):
            continue
        sure = rows[rows["p_adjusted"] < SIGNIFICANT]
        among = sure if len(sure) else rows
        best = among.loc[[among["score"].idxmax()]]
        found.append(best.assign(beyond=len(sure), points=len(rows)))
    return pd.concat(found, ignore_index=True) if found else table.head(0).assign(beyond=0, points=0)


def named(table: pd.DataFrame, target: str) -> pd.Series | None:
    """The point that is named as the one at which a target is read best; None where none is beyond chance."""
    best = best_points(of_target(table, target))
    return best.iloc[0] if len(best) and best.iloc[0]["beyond"] else None


def score_of(row: Mapping[str, Any]) -> str:
    """A score in words, with its interval."""
    known = row["score_low"] == row["score_low"]
    if row["is_label"]:
        ends = f" ({100 * row['score_low']:.0f} to {100 * row['score_high']:.0f} %)" if known else ""
        return f"balanced accuracy {100 * row['score']:.0f} %{ends}"
    ends = f" ({row['score_low']:.2f} to {row['score_high']:.2f})" if known else ""
    return f"R2 {row['score']:.2f}{ends}"


def beside_of(row: Mapping[str, Any]) -> str:
    """What a score is to be held against: chance and the control task."""
    said = [f"chance {100 * row['chance']:.0f} %"] if row["is_label"] else []
    if row["control"] == row["control"]:
        said.append(
            f"control task {100 * row['control']:.0f} %" if row["is_label"] else f"control {row['control']:.2f}"
        )
    return ", ".join(said)


def summary(table: pd.DataFrame) -> Iterator[str]:
    """A sentence a target, and one for each that could not be read."""
    for row in best_points(table).to_dict("records"):
        name = name_of(str(row["target"]), bool(row["is_label"]))
        where = f"{layer_name(int(row['layer']))}, {row['site']}, {PLACE_NAMES[row['place']]}"
        beside = beside_of({str(key): value for key, value in row.items()})
        told = score_of({str(key): value for key, value in row.items()}) + (f"; {beside}" if beside else "")
        of = f"n = {row['n']} clips" + (f" of {row['units']} {row['unit']}" if row["unit"] != "none" else "")
        if row["p_adjusted"] != row["p_adjusted"]:
            yield f"{name}: best at {where}: {told}; {of}; {row['test']}"
        elif row["beyond"]:
            sure = f"{row['beyond']} of {row['points']} points beyond chance (adjusted p < {SIGNIFICANT})"
            yield f"{name}: best at {where}: {told}; {of}; {sure}"
        else:
            least = p_said(_least(table, row))
            yield f"{name}: no point beyond chance (least adjusted {least}); {told} at {where}; {of}"
    for name in targets(table):
        rows = of_target(table, name)
        if not rows["score"].notna().any():
            label = name_of(name, bool(rows["is_label"].iloc[0]))
            yield f"{label}: not read: {'; '.join(dict.fromkeys(rows['reason']))}"


def _least(table: pd.DataFrame, row: Mapping[Any, Any]) -> float:
    return float(np.nanmin(of_target(table, str(row["target"]))["p_adjusted"]))


def remarks(config: Mapping[str, Any], table: pd.DataFrame) -> list[str]:
    """What a reader has to know before the numbers."""
    found = [f"of {name}, left out: {said}" for name, said in config.get("classes_left_out", {}).items() if said]
    quiet = [row for row in table.drop_duplicates("target").to_dict("records") if row["reason"]]
    found += [f"{name_of(str(row['target']), bool(row['is_label']))} is not read: {row['reason']}" for row in quiet]
    if read := config.get("read_directly"):
        found.append(
            f"the answer is read off layer {read[-1]} by a linear head: that a probe reads it there is by construction"
        )
    return found
