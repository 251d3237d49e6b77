"""The curves of a run that goes on: what its chunks say by now, without intervals or significance."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from components.charts.parts import FONT_PX, layer_axis, new_figure, rate_axis
from components.charts.words import plain
from interp_core.looks import CATEGORIES

MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "triangle-down", "star")
DASHES = ("solid", "dash", "dot", "dashdot")
MOST_TICKS = 24


def figure(curves: pd.DataFrame) -> go.Figure:
    """Every series over its x.

    Args:
        curves: series, x, value and n, at least one row.
    """
    drawn = new_figure("")
    layers = pd.api.types.is_numeric_dtype(curves["x"])
    for at, (series, rows) in enumerate(curves.groupby("series", sort=False)):
        colour = CATEGORIES[at % len(CATEGORIES)]
        drawn.add_scatter(
            x=rows["x"], y=rows["value"], mode="lines+markers" if layers else "markers", name=plain(series),
            line={"color": colour, "dash": DASHES[(at + at // len(CATEGORIES)) % len(DASHES)], "width": 2},
            marker={"color": colour, "symbol": MARKERS[at % len(MARKERS)], "size": 7},
            customdata=rows["n"], hovertemplate="%{x}: %{y:.3g}, of %{customdata} so far<extra></extra>",
        )  # fmt: skip
    if layers and (curves["x"] >= -1).all():
        layer_axis(drawn, curves["x"])
        drawn.update_xaxes(title_text="")  # a layer of some runs, a dose of others
    if curves["x"].nunique() > MOST_TICKS and not layers:
        drawn.update_xaxes(showticklabels=False)
    if curves["value"].between(0, 1).all():
        rate_axis(drawn)
    legend = {"y": 1.02, "font": {"size": FONT_PX - 1}}
    return drawn.update_layout(height=320, margin={"t": 24, "b": 56}, legend=legend, showlegend=True)


def alt(curves: pd.DataFrame) -> str:
    """What the figure shows, in a sentence."""
    rows = curves.dropna(subset=["value"]).to_dict("records")
    top = max(rows, key=lambda row: row["value"], default=None)
    said = "" if top is None else f" The highest by now is {top['value']:.3g} at {top['x']} ({top['series']})."
    return f"What the run has come to so far, {curves['series'].nunique()} series.{said}"
