"""The table of a steering run: how many clips each strength of each vector moves, beside what controls move."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_softmax

from interp_core.data.clips import Clip
from interp_core.data.columns import cluster_map
from interp_core.maths.arrays import Floats
from interp_core.maths.draws import FEWEST_DRAWS, draw_rank_test, larger_of
from interp_core.maths.stats import Interval, MaxTest, rate_intervals, sign_flip_max_test

HALF = 0.5
CELL = ["layer", "alpha"]
NOWHERE = -99
"""Stands for no layer while tables are made."""
FEW = 5
"""Clips of a label under which its mean is called one of few."""


def copies(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> pd.DataFrame:
    """One row a copy: clip_id, prompt, condition, label, layer, alpha, draw, answer, mass, eligible, moved, changed,
    and logprob: the change of the label's log-probability among the answers, in nats.

    A clip is eligible for a label that it is not answered by itself; it has moved where it is answered so.

    Args:
        rows: records. labels: the answers in the order of the logits.
    """
    base = {(row["clip_id"], row["prompt"]): row for row in rows if row["condition"] == "base"}
    found: list[tuple[Any, ...]] = []
    for row in rows:
        before = base[row["clip_id"], row["prompt"]]
        own, label = before["answer"][0], row["label"]
        gain = np.full(len(row["answer"]), np.nan)
        if label in labels:
            place = labels.index(label)
            was = log_softmax(np.asarray(before["logits"][0], float))[place]
            gain = log_softmax(np.asarray(row["logits"], float), axis=1)[:, place] - was
        layer = NOWHERE if row["layer"] is None or row["layer"] != row["layer"] else int(row["layer"])
        for i, answer in enumerate(row["answer"]):
            found.append(
                (
                    row["clip_id"], row["prompt"], row["condition"], label, layer, float(row["alpha"][i]),
                    row["draw"][i], answer, row["label_mass"][i], own != label, own != label == answer, own != answer,
                    gain[i],
                )
            )  # fmt: skip
    columns = ["clip_id", "prompt", "condition", "label", *CELL, "draw", "answer", "mass", "eligible", "moved"]
    return pd.DataFrame(found, columns=[*columns, "changed", "logprob"])


def dose_table(
    rows: Sequence[Mapping[str, Any]],
    clips: Sequence[Clip],
    labels: Sequence[str],
    columns: Sequence[str],
    units: str,
) -> pd.DataFrame:
    """What every strength of every vector did, one row a (prompt, condition, label, layer, alpha).

    Args:
        rows: records of the run.
        clips: that were steered; labels: the answers in the order of the logits.
        columns: label columns against which accuracy is counted.
        units: the column whose values intervals draw.
    Returns:
        n clips, n_units; eligible, and moved_rate of them; changed_rate of all; logprob_change_mean; label_mass_mean;
        for each of `columns` its n_, accuracy_ and accuracy_change_ from the unsteered clips. Every rate has _low and
        _high, or interval_method says why not. Random copies of a clip are averaged first. p_adjusted: of condition
        vector under the first prompt, over the label's layers at strengths at which every clip met every random vector:
        the larger p of its rank among them (`draw_rank_test`) and of moved by it minus moved by them (sign flips by
        unit); NaN under 20 random vectors. p_random: the share of random vectors that move as many, cell by cell.
    """
    frame = copies(rows, labels)
    ids = [clip.clip_id for clip in clips]
    unit_of = cluster_map(clips, units)
    truth = {column: {clip.clip_id: clip.label(column) for clip in clips} for column in columns}
    made: list[pd.DataFrame] = []
    moved: dict[tuple[str, str], _Part] = {}
    for key, group in frame.groupby(["prompt", "condition", "label"], sort=False):
        prompt, condition, label = int(str(key[0])), str(key[1]), str(key[2])
        part = _Part(group, ids, unit_of)
        made.append(
            pd.DataFrame(
                {"prompt": prompt, "condition": condition, "label": label, **part.numbers(frame, truth, labels)}
            )
        )
        if prompt == 0:
            moved[condition, label] = part
    dose = pd.concat(made, ignore_index=True)
    dose["p_random"], dose["p_adjusted"] = np.nan, np.nan
    for (condition, label), part in moved.items():
        control = moved.get(("random", label))
        if condition == "vector" and control is not None:
            here = (dose["prompt"] == 0) & (dose["condition"] == "vector") & (dose["label"] == label)
            _compare(dose, here, part, control)
    return dose.assign(layer=dose["layer"].astype(float).replace(NOWHERE, np.nan))


class _Part:
    """The copies of one question, condition and label as [n_clips, n_cells]; a cell is a layer and a strength."""

    def __init__(self, group: pd.DataFrame, ids: Sequence[str], unit_of: Mapping[str, str]) -> None:
        self.cells = list(group[CELL].drop_duplicates().itertuples(index=False, name=None))
        self._group = group
        self.ids = ids
        self.units = np.array([unit_of[clip_id] for clip_id in ids])
        cell = group.groupby(CELL, sort=False).ngroup().to_numpy()
        row = pd.Index(ids).get_indexer(pd.Index(group["clip_id"]))
        assert (row >= 0).all(), "every copy is of a steered clip"
        self._places = row * len(self.cells) + cell
        self.moved, self._changed = self.grid(group["moved"]), self.grid(group["changed"])
        first = group.drop_duplicates("clip_id").set_index("clip_id")
        self.eligible = first["eligible"].reindex(list(ids)).to_numpy(bool)

    def grid(self, values: pd.Series) -> NDArray[np.float64]:
        """[n_clips, n_cells] of a column, or of a series beside the group; draws of a clip averaged."""
        means = pd.Series(values.to_numpy(float)).groupby(self._places).mean()
        table = np.full((len(self.ids), len(self.cells)), np.nan)
        table.flat[means.index] = means
        return table

    def by_draw(self, cell: tuple[int, float]) -> NDArray[np.float64]:
        """[draws] how often each random vector moved eligible clips in a cell; empty unless each met all of them."""
        here = (self._group["layer"] == cell[0]) & (self._group["alpha"] == cell[1]) & self._group["eligible"]
        rows = self._group[here]
        count = rows.groupby("draw")["clip_id"].nunique()
        if not len(count) or (count < self.eligible.sum()).any():
            return np.array([])
        return rows.groupby("draw")["moved"].mean().to_numpy(float)

    def numbers(
        self, frame: pd.DataFrame, truth: Mapping[str, Mapping[str, str | None]], labels: Sequence[str]
    ) -> dict[str, Any]:
        """The columns of `dose_table`, without what they are of."""
        layers, alphas = zip(*self.cells, strict=True)
        found: dict[str, Any] = {"layer": layers, "alpha": alphas, "n": len(self.ids)}
        found |= {"n_units": len(set(self.units)), "eligible": int(self.eligible.sum())}
        notes: list[str] = []
        steered = self._group["condition"].iloc[0] != "base"
        found |= _rate("moved_rate", self.moved, self.eligible & steered, self.units, notes)
        found |= _rate("changed_rate", self._changed, np.ones(len(self.ids), bool), self.units, notes)
        found["logprob_change_mean"] = self.grid(self._group["logprob"]).mean(axis=0)
        found["label_mass_mean"] = self.grid(self._group["mass"]).mean(axis=0)
        prompt = self._group["prompt"].iloc[0]
        before = frame[(frame["prompt"] == prompt) & (frame["condition"] == "base")].set_index("clip_id")["answer"]
        for column, of_clip in truth.items():
            known = np.array([of_clip[clip_id] in labels for clip_id in self.ids])
            right = self._group["answer"] == self._group["clip_id"].map(of_clip)
            now = self.grid(right)
            was = np.array([before[clip_id] == of_clip[clip_id] for clip_id in self.ids], float)
            found |= _accuracy(column, now, was, known, self.units)
        found["interval_method"] = notes[0 if steered else 1]
        return found


def _rate(
    name: str, values: NDArray[np.float64], counted: NDArray[np.bool_], units: NDArray[np.str_], notes: list[str]
) -> dict[str, NDArray[np.float64]]:
    """A rate over the counted clips, [n_cells], with its interval; what kind of interval is added to `notes`."""
    if not counted.any():
        notes.append("no interval: no clip counts")
        nothing = np.full(values.shape[1], np.nan)
        return {name: nothing, f"{name}_low": nothing, f"{name}_high": nothing}
    interval, _ = rate_intervals(values[counted], units[counted].tolist())
    notes.append(interval.method)
    return {name: values[counted].mean(axis=0), f"{name}_low": interval.low, f"{name}_high": interval.high}


def _accuracy(
    column: str, now: NDArray[np.float64], was: NDArray[np.float64], known: NDArray[np.bool_], units: NDArray[np.str_]
) -> dict[str, Any]:
    """Accuracy against a column and its change from the unsteered clips, [n_cells] each, with intervals."""
    names = [f"accuracy_{column}", f"accuracy_change_{column}"]
    found: dict[str, Any] = {f"n_{column}": int(known.sum())}
    if not known.any():
        return found | {f"{name}{end}": np.nan for name in names for end in ("", "_low", "_high")}
    both = np.column_stack([was, now])[known]
    rates, changes = rate_intervals(both, units[known].tolist())
    mean = both.mean(axis=0)
    for name, values, interval in ((names[0], mean, rates), (names[1], mean - mean[0], changes)):
        limits: Interval = interval
        found |= {name: values[1:], f"{name}_low": limits.low[1:], f"{name}_high": limits.high[1:]}
    return found


def _compare(dose: pd.DataFrame, here: pd.Series, part: _Part, control: _Part) -> None:
    """Put p of a label's vector against random ones into its rows, and the test into their method."""
    if not part.eligible.any():
        return
    rows = dose[here]
    cells = list(zip(rows["layer"].astype(int), rows["alpha"].astype(float), strict=True))
    drawn = {cell: found for cell in cells if len(found := control.by_draw(cell))}
    whole = [cell for cell in part.cells if cell in drawn]
    test = _against_draws(part, control, whole, drawn)
    adjusted = dict(zip(whole, test.adjusted_p, strict=True)) if test.adjusted_p is not None else {}
    by_draw: list[float] = []
    for cell, rate in zip(cells, rows["moved_rate"], strict=True):
        reached = (drawn.get(cell, np.array([])) >= rate).sum()
        by_draw.append((1 + int(reached)) / (1 + len(drawn[cell])) if len(drawn.get(cell, ())) > 1 else np.nan)
    dose.loc[here, "p_random"] = by_draw
    dose.loc[here, "p_adjusted"] = [adjusted.get(cell, np.nan) for cell in cells]
    dose.loc[here, "interval_method"] = rows["interval_method"] + f"; p, against random vectors: {test.method}"


def _against_draws(
    part: _Part, control: _Part, cells: Sequence[tuple[int, float]], drawn: Mapping[tuple[int, float], Floats]
) -> MaxTest:
    """The larger p of the vector's rank among random ones and of sign flips over units, in the cells in which every
    random vector met every clip."""
    if not cells:
        why = "each clip met one of the random vectors, so they cannot be ranked; --every-draw lets each meet all"
        return MaxTest(None, None, 0, f"not testable: {why}")
    places = [part.cells.index(cell) for cell in cells]
    ours = part.moved[:, places][part.eligible]
    theirs = control.moved[:, [control.cells.index(cell) for cell in cells]][part.eligible]
    over_draws = draw_rank_test(ours.mean(axis=0), np.stack([drawn[cell] for cell in cells], axis=1))
    if over_draws.adjusted_p is None:
        over_draws = replace(over_draws, method=f"{over_draws.method} (--draws {FEWEST_DRAWS})")
    return larger_of(sign_flip_max_test(ours - theirs, part.units[part.eligible].tolist()), over_draws)


def moved_by(dose: pd.DataFrame, condition: str, prompt: int = 0) -> pd.DataFrame:
    """The rows of a condition."""
    return dose[(dose["condition"] == condition) & (dose["prompt"] == prompt)]


def smallest_alpha(dose: pd.DataFrame) -> pd.DataFrame:
    """Per label and layer the smallest strength that moves half of the eligible clips.

    Returns:
        label, layer, alpha (NaN where none does), eligible, moved_rate there (else the largest of any strength), and
        random_rate: what the random vectors move there.
    """
    random = moved_by(dose, "random").set_index(["label", *CELL])["moved_rate"]
    found = []
    for (label, layer), rows in moved_by(dose, "vector").groupby(["label", "layer"], sort=False):
        rows = rows.sort_values("alpha")
        enough = rows[rows["moved_rate"] >= HALF]
        best = int(rows["moved_rate"].fillna(-1).to_numpy().argmax())
        row = enough.iloc[0] if len(enough) else rows.iloc[best]
        found.append(
            {
                "label": label,
                "layer": int(float(str(layer))),
                "alpha": float(row["alpha"]) if len(enough) else np.nan,
                "eligible": int(row["eligible"]),
                "moved_rate": float(row["moved_rate"]),
                "random_rate": float(random.get((label, layer, row["alpha"]), np.nan)),
            }
        )
    return pd.DataFrame(found)


def best_layer(dose: pd.DataFrame, label: str) -> int:
    """The layer at which the least strength moves half of a label's clips; of those that share it, that which moves the
    most over all strengths."""
    rows = moved_by(dose, "vector")
    rows = rows[rows["label"] == label]
    half = smallest_alpha(dose).set_index(["label", "layer"])["alpha"].fillna(np.inf)
    total = {
        int(str(layer)): float(part.sum()) for layer, part in rows.groupby(rows["layer"].astype(int))["moved_rate"]
    }
    return min(total, key=lambda layer: (half[label, layer], -total[layer]))


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of label, layer, alpha and value as curves over layers, one a label and strength: series, x, value, n."""
    series = [
        f"{label} at alpha {alpha:g}: clips moved" for label, alpha in zip(rows["label"], rows["alpha"], strict=True)
    ]
    rows = rows.assign(series=series, x=rows["layer"].astype(int))
    rows = rows.sort_values(["label", "alpha", "layer"], kind="stable")
    return rows[["series", "x", *(name for name in ("value", "n") if name in rows)]].reset_index(drop=True)


def so_far(rows: Sequence[Mapping[str, Any]], labels: Sequence[str], control: float) -> pd.DataFrame:
    """Rates of the clips that are through, at the controls' strength, as `SteeringResult.profile` has them.

    Args:
        rows: records, to which another thread may add meanwhile.
    """
    frame = copies(list(rows), labels)
    here = (frame["condition"] == "vector") & (frame["prompt"] == 0) & (frame["alpha"] == control) & frame["eligible"]
    rates = frame[here].groupby(["label", *CELL], sort=False)["moved"].agg(value="mean", n="size").reset_index()
    return curves(rates)


def remarks(config: Mapping[str, Any], dose: pd.DataFrame) -> list[str]:
    """What a reader has to know before the numbers."""
    settings, halves = config["settings"], config["halves"]
    fitted, steered = halves["fitted_on"], halves["steered"]
    source = f"the vectors of {halves['vector']['path']}" if halves.get("vector") else (
        f"vectors fitted on {fitted['clips']} clips ({fitted['units']} of {settings['units']})"
    )  # fmt: skip
    said = [f"{source}, added to {steered['clips']} others ({steered['units']} of {settings['units']})"]
    if none := [label for label, rows in moved_by(dose, "vector").groupby("label") if not rows["eligible"].max()]:
        said.append(f"every clip is answered {' or '.join(map(repr, none))} by itself: there is nothing to move to it")
    if direct := config.get("read_directly"):
        said.append(
            f"behind layer {direct[-1]} the head reads the steered positions themselves: a vector moves the answer "
            "there as it would in any linear classifier"
        )
    return said
