"""The tables and findings of a comparison, out of the logits and matrices that its passes made."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from interp_core.experiments.compare.clean import TIME_MEAN, CleanPass
from interp_core.experiments.compare.measures import Logits, rank_correlation
from interp_core.experiments.compare.plan import ComparePlan
from interp_core.maths.cka import divergence_onset


def scores_table(q: ComparePlan, logits: Logits) -> pd.DataFrame:
    """One row a model and clip."""
    labels, units = q.task.labels.labels, q.units
    positive = labels.index(units.positive) if units.positive in labels else 0
    others = [i for i in range(len(labels)) if i != positive]
    tables = []
    for name, found in logits.items():
        rest = np.logaddexp.reduce(found[:, others].astype(float), axis=1)
        tables.append(
            pd.DataFrame(
                {
                    "model": name,
                    "clip_id": [clip.clip_id for clip in q.clips],
                    "label": units.labels,
                    "half": np.where(units.reported, "report", "choice"),
                    "score": found[:, positive].astype(float) - rest,
                    "answer": [labels[i] for i in found.argmax(1)],
                    **{f"logit_{label}": found[:, i].astype(float) for i, label in enumerate(labels)},
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def undefined_before_onset(found: Mapping[str, Any]) -> str:
    """What the onset of some findings leaves open, to follow the layer (or "every layer"); "" where that is nothing."""
    onset = found["onset"]
    layers = [layer for layer in found.get("undefined", ()) if onset is None or layer < onset]
    if not layers:
        return ""
    which = f"layer{'s' * (len(layers) > 1)} {', '.join(f'{layer:d}' for layer in layers)}"
    if onset is None:
        return f" but {which}, where CKA is undefined"
    return f", or before: CKA is undefined at {which}"


def findings(
    q: ComparePlan, clean: CleanPass, summary: pd.DataFrame, read: str, checks: Mapping[str, Any]
) -> dict[str, Any]:
    """Where the models part, where they are least alike, and whether that is where a transplant acts."""
    n_layers, matrix = q.base.subject.n_layers, clean.cka[TIME_MEAN]
    diagonal = np.diag(matrix.plain)[:n_layers]
    divergence = clean.divergence[:n_layers]
    forward = summary[(summary["mode"] == "donor") & ~summary["reverse"].astype(bool)]
    moved = dict(zip(forward["sites"], forward["score_change_mean"], strict=True))
    effect = [moved.get(f"resid_post.L{layer}", np.nan) for layer in range(n_layers)]
    known = np.isfinite(divergence)
    return {
        "labels": list(q.task.labels.labels),
        "positive": q.units.positive,
        "columns": vars(q.units.columns),
        "split": q.units.split,
        "onset": divergence_onset(diagonal),
        "undefined": np.flatnonzero(~np.isfinite(diagonal)).tolist(),
        "onset_tolerance": 1e-6,
        "most_divergent": int(np.nanargmax(divergence)) if known.any() and np.nanmax(divergence) > 1e-9 else None,
        "divergence": divergence.tolist(),
        "rank_correlation": rank_correlation(divergence.tolist(), effect),
        "read_by_head": read,
        "notes": list(q.notes),
        "probed_clips": len(clean.kept),
        "checks": dict(checks),
    }
