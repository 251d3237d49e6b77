"""A heads run in words."""

from __future__ import annotations

import math

import pandas as pd

from components.shown import Shown
from components.words import md
from interp_core.experiments.heads.run import HeadsResult

EXPLAINED = """
- Every number is about a vector a clip: a head's attention output before the output projection, the residual stream
  between attention and MLP of a block, or a stage's output, averaged over the clip's positions in one forward pass.
- **F** is the diagonal Fisher ratio (between-class over within-class sum of squares, a dimension at a time, averaged),
  times (N - C)/(C - 1): labels without meaning give about 1, whatever the number of clips and classes.
- **p** comes from shuffled labels, related clips kept together; it is adjusted for all heads at once by the largest
  scaled ratio of each shuffle (max-T).
- **Probe accuracy** is that of a linear probe on held-out groups; it does not depend on the width of the point.
- **Without it** replaces one head, before the output projection, by zeros, by its mean over positions and clips, or by
  what it is on a clip of another class, and asks the model again.
"""


def head_sentence(result: HeadsResult, row: pd.Series) -> str:
    """The selected head in a sentence of markdown."""
    f, low, high = row["fisher_f"], row["fisher_f_low"], row["fisher_f_high"]
    text = f"**Head {md(row['name'])}** separates the classes {f:.2f} times as well as labels without meaning"
    if math.isfinite(low):
        text += f" (95 % interval {low:.2f} to {high:.2f})"
    live, width = row.get("live_dims", row["width"]), row["width"]
    if live == 0:
        text += f"; none of its {width:.0f} dimensions varies"
    elif live < width and "fisher_f_live" in row:
        text += f", {row['fisher_f_live']:.2f} over the {live:.0f} of {width:.0f} dimensions that vary"
    p = row["p_adjusted"]
    if math.isfinite(p):
        text += f"; adjusted p {'= ' + format(p, '.3f') if p >= 0.001 else '< .001'}"
    if math.isfinite(row["probe_accuracy"]):
        text += f"; probe accuracy {row['probe_accuracy']:.2f}"
        if math.isfinite(row["probe_low"]):
            text += f" ({row['probe_low']:.2f} to {row['probe_high']:.2f})"
        text += f", chance {1 / len(result.config['classes']):.2f}"
    rank = int((result.points("head")["fisher_f"] > f).sum()) + 1
    return f"{text}. Rank {rank} of {len(result.points('head'))}."


def counted(shown: Shown) -> list[str]:
    """Clips, classes and groups of the run on show, as parts of a line of markdown."""
    config, clips = shown.config, shown.result.clips
    counts = ", ".join(f"{md(name)} {md(count)}" for name, count in config["classes"].items())
    grouped, groups = str(config["grouped_by"]), clips["group"].nunique()
    parts = [f"{len(clips)} clips ({counts})"]
    parts.append(f"{groups} groups by {md(grouped)}" if not grouped.startswith("none") else "clips taken as unrelated")
    return parts + [f"{md(count)} {md(what)} left out" for what, count in config["left_out"].items() if count]
