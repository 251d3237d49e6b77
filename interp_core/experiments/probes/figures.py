"""The PNG of a run of probes: a panel a target, the score by layer beside its control task and chance."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from interp_core.experiments.figures import Figure, quiet, style
from interp_core.experiments.probes import tables
from interp_core.looks import GREY, PROBES, look_of_probe
from interp_core.maths.stats import SIGNIFICANT
from interp_core.request import short_name

COLUMNS = 3


def curves_figure(config: Mapping[str, Any], table: pd.DataFrame) -> Figure:
    """Every target by layer; a ring marks adjusted p < .05."""
    names = tables.targets(table)
    across = min(COLUMNS, len(names))
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(4.2 * across + 0.6, 3.3 * down + 0.9), dpi=130, layout="constrained")
    figure.suptitle(
        f"{short_name(str(config['model']['id']))}: what a linear probe reads, on held-out units",
        fontsize=10, parse_math=False,
    )  # fmt: skip
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        _panel(axes, tables.of_target(table, name))
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    first = rows.iloc[0]
    for (site, place), curve in rows.groupby(["site", "place"], sort=False):
        look = look_of_probe(str(site), str(place))
        axes.plot(curve["layer"], curve["score"], label=look.name, linewidth=2, markersize=4, **style(look))
        low, high = (curve[f"score_{end}"].to_numpy(float) for end in ("low", "high"))
        if np.isfinite(low).any():
            axes.fill_between(curve["layer"], low, high, color=look.colour, alpha=0.15, linewidth=0)
        sure = curve[curve["p_adjusted"] < SIGNIFICANT]
        axes.plot(sure["layer"], sure["score"], "o", markersize=8, markerfacecolor="none", markeredgecolor="black")
    control = rows.groupby("layer")["control"].max()  # of all sites and places, the most that was known by heart
    if control.notna().any():
        look = replace(PROBES["control"], name=f"{PROBES['control'].name}, the larger one")
        axes.plot(control.index, control, label=look.name, **{**style(look), "linewidth": 1})
    axes.axhline(float(first["chance"]), color=GREY, linestyle="-", linewidth=0.8)
    is_label = bool(first["is_label"])
    axes.set_title(f"{tables.name_of(str(first['target']), is_label)}, n = {first['n']}", fontsize=9, parse_math=False)
    if not rows["score"].notna().any():
        axes.text(0.5, 0.5, "not read", ha="center", transform=axes.transAxes)
    axes.set_xlabel("layer (-1: what enters layer 0)", fontsize=8)
    axes.set_ylabel("balanced accuracy" if is_label else "R2", fontsize=8)
    top = axes.get_ylim()[1]
    axes.set_ylim(-0.03 if is_label else max(-0.6, axes.get_ylim()[0]), 1.05 if is_label else max(1.0, min(top, 1.05)))
    quiet(axes)
    axes.legend(fontsize=6, frameon=False)
