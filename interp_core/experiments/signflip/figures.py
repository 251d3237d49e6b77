"""The PNG of a sign-flip run: how far each acoustic proxy moves at every layer behind the edit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from interp_core.experiments.figures import Figure, quiet, style
from interp_core.experiments.signflip.tables import OUTPUT, PROXIES
from interp_core.looks import FLIPPED

NAMES = {
    "rms": "RMS energy",
    "zcr": "zero-crossing rate",
    "centroid": "modulation centroid",
    "centroid_no_dc": "modulation centroid without DC",
    "zcr_refit": "zero-crossing rate, component refitted",
}


def proxy_figure(config: Mapping[str, Any], changes: pd.DataFrame, report: Mapping[str, Any]) -> Figure:
    """Relative change of each proxy at every layer behind the edit, one curve an edited layer, the output last; and in
    grey what random neurons do."""
    drawn = Figure(figsize=(13, 7), dpi=130, layout="constrained")
    settings = config["settings"]
    model = Path(str(config["model"]["id"])).name
    drawn.suptitle(
        f"{model}: {settings['kind']} of the {report['topk']} neurons of {report['target']!r} "
        f"({settings['frames']} frames), {report['measured_on']['clips']} clips",
        parse_math=False,
    )
    for axes, proxy in zip(drawn.subplots(2, 2).flat, PROXIES, strict=True):
        _panel(axes, changes, report, proxy)
    return drawn


def _panel(axes: Axes, changes: pd.DataFrame, report: Mapping[str, Any], proxy: str) -> None:
    n, rows = report["n_layers"], changes[changes["proxy"] == proxy]
    rows = rows.assign(x=rows["measured"].where(rows["measured"] != OUTPUT, n))
    layers = report["layers"]
    for i, layer in enumerate(layers):
        curve = rows[rows["flipped"] == layer].sort_values("x")
        shade = 0.15 + 0.75 * i / max(1, len(layers) - 1)
        colour = (0.0, 0.45 * (1 - shade) + 0.2, 0.3 + 0.6 * shade)
        x, y = curve["x"].to_numpy(float), curve["change"].to_numpy(float)
        axes.errorbar(x, y, yerr=np.nan_to_num(curve["se"].to_numpy(float)), color=colour, marker="osD^vPX*"[i % 8],
                      markersize=4, linewidth=1.3, capsize=2, label=f"layer {layer}")  # fmt: skip
        axes.plot(x, curve["random_mean"].to_numpy(float), linewidth=0.8, markersize=3, **style(FLIPPED["random"]))
    hollow = rows[rows["by_construction"]]
    axes.plot(hollow["x"], hollow["change"], "o", markerfacecolor="white", markeredgecolor="black", markersize=7,
              linestyle="", label="0 by construction" if len(hollow) else None, zorder=5)  # fmt: skip
    axes.set_title(NAMES[proxy], fontsize=10)
    axes.set_ylabel("relative change (mean, se over units)", fontsize=8)
    axes.set_xlabel("measured at layer", fontsize=8)
    axes.xaxis.set_major_locator(FixedLocator([*range(n), n]))
    axes.set_xticklabels([*map(str, range(n)), "out"], fontsize=7)
    quiet(axes)
    if proxy == PROXIES[0]:
        axes.legend(fontsize=7, frameon=False, title="edited (random: dotted)", title_fontsize=7)
