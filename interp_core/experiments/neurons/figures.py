"""The PNG of a neuron ablation: what becomes of the head and the probes as more neurons are taken away."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from interp_core.experiments.figures import Figure, quiet, style
from interp_core.looks import ERASED, NEURONS

SHOWN = ("domain", "task", "random")
PANELS = (
    ("head_ood", "Head, out of domain (accuracy)"),
    ("head_id", "Head, in domain (accuracy)"),
    ("domain_probe", "Domain probe, in domain\n(balanced accuracy)"),
    ("task_probe", "Task probe, in domain\n(balanced accuracy)"),
)
NONE = pd.DataFrame()
PLANTED = "the shortcut was planted"


def dose_figure(
    config: Mapping[str, Any], curve: pd.DataFrame, report: Mapping[str, Any], erasure: pd.DataFrame = NONE
) -> Figure:
    """Dose-response of the head and the probes, with the random band and the unedited model as a line.

    Behind the last dose stands what erasing a concept does, where a run erased one.
    """
    drawn = Figure(figsize=(12.5, 6.6), dpi=130, layout="constrained")
    model = Path(str(config["model"]["id"])).name
    planted = f" ({PLANTED})" if report.get("planted") else ""
    drawn.suptitle(
        f"{model}, {report['site']}, {report['kind']} ablation: {report['verdict']}{planted}", parse_math=False
    )
    for axes, (measure, title) in zip(drawn.subplots(2, 2).flat, PANELS, strict=True):
        _panel(axes, curve, report, measure, title, erasure)
    return drawn


def _panel(
    axes: Axes, curve: pd.DataFrame, report: Mapping[str, Any], measure: str, title: str, erasure: pd.DataFrame
) -> None:
    axes.set_ylabel(title, fontsize=9)
    quiet(axes)
    if (reason := report["refused"].get(measure)) is not None:
        axes.text(0.5, 0.5, f"not measured:\n{reason}", ha="center", va="center", wrap=True, transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    for name in SHOWN:
        look = NEURONS[name]
        rows = curve[curve["set"] == name].sort_values("k")
        k, value = rows["k"].to_numpy(float), rows[measure].to_numpy(float)
        low, high = rows[f"{measure}_low"].to_numpy(float), rows[f"{measure}_high"].to_numpy(float)
        axes.fill_between(k, low, high, color=look.colour, alpha=0.15, linewidth=0)
        band = "95 % of draws" if name == "random" else "95 % interval" if np.isfinite(low).any() else "no interval"
        axes.plot(k, value, markersize=4, label=f"{look.name} ({band})", **style(look))
    axes.axhline(report["base"][measure], color="#444444", linewidth=0.9, label="K = 0, the unedited model")
    axes.set_xscale("symlog", base=2, linthresh=4)
    ticks, names = list(report["doses"]), [str(k) for k in report["doses"]]
    if len(erasure):
        behind = 2.5 * max(4, ticks[-1])
        for place, name in enumerate(ERASED):
            row, look = erasure[erasure["set"] == name].iloc[0], ERASED[name]
            at, value = behind * 1.4 ** (place - 1), row[measure]
            ends = np.array([[value - row[f"{measure}_low"]], [row[f"{measure}_high"] - value]]).clip(0)
            said = f"{look.name} (rank {int(row['rank'])})"
            line = {**style(look), "linestyle": "none", "label": said}
            axes.errorbar([at], [value], yerr=ends, markersize=7, capsize=3, **line)
        ticks, names = [*ticks, behind], [*names, "erased"]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(names, fontsize=8)
    axes.set_xlabel("neurons ablated (K)", fontsize=9)
    if measure == "head_ood":
        axes.legend(fontsize=7, frameon=False)
