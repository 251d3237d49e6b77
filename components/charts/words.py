"""A patching curve in words: what stands in a chart's hover, in its alternative text and on its axes."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from interp_core.maths.stats import SIGNIFICANT

COUNT_OF: Mapping[str, str] = {
    "flip_to_target_rate_reachable": "reachable_count",
    "flip_to_target_rate_eligible": "eligible_count",
    "recovered": "reachable_count",
}
TITLES: Mapping[str, str] = {
    "flip_to_target_rate_reachable": "flips to the target (of reachable pairs)",
    "flip_to_target_rate_eligible": "flips to the target (of eligible pairs)",
    "flip_to_target_rate": "answers the target (of all pairs)",
    "flip_from_base_rate": "leaves its own answer (of all pairs)",
    "delta_logprob_target_mean": "Δ log-probability of the target (nats)",
    "delta_logit_target_mean": "Δ logit of the target (nats)",
    "delta_logit_diff_mean": "Δ logit, target − own answer (nats)",
    "recovered": "recovered logit difference (1: as in B)",
    "changed_rate": "changed answers",
    "delta_logit_base_mean": "Δ logit of the own answer (nats)",
    "delta_logprob_base_mean": "Δ log-probability of the own answer (nats)",
}


def alt_text(metrics: pd.DataFrame, *, rate: str = "flip_to_target_rate_reachable") -> str:
    """What the curve shows, in words: the peak, a random donor there, significance."""
    matched = metrics[metrics["condition"] == "matched"].dropna(subset=[rate]).sort_values("layer")
    what = TITLES.get(rate, rate)
    if matched.empty:
        return f"Curve over layers: {what}. No layer has a value."
    peak = matched.iloc[int(matched[rate].to_numpy().argmax())]
    sentences = [
        f"Curve over {len(matched)} layers, {', '.join(map(str, matched['kind'].unique()))} pairs: {what}.",
        f"Highest at {layer_name(peak['layer'])}: {row_reading(peak, rate)}.",
    ]
    random = metrics[(metrics["condition"] == "random") & (metrics["layer"] == peak["layer"])]
    if len(random):
        sentences.append(f"A random donor there: {row_reading(random.iloc[0], rate)}.")
    tested = matched["p_adjusted"].notna() if "p_adjusted" in matched else pd.Series(False, index=matched.index)
    if not tested.any():
        sentences.append("The difference from a random donor was not tested.")
    else:
        at_random = metrics[metrics["condition"] == "random"].set_index("layer")[rate]
        sure = matched[matched["p_adjusted"] < SIGNIFICANT].set_index("layer")[rate]
        below = sure < at_random.reindex(sure.index)  # the test has two sides
        if not below.all():
            sentences.append(f"Beyond the random donor (adjusted p < .05) at {_runs_of([*sure.index[~below]])}.")
        else:
            sentences.append("At no layer beyond the random donor (adjusted p < .05).")
        if below.any():
            sentences.append(f"Below the random donor (adjusted p < .05) at {_runs_of([*sure.index[below]])}.")
    return " ".join(sentences)


def row_reading(row: pd.Series, column: str) -> str:
    count = row.get(COUNT_OF.get(column, "n"), math.nan)
    return reading(column, row[column], count, row.get(f"{column}_low", math.nan), row.get(f"{column}_high", math.nan))


def reading(column: str, value: float, count: float, low: float, high: float) -> str:
    """`0.62 (50/80; 95 % interval 0.50 to 0.72)`: k/n for rates, n for means, and a word where there is no interval."""
    known = math.isfinite(count)
    if not known:
        counted = "n unknown"
    elif "rate" in column:
        counted = f"{round(value * count)}/{int(count)}"
    else:
        counted = f"n = {int(count)}"
    number = "{:.2f}" if "rate" in column or column == "recovered" else "{:+z.2f}"
    between = f"95 % interval {number} to {number}".format(low, high) if math.isfinite(low + high) else "no interval"
    return f"{number.format(value)} ({counted}; {between})"


def layer_name(layer: Any) -> str:
    return "the embeddings" if int(layer) == -1 else f"layer {int(layer)}"


def layers_text(first: int, last: int) -> str:
    return layer_name(first) if first == last else f"layers {'emb' if first == -1 else first} to {last}"


def _runs_of(layers: Sequence[int]) -> str:
    """`[3, 4, 5, 9]` -> `layers 3 to 5, layer 9`."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(layers_text(first, last) for first, last in runs)


def shortened(text: str, most: int = 24) -> str:
    """A name of at most so many letters, cut in its middle: names of clips differ at both ends.

    Raises:
        ValueError: room for less than a letter at either end.
    """
    if most < 3:
        raise ValueError(f"{most} letters are too few to cut a name to; give 3 or more.")
    if len(text) <= most:
        return text
    ahead = most // 2
    return f"{text[:ahead]}…{text[ahead + 1 - most :]}"


def plain(text: Hashable) -> str:
    """Labels are data: plotly would read their < and & as markup."""
    return html.escape(str(text), quote=False)


def unmarked(text: str) -> str:
    """What plotly shows of a text: without its tags, `&lt;` as <."""
    return html.unescape(re.sub(r"<[^<>]*>", "", text.replace("<br>", " ")))
