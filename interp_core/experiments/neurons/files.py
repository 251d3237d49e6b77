"""The run folder of a neuron ablation: what goes into which file, and back."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from interp_core.experiments.edited_words import TABLE, read_answers
from interp_core.experiments.figures import save_png
from interp_core.experiments.neurons.sweep import AblationResult
from interp_core.runs import RunWriter
from interp_core.storage import read_csv, read_json

TOP = 10
OLD_NAMES = {"head_ood": "head_ood", "domain_probe": "hosp_probe", "task_probe": "tumor_probe", "head_id": "head_id"}
"""Measures under the keys that the source's files have: its domain was the hospital, its task the tumour."""
EPOCH = re.compile(r"ep(?:och)?[_-]?0*(\d+)\.(?:pt|pth|ckpt|tar)$")
"""The names of checkpoint files that tell their epoch."""
ERASURE = "concept_erasure.csv"
SETS = {"domain": "shortcut", "task": "morphology", "random": "random"}


def write(writer: RunWriter, made: AblationResult) -> None:
    """Write scores, the sweep in the source's keys, tables that it is read back from, and the figure."""
    writer.write_csv("neuron_scores.csv", made.scores)
    writer.write_csv("ablation_curve.csv", made.curve)
    writer.write_csv("ablation_answers.csv", made.answers)
    if len(made.erasure):
        writer.write_csv(ERASURE, made.erasure)
    if len(made.words):
        writer.write_csv(TABLE, made.words)
    writer.write_json("neuron_ablation.json", as_json(made, writer.folder.name))
    save_png(made.figure(), writer.path("neuron_ablation.png"))


def read(folder: Path, config: Mapping[str, Any]) -> AblationResult:
    """Read a finished run folder back."""
    answers = read_csv(folder / "ablation_answers.csv", texts=True)
    erased = config.get("settings", {}).get("erase", False)
    return AblationResult(
        config,
        read_csv(folder / "ablation_curve.csv"),
        read_csv(folder / "neuron_scores.csv"),
        answers.assign(k=answers["k"].astype(int)),
        read_json(folder / "neuron_ablation.json")["report"],
        read_csv(folder / ERASURE) if erased else pd.DataFrame(),
        read_answers(folder, config),
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
