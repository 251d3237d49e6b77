"""The PNG of a heads run: every head's normalised Fisher ratio, beside those of blocks and stages."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from interp_core.experiments.heads import HeadsResult
from interp_core.storage import replace_file

SIGNIFICANT = 0.05
DPI = 130


def write_heatmap(result: HeadsResult, path: Path) -> None:
    """Write `heatmap_figure` in one step."""
    png = io.BytesIO()
    heatmap_figure(result).savefig(png, format="png")
    replace_file(path, png.getvalue())


def heatmap_figure(result: HeadsResult) -> Figure:
    """Blocks downwards, heads across, on a log colour scale; a dot marks adjusted p < .05; curves with intervals."""
    heads = result.points("head")
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
    _curves(right, result)
    model, classes = Path(str(result.config["model"]["id"])).name, result.config["classes"]
    title = f"{model}: Fisher ratios of {result.config['settings']['label']}"
    figure.suptitle(f"{title}, {len(result.clips)} clips in {len(classes)} classes", parse_math=False)
    return figure


def _curves(axes, result: HeadsResult) -> None:  # type: ignore[no-untyped-def]
    looks = {"block": ("#0072B2", "o", "-", "block"), "stage": ("#D55E00", "s", "--", "stage or layer output")}
    for granularity, (colour, marker, dash, name) in looks.items():
        rows = result.points(granularity)
        if not len(rows):
            continue
        y = rows["fisher_f"]
        axes.plot(rows["layer"], y, marker=marker, linestyle=dash, color=colour, label=name)
        known: pd.DataFrame = rows.dropna(subset=["fisher_f_low"])
        axes.fill_between(known["layer"], known["fisher_f_low"], known["fisher_f_high"], color=colour, alpha=0.18)
    axes.axhline(1, color="#666666", linestyle=":", label="labels without meaning: 1")
    axes.set_yscale("log")
    axes.set(xlabel="block", ylabel="F (N - C)/(C - 1), log scale", title="blocks and outputs, 95 % intervals")
    axes.legend(fontsize=8)
