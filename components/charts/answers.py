"""One pair's answer as a figure: every label's score in A's run, after the patch, and in B's run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from scipy.special import softmax

from components.charts.parts import new_figure
from components.charts.words import plain
from interp_core.looks import GREY, RUNS


def label_logits(
    labels: Sequence[str],
    base: Sequence[float],
    patched: Sequence[float],
    donor: Sequence[float],
    target: str,
    *,
    scale: Literal["logit", "probability"] = "logit",
) -> go.Figure:
    """One pair at one layer: every label's logit in A's run, after the patch, and in B's run.

    A dot a run and label, because a logit has no zero that means something; the label that wins a run has a filled dot,
    and the legend says it. `probability` is the softmax over these labels alone.
    """
    runs = {"base": base, "patched": patched, "donor": donor}
    values = {run: softmax(logits) if scale == "probability" else np.asarray(logits) for run, logits in runs.items()}
    names = [f"<b>{plain(label)} ◂ target</b>" if label == target else plain(label) for label in labels]
    ends: list[float | None] = []
    for start, end in zip(values["base"], values["patched"], strict=True):
        ends += [start, end, None]
    moves = go.Scatter(
        x=ends, y=[name for name in names for _ in range(3)], mode="lines", line={"color": GREY, "width": 2},
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    traces = [moves]
    for run, numbers in values.items():
        look = RUNS[run]
        winner = int(np.argmax(numbers))
        dots = go.Scatter(
            x=numbers,
            y=names,
            mode="markers",
            name=f"{look.name}: <b>{plain(labels[winner])}</b>",
            marker={
                "color": look.colour,
                "opacity": 1,
                "size": [15 if i == winner else 11 for i in range(len(labels))],
                "symbol": [look.marker if i == winner else f"{look.marker}-open" for i in range(len(labels))],
                "line": {"color": look.colour, "width": 2.5},
            },
            customdata=[[label] for label in labels],
            hovertemplate=f"{look.name}<br>%{{y}}: %{{x:.3f}}<extra></extra>",
        )
        traces.append(dots)
    title = "logit (nats)" if scale == "logit" else "probability among the labels"
    fig = new_figure("", height=150 + 42 * len(labels))
    fig.add_traces(traces)
    fig.update_xaxes(title_text=title, showgrid=True, range=[-0.03, 1.03] if scale == "probability" else None)
    fig.update_yaxes(autorange="reversed")
    return fig
