"""Figures of a map of heads: layer by head, estimate against truth, and where a head looks in time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from components.charts.heatmap import Cell, heatmap
from components.charts.parts import FONT_PX, new_figure, reference_line, ring_at, whiskers
from interp_core.experiments.patching.head_table import named
from interp_core.experiments.patching.head_words import head_name
from interp_core.looks import BLUE, GREY, VERIFIED

MARKS = {"largest": "□", "random": "◇"}
"""Of verified heads in the map; a significant one has an asterisk behind."""

PLAYER_MARGIN = {"t": 10, "b": 40, "l": 68, "r": 12, "autoexpand": False}
"""So that seconds stand under those of the player."""


def head_heatmap(rows: pd.DataFrame, selected: Cell) -> go.Figure:
    """The estimate of every head; a sign for those that were verified, another where the truth is told from chance.

    Args:
        rows: of the map, one kind and question. selected: (layer, head).
    """
    heads = rows[rows["site"] == "head_out"]
    grid = heads.pivot_table(index="layer", columns="head", values="estimate_mean", aggfunc="first")
    sure = set(named(heads).index)
    marks = {
        (int(row["layer"]), int(row["head"])): MARKS[row["verified"]] + ("✱" if at in sure else "")
        for at, row in heads[heads["verified"] != ""].iterrows()
    }
    hover = [["" for _ in grid.columns] for _ in grid.index]
    for _, row in heads.iterrows():
        hover[int(row["layer"])][int(row["head"])] = _head_hover(row)
    return heatmap(
        grid.to_numpy(),
        [str(layer) for layer in grid.index],
        [str(head) for head in grid.columns],
        title="Estimated change of the target's log-probability",
        unit="nats",
        row_title="layer",
        column_title="head",
        scale="diverging",
        hover=hover,
        selected=selected,
        marks=marks,
        upwards=True,
    )


def _head_hover(row: pd.Series) -> str:
    lines = [f"estimate {row['estimate_mean']:+z.3f}{_interval(row, 'estimate')}, n = {int(row['n'])}"]
    if row["verified"]:
        lines.append(f"true patch {row['true_mean']:+z.3f}{_interval(row, 'true')} (verified: {row['verified']})")
    else:
        lines.append("not verified")
    return "\n".join(lines)


def _interval(row: pd.Series, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if low != low else f", 95 % {low:+z.3f} to {high:+z.3f}"


def estimate_and_truth(rows: pd.DataFrame, selected: Cell) -> go.Figure:
    """Verified heads: mean estimate against mean true patch, with its interval and the line where both are equal."""
    fig = new_figure("true patch, nats")
    verified = rows[rows["verified"] != ""]
    both = verified[["estimate_mean", "true_mean"]].to_numpy()
    ends = [float(min(both.min(), 0)), float(max(both.max(), 0))]
    fig.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": GREY, "width": 1, "dash": "dash"}, name="estimate = truth",
        hoverinfo="skip",
    )  # fmt: skip
    for which, look in VERIFIED.items():
        own = verified[verified["verified"] == which]
        values, low, high = (own[name].to_numpy(float) for name in ("true_mean", "true_low", "true_high"))
        fig.add_scatter(
            x=own["estimate_mean"], y=values, mode="markers", name=f"{look.name} (n = {len(own)})",
            marker={"symbol": look.marker, "size": 10, "color": look.colour}, error_y=whiskers(values, low, high),
            customdata=[[int(row["layer"]), int(row["head"]), head_name(row)] for _, row in own.iterrows()],
            text=[f"<b>{head_name(row)}</b><br>{_head_hover(row)}".replace("\n", "<br>") for _, row in own.iterrows()],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    for _, row in verified[(verified["layer"] == selected[0]) & (verified["head"] == selected[1])].iterrows():
        ring_at(fig, row["estimate_mean"], row["true_mean"], GREY)
    reference_line(fig, 0.0)
    fig.update_xaxes(title_text="estimate, nats", fixedrange=True, title_font={"size": FONT_PX})
    return fig


def attention_in_time(frames: np.ndarray, step: float, name: str, seconds: float) -> go.Figure:
    """Attention to each position of A's recording against its time, drawn to stand under the player of A and B.

    Args:
        frames: [positions] shares of the reader's whole attention. step: seconds of a position.
        seconds: where the player's time ends: at the end of the longer recording.
    """
    fig = new_figure("")
    starts = step * np.arange(len(frames))
    fig.add_bar(
        x=starts + step / 2, y=frames, width=step, marker={"color": BLUE, "line": {"width": 0}}, name=name,
        hovertemplate="%{x:.2f} s: %{y:.1%}<extra></extra>",
    )  # fmt: skip
    fig.update_layout(height=150, showlegend=False, bargap=0, margin=PLAYER_MARGIN)
    fig.update_xaxes(title_text="seconds in A", range=[0, seconds], fixedrange=True, automargin=False)
    fig.update_yaxes(rangemode="tozero", tickformat=".0%", nticks=4, fixedrange=True, automargin=False)
    return fig
