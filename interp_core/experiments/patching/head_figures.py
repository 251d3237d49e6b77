"""A map of heads on paper: the estimate of every head, and beside it the verified ones against true patches."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import Normal, Stroke

from interp_core.errors import InterpError
from interp_core.experiments.figures import MARKERS, Figure, quiet
from interp_core.experiments.patching.head_table import named
from interp_core.experiments.patching.head_words import agreement_text, head_name
from interp_core.looks import VERIFIED
from interp_core.maths.stats import SIGNIFICANT

WIDTH, SIDE = 12.0, 0.32  # inches: of the figure, of a layer
MOST_LABELLED = 4
NO_HEAD = "#DDDDDD"  # where layers have unlike numbers of heads


def head_map_figure(rows: pd.DataFrame, agreement: pd.Series, title: str) -> Figure:
    """Layer by head, verified heads ringed and marked; estimate against truth with 95 % intervals.

    Args:
        rows: of `summarise_heads`, one kind and question. agreement: its row.
        title: shown above; taken as text, never as markup.
    Raises:
        InterpError: no head among the rows.
    """
    heads = rows[rows["site"] == "head_out"]
    if heads.empty:
        raise InterpError("there is no head to draw; run the map of heads on at least one pair.")
    layers = int(heads["layer"].max()) + 1
    figure = Figure(figsize=(WIDTH, max(5.0, 2.2 + SIDE * layers)), dpi=150, layout="constrained", facecolor="white")
    n = int(heads["n"].iloc[0])
    figure.suptitle(f"{title}; change of the target's log-probability (n = {n})", fontsize=11, parse_math=False)
    left, right = figure.subplots(1, 2)
    _map(figure, left, heads)
    _against(right, heads[heads["verified"] != ""], agreement)
    return figure


def _map(figure: Figure, axes: Axes, heads: pd.DataFrame) -> None:
    grid = heads.pivot_table(index="layer", columns="head", values="estimate_mean", aggfunc="first").to_numpy()
    reach = float(np.nanmax(np.abs(grid))) or 1.0
    image = axes.imshow(grid, cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto", origin="lower")
    figure.colorbar(image, ax=axes, label="estimate, nats", fraction=0.05)
    halo = [Stroke(linewidth=3, foreground="white"), Normal()]
    for which, look in VERIFIED.items():
        at = heads[heads["verified"] == which]
        axes.scatter(
            at["head"], at["layer"], marker=MARKERS[look.marker], s=70, facecolors="none", edgecolors="black",
            linewidths=1.1, label=f"verified: {look.name}", path_effects=halo,
        )  # fmt: skip
    sure = named(heads)
    axes.scatter(
        sure["head"], sure["layer"], marker="*", s=40, color="black", label=f"adjusted p < {SIGNIFICANT:g}",
        path_effects=halo,
    )  # fmt: skip
    axes.set(xlabel="head", ylabel="layer", facecolor=NO_HEAD)
    axes.set_xticks(range(0, grid.shape[1], max(1, math.ceil(grid.shape[1] / 16))))
    axes.set_yticks(range(0, len(grid), max(1, math.ceil(len(grid) / 16))))
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.0))


def _against(axes: Axes, verified: pd.DataFrame, agreement: pd.Series) -> None:
    quiet(axes)
    both = verified[["estimate_mean", "true_mean"]].to_numpy()
    ends = [min(both.min(), 0.0), max(both.max(), 0.0)]
    axes.plot(ends, ends, color="#888888", linewidth=0.8, linestyle="--", zorder=1, label="estimate = truth")
    for which, look in VERIFIED.items():
        own = verified[verified["verified"] == which]
        reach = (own["true_mean"] - own["true_low"], own["true_high"] - own["true_mean"])
        bars = np.stack([side.fillna(0).clip(lower=0) for side in reach])
        axes.errorbar(
            own["estimate_mean"], own["true_mean"], yerr=bars, fmt=MARKERS[look.marker], color=look.colour,
            markersize=6, elinewidth=0.8, label=f"{look.name} ({len(own)})",
        )  # fmt: skip
    order = verified["true_mean"].abs().sort_values(ascending=False, kind="stable").index
    for _, row in verified.loc[order].head(MOST_LABELLED).iterrows():
        axes.annotate(
            head_name(row), (row["estimate_mean"], row["true_mean"]), fontsize=8, xytext=(-5, 3),
            textcoords="offset points", ha="right",
        )  # fmt: skip
    axes.set(xlabel="estimate, nats", ylabel="true patch of this head alone, nats")
    axes.set_title(agreement_text(agreement).replace(", wrong", "\nwrong"), fontsize=9, loc="left")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
