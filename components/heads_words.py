"""A heads run in words, and the command that repeats it."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import pandas as pd

from components.heads_runs import ShownHeads
from components.words import md
from interp_core.doors.heads import HeadsRequest
from interp_core.experiments.heads import HeadSettings, HeadsResult
from interp_core.models.subject import Subject

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
LIMITS = """
- A head that separates the classes **need not be used** by the model: that is what the ablation is for. A head whose
  mean over time separates nothing may still be used, through what happens at single positions.
- The ratio looks at each dimension alone: classes that differ in how dimensions go together are missed, and the probe
  beside it sees them.
- Classes differ in loudness, length and recording too. Heads may separate recordings, not sounds; related clips are
  kept together, as far as the manifest says which they are.
- Taking one head away can be made up for by others; taking it to zero can be stranger to the model than any sound.
"""


def head_sentence(result: HeadsResult, row: pd.Series) -> str:
    """The selected head in a sentence of markdown."""
    f, low, high = row["fisher_f"], row["fisher_f_low"], row["fisher_f_high"]
    text = f"**Head {md(row['name'])}** separates the classes {f:.2f} times as well as labels without meaning"
    if math.isfinite(low):
        text += f" (95 % interval {low:.2f} to {high:.2f})"
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


def provenance(shown: ShownHeads, subject: Subject) -> str:
    """Where the run on show comes from, in a line of markdown."""
    config = shown.result.config
    model = Path(str(config["model"]["id"])).name
    made = str(config.get("finished") or config.get("created") or "")[:16].replace("T", " ")
    origin = {
        "job": "Computed by this server",
        "folder": "From the runs folder",
        "shipped": f"Saved run that ships with {md(model)}, made by the command line",
    }[shown.source]
    counts = ", ".join(f"{md(name)} {count}" for name, count in config["classes"].items())
    parts = [origin + (f" on {made}" if made else ""), f"{len(shown.result.clips)} clips ({counts})"]
    groups = shown.result.clips["group"].nunique()
    grouped = str(config["grouped_by"])
    parts.append(f"{groups} groups by {md(grouped)}" if not grouped.startswith("none") else "clips taken as unrelated")
    parts += [f"{count} {md(what)} left out" for what, count in config["left_out"].items() if count]
    same = config["model"]["weights_sha256"] == subject.weights_hash
    parts.append("weights checked: those of the open model" if same else "**made with other weights than those open**")
    return " · ".join(parts)


def command(request: HeadsRequest, out: str = "runs/again") -> str:
    """The command line that runs a request; settings at their default are left out."""
    s, usual = request.settings, HeadSettings()
    said: list[tuple[str, Any, Any]] = [
        ("--model", request.model, None),
        ("--manifest", request.manifest, None),
        ("--device", request.device, "auto"),
        ("--dtype", request.dtype, "auto"),
        ("--max-clips", request.max_clips, None),
        ("--pilot", request.pilot, None),
        ("--part", request.part, ""),
        ("--probe", request.probe, ""),
        ("--label", s.label, usual.label),
        ("--per-class", s.per_class, None),
        ("--classes", ",".join(s.classes), ""),
        ("--groups", s.groups, usual.groups),
        ("--clips", "held-out" if s.held_out else "all", "held-out"),
        ("--draws", s.draws, usual.draws),
        ("--probes", s.probes, usual.probes),
        ("--ablate", ",".join(s.ablate), ""),
        ("--prompt", s.prompt, ""),
        ("--batch-size", s.batch_size, usual.batch_size),
        ("--seed", s.seed, usual.seed),
    ]
    options = [f"{name}={value}" for name, value, default in said if value is not None and value != default]
    flags = ["--skip-bad"] * request.skip_bad + ["--pt"] * request.pt
    return " ".join(["python -m interp_core heads", *map(shlex.quote, options), *flags, f"--out={shlex.quote(out)}"])
