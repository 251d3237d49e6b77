"""The PNG of a heads run: every head's normalised Fisher ratio, beside those of blocks and stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from interp_core.experiments.figures import Figure, style
from interp_core.looks import GREY, HEADS
from interp_core.maths.stats import SIGNIFICANT

DPI = 130


def points_of(table: pd.DataFrame, granularity: str) -> pd.DataFrame:
    """The rows of a granularity, in the order of the forward pass."""
    return table[table["granularity"] == granularity].reset_index(drop=True)


def heatmap_figure(config: Mapping[str, Any], table: pd.DataFrame, n_clips: int) -> Figure:
    """Blocks downwards, heads across, on a log colour scale; a dot marks adjusted p < .05; curves with intervals."""
    heads = points_of(table, "head")
    n_layers, most = int(heads["layer"].max()) + 1, int(heads["head"].max()) + 1
    grid = np.full((n_layers, most), np.nan)
    grid[heads["layer"], heads["head"]] = np.log10(heads["fisher_f"].clip(lower=1e-3))
    figure = Figure(figsize=(11, 1.6 + 0.34 * n_layers), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    drawn = left.imshow(grid, aspect="auto", cmap="cividis", interpolation="nearest")
    bar = figure.colorbar(drawn, ax=left)
    bar.set_label("log10 of F (N - C)/(C - 1); 0 = chance")
    sure = heads[heads["p_adjusted"] < SIGNIFICANT]
    left.plot(sure["head"], sure["layer"], ".", color="white", markeredgecolor="black", markersize=7)
    left.set(xlabel="head", ylabel="block", title=f"{len(sure)} of {len(heads)} heads: adjusted p < .05 (dots)")
    names = heads.drop_duplicates("layer")["name"].str.rsplit(" ", n=1).str[0]
    left.set_yticks(range(n_layers), names)
    _curves(right, table)
    model, classes = Path(str(config["model"]["id"])).name, config["classes"]
    title = f"{model}: Fisher ratios of {config['settings']['label']}"
    figure.suptitle(f"{title}, {n_clips} clips in {len(classes)} classes", parse_math=False)
    return figure


def _curves(axes: Axes, table: pd.DataFrame) -> None:
    for granularity, look in HEADS.items():
        rows = points_of(table, granularity)
        if not len(rows):
            continue
        y = rows["fisher_f"]
        axes.plot(rows["layer"], y, label=look.name, **style(look))
        known: pd.DataFrame = rows.dropna(subset=["fisher_f_low"])
        axes.fill_between(known["layer"], known["fisher_f_low"], known["fisher_f_high"], color=look.colour, alpha=0.18)
    axes.axhline(1, color=GREY, linestyle=":", label="labels without meaning: 1")
    axes.set_yscale("log")
    axes.set(xlabel="block", ylabel="F (N - C)/(C - 1), log scale", title="blocks and outputs, 95 % intervals")
    axes.legend(fontsize=8)
