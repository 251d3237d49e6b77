"""The run folder of a neuron ablation: what goes into which file, and back."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from interp_core.errors import InterpError
from interp_core.runs import CONFIG_FILES, RunWriter
from interp_core.storage import read_csv, read_json, replace_file

TOP = 10
OLD_NAMES = {"head_ood": "head_ood", "domain_probe": "hosp_probe", "task_probe": "tumor_probe", "head_id": "head_id"}
"""Measures under the keys that the source's files have: its domain was the hospital, its task the tumour."""
EPOCH = re.compile(r"ep(?:och)?[_-]?0*(\d+)\.(?:pt|pth|ckpt|tar)$")
"""The names of checkpoint files that tell their epoch."""
SETS = {"domain": "shortcut", "task": "morphology", "random": "random"}
LOOKS = {
    "domain": ("#D55E00", "-", "o", "best for the domain"),
    "task": ("#0072B2", "--", "s", "best for the task"),
    "random": ("#666666", ":", "x", "random"),
}
PANELS = (
    ("head_ood", "Head, out of domain (accuracy)"),
    ("head_id", "Head, in domain (accuracy)"),
    ("domain_probe", "Domain probe, in domain\n(balanced accuracy)"),
    ("task_probe", "Task probe, in domain\n(balanced accuracy)"),
)


@dataclass(frozen=True, eq=False)
class AblationResult:
    """A finished ablation; see `ablation.run_sweep` for the tables and the report."""

    config: dict[str, Any]
    curve: pd.DataFrame
    scores: pd.DataFrame
    answers: pd.DataFrame
    report: dict[str, Any]


def write_result(writer: RunWriter, made: AblationResult) -> None:
    """Write scores, the sweep in the source's keys, tables that it is read back from, and the figure."""
    writer.write_csv("neuron_scores.csv", made.scores)
    writer.write_csv("ablation_curve.csv", made.curve)
    writer.write_csv("ablation_answers.csv", made.answers)
    writer.write_json("neuron_ablation.json", as_json(made, writer.folder.name))
    png = io.BytesIO()
    figure(made).savefig(png, format="png")
    replace_file(writer.path("neuron_ablation.png"), png.getvalue())


def read_result(folder: Path) -> AblationResult:
    """Read a finished run folder back."""
    config = read_json(folder / CONFIG_FILES["ablate"])
    if not isinstance(config, dict) or not config.get("finished"):
        raise InterpError(f"{folder} holds no finished ablation; run it again.")
    answers = pd.read_csv(folder / "ablation_answers.csv", dtype=str, keep_default_na=False)
    answers["k"] = answers["k"].astype(int)
    return AblationResult(
        config,
        read_csv(folder / "ablation_curve.csv"),
        read_csv(folder / "neuron_scores.csv"),
        answers,
        read_json(folder / "neuron_ablation.json")["report"],
    )


def as_json(made: AblationResult, run_id: str) -> dict[str, Any]:
    """The source's keys (run_id, epoch, layer, …, sweep), with intervals beside them, and the whole report."""
    return {
        "run_id": run_id,
        "epoch": _epoch(str(made.config["model"]["id"])),
        "layer": made.report["site"],
        "feature_dim": made.report["width"],
        "shortcut_scores_top10": _top(made.scores, "domain"),
        "morphology_scores_top10": _top(made.scores, "task"),
        "sweep": [_dose(made.curve, k) for k in made.report["doses"]],
        "report": made.report,
    }


def _epoch(model: str) -> int | None:
    """Of a checkpoint file that is named after its epoch."""
    found = EPOCH.search(model)
    return int(found[1]) if found else None


def _top(scores: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    best = scores.sort_values(f"{name}_rank").head(TOP)
    return [{"neuron": int(row["neuron"]), "score": float(row[f"{name}_coef"])} for _, row in best.iterrows()]


def _dose(curve: pd.DataFrame, k: int) -> dict[str, Any]:
    dose: dict[str, Any] = {"k": k}
    for name, old in SETS.items():
        rows = curve[(curve["set"] == name) & (curve["k"] == (k if name != "random" or k else -1))]
        row: Mapping[Any, Any] = rows.iloc[0].to_dict() if len(rows) else {}
        for measure, key in OLD_NAMES.items():
            if name == "random":
                dose |= {f"{old}_{key}_{end}": row.get(f"{measure}{tail}") for end, tail in
                         (("mean", ""), ("std", "_std"), ("low", "_low"), ("high", "_high"))}  # fmt: skip
            else:
                dose |= {f"{old}_{key}{end}": row.get(f"{measure}{end}") for end in ("", "_low", "_high")}
    return dose


def figure(made: AblationResult) -> Figure:
    """Dose-response of the head and the probes, with the random band and the unedited model as a line."""
    drawn = Figure(figsize=(12.5, 6.6), dpi=130, layout="constrained")
    model = Path(str(made.config["model"]["id"])).name
    drawn.suptitle(
        f"{model}, {made.report['site']}, {made.report['kind']} ablation: {made.report['verdict']}", parse_math=False
    )
    for axes, (measure, title) in zip(drawn.subplots(2, 2).flat, PANELS, strict=True):
        _panel(axes, made, measure, title)
    return drawn


def _panel(axes: Axes, made: AblationResult, measure: str, title: str) -> None:
    axes.set_ylabel(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    if (reason := made.report["refused"].get(measure)) is not None:
        axes.text(0.5, 0.5, f"not measured:\n{reason}", ha="center", va="center", wrap=True, transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    for name, (colour, dash, marker, label) in LOOKS.items():
        rows = made.curve[made.curve["set"] == name].sort_values("k")
        k, value = rows["k"].to_numpy(float), rows[measure].to_numpy(float)
        low, high = rows[f"{measure}_low"].to_numpy(float), rows[f"{measure}_high"].to_numpy(float)
        axes.fill_between(k, low, high, color=colour, alpha=0.15, linewidth=0)
        band = "95 % of draws" if name == "random" else "95 % interval" if np.isfinite(low).any() else "no interval"
        axes.plot(k, value, dash, color=colour, marker=marker, markersize=4, label=f"{label} ({band})")
    axes.axhline(made.report["base"][measure], color="#444444", linewidth=0.9, label="K = 0, the unedited model")
    axes.set_xscale("symlog", base=2, linthresh=4)
    axes.xaxis.set_major_locator(FixedLocator(made.report["doses"]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(k) for k in made.report["doses"]], fontsize=8)
    axes.set_xlabel("neurons ablated (K)", fontsize=9)
    if measure == "head_ood":
        axes.legend(fontsize=7, frameon=False)
