"""One pair of a run on paper: the curve of its kind, both spectrograms, and its label logits at one layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.special import softmax

from interp_core.data.mel import MEL_FLOOR_DB, MEL_STEP_DB, mel_levels, pitch_marks
from interp_core.experiments.example import Example, Sound
from interp_core.experiments.facts import signature
from interp_core.experiments.figures import Figure, quiet, sign, style
from interp_core.experiments.patching.figures import LAYERS, flip_rate_panel, layer_ticks
from interp_core.experiments.patching.request import donor_in_title, donor_of
from interp_core.looks import BLUE, GREY, PATCHING, RUNS, VERMILLION

SHOWN_DB = 70.0
"""Of both spectrograms, below the louder one's peak."""


@dataclass(frozen=True)
class CurvePoint:
    """Where in a run a pair is looked at: kind of pair, question, strength, layer (-1 for the embeddings)."""

    kind: str
    prompt: int
    alpha: float
    layer: int

    def metrics(self, metrics: pd.DataFrame) -> pd.DataFrame:
        """Of the matched patch at this strength; controls at theirs."""
        rows = metrics[(metrics["kind"] == self.kind) & (metrics["prompt"] == self.prompt)]
        return rows[(rows["condition"] != "matched") | (rows["alpha"] == self.alpha)]

    def records(self, records: pd.DataFrame) -> pd.DataFrame:
        """Of the matched patch, one row a pair, by pair_id."""
        matched = records[(records["condition"] == "matched") & (records["kind"] == self.kind)]
        here = (matched["prompt"] == self.prompt) & (matched["alpha"] == self.alpha) & (matched["layer"] == self.layer)
        return matched[here].set_index("pair_id")


def flipped(rows: pd.DataFrame) -> pd.Series:
    """Which records are a flip to the target: it was not the answer before, and is now."""
    return (rows["base_prediction"] != rows["target"]) & (rows["patched_prediction"] == rows["target"])


def best_layer(rows: pd.DataFrame) -> int:
    """The layer with the highest headline rate of matched metrics, the last of those that share it: there the effect is
    still whole, and is about to end.
    """
    rows = rows.sort_values("layer")
    rates = rows["flip_to_target_rate_reachable"].fillna(-1)
    return int(rows.loc[rates[rates >= rates.max()].index[-1], "layer"])


def examples(
    config: Mapping[str, Any], records: pd.DataFrame, metrics: pd.DataFrame, kinds: Sequence[str], most: int
) -> list[Example]:
    """Pairs at the layer where most of their kind flip, those that flip first; the kinds in turn."""
    found: list[list[Example]] = []
    alpha = float(records.loc[records["condition"] == "matched", "alpha"].max())
    for kind in kinds:
        place = CurvePoint(kind, 0, alpha, -1)
        of_kind = place.metrics(metrics)
        place = CurvePoint(kind, 0, alpha, best_layer(of_kind[of_kind["condition"] == "matched"]))
        rows = place.records(records)
        rows = rows.assign(flips=flipped(rows)).sort_values("flips", ascending=False, kind="stable").head(most)
        found.append([_example(config, row, metrics, place) for _, row in rows.iterrows()])
    turns = [one[turn] for turn in range(most) for one in found if turn < len(one)]
    return turns[:most]


def _example(config: Mapping[str, Any], row: pd.Series, metrics: pd.DataFrame, place: CurvePoint) -> Example:
    donor = donor_of(config["settings"])
    said = (
        f"A is answered {row['base_prediction']!r}, B {row['donor_prediction']!r}; with {donor} at "
        f"{_named(place.layer)}, alpha {place.alpha:g}, A is answered {row['patched_prediction']!r} (target "
        f"{row['target']!r})."
    )
    draw = partial(pair_figure, config, row, metrics, place)
    return Example(str(row.name), row["recipient"], row["donor"], said, draw)


def pair_figure(
    config: Mapping[str, Any], row: pd.Series, metrics: pd.DataFrame, place: CurvePoint, a: Sound, b: Sound
) -> Figure:
    """Both spectrograms on one scale of dB and one of time, above the curve of the kind and the logits of the pair.

    Args:
        config: of the run.
        row: the pair's record at the place; its name is the pair's id.
        metrics: of the whole run.
        a, b: the recordings.
    """
    figure = Figure(figsize=(10, 8), dpi=150, layout="constrained", facecolor="white")
    grid = figure.subplots(2, 2, height_ratios=(1, 1.25))
    settings = config["settings"]
    n = int(place.metrics(metrics).query("condition == 'matched'")["n"].max())
    patched = f"{settings['positions']} positions{donor_in_title(settings)}"
    about = signature(config, str(settings["site"]), patched, f"route {row['method']}")
    asked = f" · question {place.prompt + 1}" if len(settings["prompts"]) > 1 else ""
    title = (
        f"Pair {row.name}, {_named(place.layer)}, alpha {place.alpha:g}{asked} · {place.kind} pairs (n = {n})\n{about}"
    )
    figure.suptitle(title, fontsize=10, parse_math=False)
    _spectrograms(grid[0], (a, b), (str(row["base_prediction"]), str(row["donor_prediction"])))
    curve: Axes = grid[1, 0]
    flip_rate_panel(curve, place.metrics(metrics), place.prompt)
    curve.axvline(place.layer, color=GREY, linewidth=1.2, zorder=1)
    _logits(grid[1, 1], settings["labels"], row)
    return figure


def hand_figure(
    records: pd.DataFrame,
    labels: Sequence[str],
    layer: int,
    sounds: tuple[Sound, Sound],
    about: str,
    others: Mapping[str, pd.DataFrame] = MappingProxyType({}),
) -> Figure:
    """Two clips by hand, with no run around them: both spectrograms, the probability of the target after a patch at
    each layer, and the label logits at one.

    Args:
        records: one row a layer, at one strength; filled markers are layers at which the target is the answer.
        others: name of another question -> records of the same clips under it.
        about: the lines of `signature`.
    """
    figure = Figure(figsize=(10, 8), dpi=150, layout="constrained", facecolor="white")
    grid = figure.subplots(2, 2, height_ratios=(1, 1.25))
    row = records[records["layer"] == layer].iloc[0]
    said = f"answered {row['patched_prediction']}, target {row['target']}"
    title = f"{sounds[1].label} in {sounds[0].label} at {_named(layer)}: {said}"
    figure.suptitle(title, fontsize=10, parse_math=False)
    _spectrograms(grid[0], sounds, (str(row["base_prediction"]), str(row["donor_prediction"])))
    curve: Axes = grid[1, 0]
    for number, (name, rows) in enumerate(others.items()):
        look: dict[str, Any] = {"color": GREY, "marker": "sxDv"[number % 4], "linestyle": "--", "linewidth": 1}
        said = f"asked {name}, toward {rows['target'].iloc[0]}"
        curve.plot(rows["layer"], target_probabilities(rows, labels, "patched"), label=said, markersize=4, **look)
    values = target_probabilities(records, labels, "patched")
    matched = PATCHING["matched"]
    curve.plot(records["layer"], values, label=matched.name, linewidth=2, markerfacecolor="white", **style(matched))
    wins = (records["patched_prediction"] == records["target"]).to_numpy()
    filled = {**style(matched), "linestyle": ""}
    curve.plot(records["layer"][wins], values[wins], label="filled: the target is the answer", **filled)
    for run, words in (("base", "A as it is"), ("donor", "B as it is")):
        value = target_probabilities(records, labels, run)[0]
        curve.axhline(value, label=words, color=RUNS[run].colour, linestyle=":", linewidth=1.2)
    curve.axvline(layer, color=GREY, linewidth=1.2, zorder=1)
    quiet(curve)
    layer_ticks(curve, sorted(map(int, records["layer"])))
    curve.set(xlabel=LAYERS, ylabel=f"probability of {row['target']}", ylim=(-0.03, 1.03))
    for text in curve.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2).get_texts():
        text.set_parse_math(False)
    _logits(grid[1, 1], labels, row)
    return sign(figure, about)  # type: ignore[return-value]


def target_probabilities(records: pd.DataFrame, labels: Sequence[str], run: str) -> np.ndarray:
    """[layers] the target's probability among the labels, in the run "base", "donor" or "patched"."""
    logits = np.array(records[f"{run}_logits"].tolist(), float)
    at = [list(labels).index(target) for target in records["target"]]
    return np.asarray(softmax(logits, axis=1)[np.arange(len(at)), at])


def _named(layer: int) -> str:
    return "the embeddings" if layer == -1 else f"layer {layer}"


def _spectrograms(grid: Sequence[Axes], sounds: tuple[Sound, Sound], answers: tuple[str, str]) -> None:
    drawn = [mel_levels(sound.samples, sound.sample_rate) for sound in sounds]
    levels = [MEL_FLOOR_DB + MEL_STEP_DB * values.astype(float) for values, _ in drawn]
    top = max(float(values.max()) for values in levels)
    longest = max(len(sound.samples) / sound.sample_rate for sound in sounds)
    for axes, side, sound, answer, colour, values, (_, step) in zip(
        grid, "AB", sounds, answers, (BLUE, VERMILLION), levels, drawn, strict=True
    ):
        extent = (-step / 2, (values.shape[1] - 0.5) * step, 0, 1)
        axes.imshow(
            values, aspect="auto", origin="lower", extent=extent, cmap="Greys", vmin=top - SHOWN_DB, vmax=top,
            interpolation="nearest",
        )  # fmt: skip
        marks = pitch_marks(sound.sample_rate)
        axes.set_yticks([mark["share"] for mark in marks], [mark["text"] for mark in marks], fontsize=8)
        axes.set(xlim=(0, longest), xlabel="seconds")
        title = f"{side}: {sound.label}, answered {answer}"
        axes.set_title(title, color=colour, fontsize=9, loc="left", parse_math=False)


def _logits(axes: Axes, labels: Sequence[str], row: pd.Series) -> None:
    at = np.arange(len(labels))
    for run, column in (("base", "base_logits"), ("donor", "donor_logits"), ("patched", "patched_logits")):
        look = RUNS[run]
        axes.plot(row[column], at, label=look.name, **style(look) | {"linestyle": ""})
    names = [f"{label} (target)" if label == row["target"] else str(label) for label in labels]
    quiet(axes)
    axes.set_yticks(at, names, fontsize=9, parse_math=False)
    axes.set(ylim=(len(labels) - 0.5, -0.5), xlabel="logit")
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
