"""The PNG of a steering run: how many clips each strength moves, beside the controls; which strength moves half."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from scipy.special import softmax

from interp_core.experiments.example import Example, Sound
from interp_core.experiments.facts import signature
from interp_core.experiments.figures import Figure, quiet, style
from interp_core.experiments.steering.tables import HALF, best_layer, moved_by, smallest_alpha
from interp_core.looks import BLUE, GREY, STEERING
from interp_core.request import short_name

MOST_PANELS = 6


def dose_figure(config: Mapping[str, Any], dose: pd.DataFrame) -> Figure:
    """A panel a label: the share of clips that each strength moves to it, behind its best layer with a 95 % interval
    and behind the others faintly, and the controls; below, for every label and layer, the strength that moves half.
    """
    labels = list(dict.fromkeys(moved_by(dose, "vector")["label"]))
    shown = labels[:MOST_PANELS]
    halves = config["halves"]
    width = max(7.0, 1.2 + 3.1 * len(shown))
    figure = Figure(figsize=(width, 7.2 + 0.25 * len(labels)), dpi=130, layout="constrained")
    figure.suptitle(
        f"{short_name(str(config['model']['id']))}: a label's direction added to the states of "
        f"{halves['steered']['clips']} clips",
        fontsize=10,
        parse_math=False,
    )
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.5, 1))
    top, bottom = parts
    panels = top.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, label in zip(panels, shown, strict=True):
        _panel(axes, dose, label)
    left = f" ({len(shown)} of {len(labels)} labels)" if len(shown) < len(labels) else ""
    panels[0].set_ylabel(f"clips moved to the label{left}, %")
    _halves(bottom.subplots(), dose, labels)
    return figure


def _panel(axes: Axes, dose: pd.DataFrame, label: str) -> None:
    layer = best_layer(dose, label)
    rows = moved_by(dose, "vector")
    rows = rows[rows["label"] == label]
    alphas = sorted(rows["alpha"].unique())
    for other, curve in rows.groupby("layer"):
        if other != layer:
            curve = curve.sort_values("alpha")
            at = [alphas.index(alpha) for alpha in curve["alpha"]]
            axes.plot(at, curve["moved_rate"], color=STEERING["vector"].colour, alpha=0.25, linewidth=0.8)
    for condition in [name for name in STEERING if name != "prompt"]:
        part = moved_by(dose, condition)
        part = part[(part["label"] == label) & (part["layer"] == layer)].sort_values("alpha")
        if not len(part):
            continue
        at = [alphas.index(alpha) for alpha in part["alpha"]]
        look = STEERING[condition]
        name = f"{look.name} (n = {int(part['eligible'].max())})" if condition == "vector" else look.name
        axes.plot(at, part["moved_rate"], label=name, linewidth=2.2 if look.strong else 1.2, **style(look))
        if condition == "vector":
            low, high = (part[f"moved_rate_{end}"].to_numpy(float) for end in ("low", "high"))
            axes.fill_between(at, low, high, color=look.colour, alpha=0.18, linewidth=0)
    told = moved_by(dose, "prompt")
    told = told[told["label"] == label]
    if len(told):
        look = STEERING["prompt"]
        rate = float(told["moved_rate"].iloc[0])
        axes.plot([0, len(alphas) - 1], [rate, rate], label=look.name, linewidth=1.2, **style(look))
    axes.axhline(HALF, color=GREY, linewidth=0.6)
    axes.set_title(f"{label}, layer {layer}", fontsize=9, parse_math=False)
    axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas], fontsize=8)
    axes.set(xlabel="alpha", ylim=(-0.04, 1.04))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    quiet(axes)
    axes.legend(fontsize=6, frameon=False, loc="upper left")


def _halves(axes: Axes, dose: pd.DataFrame, labels: Sequence[str]) -> None:
    """The smallest strength that moves half, label x layer; where none does, what the best one moves."""
    table = smallest_alpha(dose)
    layers = sorted(table["layer"].unique())
    alphas = sorted(moved_by(dose, "vector")["alpha"].unique())
    grid = np.full((len(labels), len(layers)), np.nan)
    for row in table.to_dict("records"):
        i, j = labels.index(row["label"]), layers.index(row["layer"])
        some = row["alpha"] == row["alpha"]
        grid[i, j] = alphas.index(row["alpha"]) if some else np.nan
        said = f"{row['alpha']:g}" if some else "–" if row["moved_rate"] != row["moved_rate"] else (
            f"{100 * row['moved_rate']:.0f}%"
        )  # fmt: skip
        dark = some and grid[i, j] < len(alphas) / 2
        axes.text(j, i, said, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.imshow(grid, aspect="auto", cmap="viridis", vmin=0, vmax=max(1, len(alphas) - 1), interpolation="nearest")
    axes.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)
    axes.set_xticks(range(len(layers)), [str(layer) for layer in layers], fontsize=8)
    axes.set_xlabel("layer behind which the vector is added")
    axes.set_title(
        "smallest alpha that moves half of the clips (where none does: what the best moves, in %)", fontsize=9
    )


# ---- single clips ----------------------------------------------------------------------------------------------------


def examples(config: Mapping[str, Any], records: pd.DataFrame, dose: pd.DataFrame, most: int) -> list[Example]:
    """Clips that a label's vector moves behind its best layer, at the least strength that does, beside one that is
    answered so by itself; the labels in turn, that which moves most first."""
    base = records[(records["condition"] == "base") & (records["prompt"] == 0)].set_index("clip_id")
    own = base["answer"].map(lambda answers: answers[0])
    found: list[list[Example]] = []
    most_moved = moved_by(dose, "vector").groupby("label", sort=False)["moved_rate"].max()
    for label in map(str, most_moved.sort_values(ascending=False, kind="stable").index):
        like = [str(clip_id) for clip_id, answer in own.items() if answer == label]
        layer = best_layer(dose, label)
        rows = records[(records["condition"] == "vector") & (records["prompt"] == 0) & (records["layer"] == layer)]
        moved = []
        for row in rows[rows["label"] == label].to_dict("records"):
            told: dict[str, Any] = {str(name): value for name, value in row.items()}
            steps = [i for i, answer in enumerate(row["answer"]) if answer == label != own[row["clip_id"]]]
            if steps and like:
                moved.append(_example(config, told, base.loc[row["clip_id"]], like[0], min(steps)))
        found.append(moved[:most])
    turns = [one[turn] for turn in range(most) for one in found if turn < len(one)]
    return turns[:most]


def _example(config: Mapping[str, Any], row: Mapping[str, Any], base: pd.Series, like: str, at: int) -> Example:
    label, layer, alpha = row["label"], int(row["layer"]), row["alpha"][at]
    said = (
        f"A is answered {base['answer'][0]!r}; with {alpha:g} times the vector of {label!r} behind layer {layer} it is "
        f"answered {label!r}. B is answered {label!r} by itself, and its states are not used."
    )
    return Example(
        f"{row['clip_id']} to {label}", str(row["clip_id"]), like, said, partial(clip_figure, config, row, base)
    )


def clip_figure(config: Mapping[str, Any], row: Mapping[str, Any], base: pd.Series, a: Sound, b: Sound) -> Figure:
    """The probability of each answer over the strength, of one clip.

    Args:
        config: of the run. row: the clip's record of a label's vector behind a layer; base: that of the clip as it is.
        a, b: the recordings.
    """
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots()
    labels = config["settings"]["labels"]
    order = np.argsort(row["alpha"])
    doses = [0.0, *np.asarray(row["alpha"], float)[order]]
    logits = np.vstack([base["logits"][0], np.asarray(row["logits"], float)[order]])
    for label, values in zip(labels, softmax(logits, axis=1).T, strict=True):
        steered = label == row["label"]
        look = STEERING["vector"] if steered else STEERING["random"]
        kept = {**style(look), "color": BLUE if label == base["answer"][0] and not steered else look.colour}
        axes.plot(range(len(doses)), values, label=label, **kept)
        axes.annotate(label, (len(doses) - 1, values[-1]), (4, 0), textcoords="offset points", fontsize=7)
    axes.set_xticks(range(len(doses)), [f"{dose:g}" for dose in doses], fontsize=8)
    axes.set(xlabel="alpha", ylabel="probability among the answers", ylim=(-0.03, 1.03))
    about = signature(config, f"vector of {row['label']!r} behind layer {int(row['layer'])}")
    axes.set_title(f"A: {a.label}; beside it B: {b.label}\n{about}", fontsize=9, loc="left", parse_math=False)
    quiet(axes)
    return figure
