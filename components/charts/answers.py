"""One pair's answer as a figure: every label's score in A's run, after the patch, and in B's run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from scipy.special import softmax

from components.charts.parts import SELECTED, new_figure
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
    room: ArrayLike = (),
) -> go.Figure:
    """One pair at one layer: every label's logit in A's run, after the patch, and in B's run.

    A dot a run and label, because a logit has no zero that means something; the label that wins a run has a filled dot,
    and the legend says it of A and of B. `probability` is the softmax over these labels alone.

    Args:
        room: further logits that the axis has to hold: with those of every layer a step moves the dots and no axis.
    """
    runs = {"base": base, "patched": patched, "donor": donor}
    values = {run: softmax(logits) if scale == "probability" else np.asarray(logits) for run, logits in runs.items()}
    names = [f"<b>{plain(label)} ◂ target</b>" if label == target else plain(label) for label in labels]
    moved: list[float | None] = []
    for start, end in zip(values["base"], values["patched"], strict=True):
        moved += [start, end, None]
    moves = go.Scatter(
        x=moved, y=[name for name in names for _ in range(3)], mode="lines", line={"color": GREY, "width": 2},
        hoverinfo="skip", showlegend=False, name=SELECTED,
    )  # fmt: skip
    traces = [moves]
    for run, numbers in values.items():
        look, moving = RUNS[run], run == "patched"
        winner = int(np.argmax(numbers))
        dots = go.Scatter(
            x=numbers,
            y=names,
            mode="markers",
            name=SELECTED if moving else f"{look.name}: <b>{plain(labels[winner])}</b>",
            showlegend=not moving,
            marker={
                "color": look.colour,
                "opacity": 1,
                "size": [15 if i == winner else 11 for i in range(len(labels))],
                "symbol": [look.marker if i == winner else f"{look.marker}-open" for i in range(len(labels))],
                "line": {"color": look.colour, "width": 2.5},
            },
            customdata=[[label] for label in labels],
            hovertext=[f"{look.name}, {label}: {number:.3f}" for label, number in zip(labels, numbers, strict=True)]
            if moving
            else None,
            hovertemplate=f"{look.name}<br>%{{y}}: %{{x:.3f}}<extra></extra>",
        )
        traces.append(dots)
        if moving:
            named = {
                "color": look.colour,
                "size": 11,
                "symbol": look.marker,
                "line": {"color": look.colour, "width": 2.5},
            }
            traces.append(go.Scatter(x=[None], y=names[:1], mode="markers", name=look.name, marker=named))
    title = "logit (nats)" if scale == "logit" else "probability among the labels"
    fig = new_figure("", height=150 + 42 * len(labels))
    fig.add_traces(traces)
    known = np.concatenate([np.ravel(one) for one in (*values.values(), room)])
    known = known[np.isfinite(known)] if np.isfinite(known).any() else np.zeros(1)
    spare = 0.06 * (known.max() - known.min()) or 1.0
    ends = [-0.03, 1.03] if scale == "probability" else [known.min() - spare, known.max() + spare]
    fig.update_xaxes(title_text=title, showgrid=True, range=ends)
    fig.update_yaxes(range=[len(labels) - 0.5, -0.5], categoryorder="array", categoryarray=names)
    return fig
