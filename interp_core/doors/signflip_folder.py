"""The run folder of a sign-flip run: what goes into which file, and back."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from interp_core.errors import InterpError
from interp_core.experiments.signflip import OUTPUT
from interp_core.experiments.signflip_tables import PROXIES
from interp_core.runs import CONFIG_FILES, RunWriter
from interp_core.storage import read_csv, read_json, replace_file

NAMES = {
    "rms": "RMS energy",
    "zcr": "zero-crossing rate",
    "centroid": "modulation centroid",
    "centroid_no_dc": "modulation centroid without DC",
    "zcr_refit": "zero-crossing rate, component refitted",
}
TABLES = {
    "top": "attribution_top.csv",
    "changes": "proxy_changes.csv",
    "effects": "prediction_effects.csv",
    "links": "acoustic_links.csv",
}


@dataclass(frozen=True, eq=False)
class SignflipResult:
    """A finished run; see `signflip.run_signflip` for the tables and the report."""

    config: dict[str, Any]
    top: pd.DataFrame
    changes: pd.DataFrame
    effects: pd.DataFrame
    clips: pd.DataFrame
    links: pd.DataFrame
    report: dict[str, Any]


def write_result(writer: RunWriter, made: SignflipResult) -> None:
    """Write the tables, the report and the figure."""
    for name, file in TABLES.items():
        writer.write_csv(file, getattr(made, name))
    writer.write_csv("signflip_clips.csv", made.clips)
    writer.write_json("signflip_report.json", made.report)
    png = io.BytesIO()
    figure(made).savefig(png, format="png")
    replace_file(writer.path("proxy_curve.png"), png.getvalue())


def read_result(folder: Path) -> SignflipResult:
    """Read a finished run folder back."""
    config = read_json(folder / CONFIG_FILES["signflip"])
    if not isinstance(config, dict) or not config.get("finished"):
        raise InterpError(f"{folder} holds no finished sign-flip run; run it again.")
    clips = pd.read_csv(
        folder / "signflip_clips.csv", dtype={n: str for n in ("clip_id", "label", "base", "answer")},
        keep_default_na=False, float_precision="round_trip",
    )  # fmt: skip
    frames = {name: read_csv(folder / file) for name, file in TABLES.items()}
    return SignflipResult(config, clips=clips, report=read_json(folder / "signflip_report.json"), **frames)


def figure(made: SignflipResult) -> Figure:
    """Relative change of each proxy at every layer behind the edit, one curve an edited layer, the output last; and in
    grey what random neurons do."""
    drawn = Figure(figsize=(13, 7), dpi=130, layout="constrained")
    settings, report = made.config["settings"], made.report
    model = Path(str(made.config["model"]["id"])).name
    drawn.suptitle(
        f"{model}: {settings['kind']} of the {report['topk']} neurons of {report['target']!r} "
        f"({settings['frames']} frames), {report['measured_on']['clips']} clips",
        parse_math=False,
    )
    for axes, proxy in zip(drawn.subplots(2, 2).flat, PROXIES, strict=True):
        _panel(axes, made, proxy)
    return drawn


def _panel(axes: Axes, made: SignflipResult, proxy: str) -> None:
    n, rows = made.report["n_layers"], made.changes[made.changes["proxy"] == proxy]
    rows = rows.assign(x=rows["measured"].where(rows["measured"] != OUTPUT, n))
    layers = made.report["layers"]
    for i, layer in enumerate(layers):
        curve = rows[rows["flipped"] == layer].sort_values("x")
        shade = 0.15 + 0.75 * i / max(1, len(layers) - 1)
        colour = (0.0, 0.45 * (1 - shade) + 0.2, 0.3 + 0.6 * shade)
        x, y = curve["x"].to_numpy(float), curve["change"].to_numpy(float)
        axes.errorbar(x, y, yerr=np.nan_to_num(curve["se"].to_numpy(float)), color=colour, marker="osD^vPX*"[i % 8],
                      markersize=4, linewidth=1.3, capsize=2, label=f"layer {layer}")  # fmt: skip
        axes.plot(x, curve["random_mean"].to_numpy(float), color="#999999", linewidth=0.8, linestyle=":")
    hollow = rows[rows["by_construction"]]
    axes.plot(hollow["x"], hollow["change"], "o", markerfacecolor="white", markeredgecolor="black", markersize=7,
              linestyle="", label="0 by construction" if len(hollow) else None, zorder=5)  # fmt: skip
    axes.set_title(NAMES[proxy], fontsize=10)
    axes.set_ylabel("relative change (mean, se over units)", fontsize=8)
    axes.set_xlabel("measured at layer", fontsize=8)
    axes.xaxis.set_major_locator(FixedLocator([*range(n), n]))
    axes.set_xticklabels([*map(str, range(n)), "out"], fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    if proxy == PROXIES[0]:
        axes.legend(fontsize=7, frameon=False, title="edited (random: dotted)", title_fontsize=7)
