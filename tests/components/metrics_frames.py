"""Hand-made result tables in the columns of a run folder, for the tests of what is drawn from them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

CONDITIONS = ("matched", "random", "noise", "no-conflict", "question", "last")
RATES = ("flip_to_target_rate", "flip_to_target_rate_eligible", "flip_to_target_rate_reachable", "flip_from_base_rate")
MEANS = ("delta_logit_target_mean", "delta_logprob_target_mean", "delta_logit_diff_mean", "recovered")


def bump(layer: float, centre: float, width: float, top: float) -> float:
    return top / (1 + math.exp((layer - centre) / width))


def metrics_frame(n_layers: int = 12, n: int = 80, alpha: float = 1.0) -> pd.DataFrame:
    """A run in which the audio matters early and the last position late; alpha scales all of it."""
    middle = n_layers * 0.45
    shapes = {
        "matched": lambda at: bump(at, middle, 1.1, 0.94),
        "random": lambda at: bump(at, middle, 1.4, 0.16),
        "noise": lambda at: bump(at, middle * 0.8, 1.0, 0.12),
        "no-conflict": lambda at: 0.02,
        "question": lambda at: 0.55 * math.exp(-(((at - middle) / 1.8) ** 2)),
        "last": lambda at: 0.92 - bump(at, middle + 1.5, 0.8, 0.92),
    }
    rows = []
    for condition, shape in shapes.items():
        for layer in range(-1, n_layers):
            count = n - 16
            rate = round(alpha * shape(layer) * count) / count
            spread = 1.96 * math.sqrt(max(rate * (1 - rate), 0.01) / count)
            row: dict[str, object] = {
                "kind": "prosody", "prompt": 0, "alpha": alpha, "condition": condition, "layer": layer, "n": n,
                "eligible_count": n - 8, "reachable_count": count, "n_clusters": 12, "interval_method": "pigeonhole",
            }  # fmt: skip
            for name in RATES:
                row |= {name: rate, f"{name}_low": max(0, rate - spread), f"{name}_high": min(1, rate + spread)}
            for name in MEANS:
                mean = rate * (1 if name == "recovered" else 4.2)
                row |= {name: mean, f"{name}_low": mean - spread * 3, f"{name}_high": mean + spread * 3}
            row["p_adjusted"] = (0.004 if rate > 0.4 else 0.6) if condition == "matched" else math.nan
            rows.append(row)
    return pd.DataFrame(rows)


def lens_frame(n_layers: int = 12) -> pd.DataFrame:
    rows = []
    for run, late in (("base", 0.05), ("donor", 0.9)):
        for layer in range(-1, n_layers):
            reached = 0.2 + (late - 0.2) / (1 + math.exp(-(layer - n_layers * 0.7)))
            rows.append(
                {"kind": "prosody", "run": run, "layer": layer, "n": 80, "target_rate": reached, "agree_rate": reached,
                 "target_logprob_mean": math.log(max(reached, 0.02))}
            )  # fmt: skip
    return pd.DataFrame(rows)


def knockout_frame(n_layers: int = 12, width: int = 3) -> pd.DataFrame:
    rows = []
    for readers, top in (("last", 0.2), ("text", 0.8)):
        for first in range(n_layers - width + 1):
            rate = top * math.exp(-(((first - 3) / 2) ** 2))
            rows.append(
                {"kind": "prosody", "readers": readers, "layer_from": first, "layer_to": first + width - 1, "n": 40,
                 "changed_rate": rate, "changed_rate_low": max(0, rate - 0.1), "changed_rate_high": min(1, rate + 0.1),
                 "delta_logprob_base_mean": -3 * rate}
            )  # fmt: skip
    return pd.DataFrame(rows)


def with_holes(frame: pd.DataFrame) -> pd.DataFrame:
    """Layer 4 was not computed, layer 6 has no reachable pair, and layer 8 has only seven."""
    frame = frame[frame["layer"] != 4].copy()
    rate = [name for name in frame if str(name).startswith("flip_to_target_rate_reachable")]
    frame.loc[frame["layer"] == 6, rate] = np.nan
    frame.loc[frame["layer"] == 6, "reachable_count"] = 0
    frame.loc[frame["layer"] == 8, "reachable_count"] = 7
    return frame
