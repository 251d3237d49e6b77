"""Figures of a sign-flip run: tables in, plotly figures out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from components.charts import heatmap
from components.charts.parts import line_of, mark_at, new_figure
from interp_core.experiments.signflip.tables import OUTPUT
from interp_core.experiments.wording import p_said
from interp_core.looks import FLIPPED

PROXIES: Mapping[str, str] = {
    "rms": "RMS energy",
    "zcr": "Zero crossings",
    "centroid": "Modulation centroid",
    "centroid_no_dc": "Modulation centroid, without DC",
}


def place_name(layer: int) -> str:
    return "out" if layer == OUTPUT else str(layer)


def places(report: Mapping[str, Any]) -> list[int]:
    """The measured places, in the order of the forward pass."""
    return [*range(report["n_layers"]), OUTPUT]


def matrix(changes: pd.DataFrame, report: Mapping[str, Any], proxy: str, selected: tuple[int, int] | None) -> go.Figure:
    """Relative change of a proxy, edited layer x measured layer, in percent. What is before the edit is a gap; a 0 by
    construction is marked, and its hover says so.

    Args:
        selected: (edited, measured) layer.
    """
    rows, columns = list(report["layers"]), places(report)
    here = changes[changes["proxy"] == proxy].set_index(["flipped", "measured"])
    values = np.full((len(rows), len(columns)), np.nan)
    hover = [["before the edit: it cannot change" for _ in columns] for _ in rows]
    marks: dict[tuple[int, int], str] = {}
    in_place = []
    for i, flipped in enumerate(rows):
        for j, measured in enumerate(columns):
            if (flipped, measured) not in here.index:
                continue
            row = here.loc[(flipped, measured)]
            values[i, j] = 100 * row["change"]
            hover[i][j] = _hover(row)
            if flipped == measured:
                in_place.append((i, j))
            if row["by_construction"]:
                marks[i, j] = " ≡"
            elif row["p_random"] <= 0.05:
                marks[i, j] = "✱"
    chosen = None
    if selected is not None and selected[0] in rows and selected[1] in columns:
        chosen = (rows.index(selected[0]), columns.index(selected[1]))
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    return heatmap.heatmap(
        values,
        [str(layer) for layer in rows],
        [place_name(layer) for layer in columns],
        title=f"{PROXIES[proxy]}: change in % (≡ 0 by construction, ✱ beyond random)",
        unit="relative change, %",
        row_title="edited layer",
        column_title="measured at layer (out: what the head reads)",
        limits=(0.0, top if top > 0 else 1.0),
        number=".1f" if top >= 3 else ".2f" if top >= 0.3 else ".3f",
        hover=hover,
        selected=chosen,
        outlined=in_place,
        marks=marks,
    )


def _hover(row: pd.Series) -> str:
    if row["by_construction"]:
        return "0 by construction: this measure cannot see such a flip at its own layer"
    lines = [f"standard error {100 * row['se']:.2f} over {int(row['n_units'])} units, {int(row['n'])} clips"]
    lines.append(f"signed {100 * row['signed_change']:+z.2f}")
    if row["random_mean"] == row["random_mean"]:
        lines.append(
            f"random neurons {100 * row['random_mean']:.2f} ({100 * row['random_low']:.2f} to "
            f"{100 * row['random_high']:.2f}), {p_said(row['p_random'])}"
        )
    if row["n_undefined"]:
        lines.append(f"{int(row['n_undefined'])} clips have a base of 0: left out")
    return "; ".join(lines)


def curve(changes: pd.DataFrame, report: Mapping[str, Any], proxy: str, flipped: int, measured: int) -> go.Figure:
    """Change of a proxy at every place from the edited layer on, with error bars (standard error over units) and the
    band of random draws. Every point carries its place."""
    columns = places(report)
    rows = changes[(changes["proxy"] == proxy) & (changes["flipped"] == flipped)].copy()
    rows["x"] = [columns.index(place) for place in rows["measured"]]
    rows = rows.sort_values("x")
    figure = new_figure(f"{PROXIES[proxy]}: relative change, %")
    x, random, ranked = rows["x"].to_numpy(), FLIPPED["random"], FLIPPED["ranked"]
    if rows["random_mean"].notna().any():
        figure.add_scatter(
            x=[*x, *x[::-1]], y=[*(100 * rows["random_high"]), *(100 * rows["random_low"])[::-1]], mode="lines",
            fill="toself", fillcolor="rgba(122,122,122,0.2)", line={"width": 0}, hoverinfo="skip", showlegend=False,
            name="95 % of random draws",
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=100 * rows["random_mean"], mode="lines+markers", name=f"{random.name} ({report['draws']} draws)",
            line=line_of(random), marker={"color": random.colour, "symbol": random.marker, "size": 8},
            hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=x,
        y=100 * rows["change"],
        error_y={
            "type": "data",
            "array": (100 * rows["se"]).fillna(0).tolist(),
            "color": ranked.colour,
            "thickness": 2,
        },
        mode="lines+markers",
        name=f"neurons of {report['target']} (n = {int(rows['n'].max())} clips)",
        line=line_of(ranked),
        marker={
            "color": ranked.colour,
            "size": 10,
            "symbol": [f"{ranked.marker}-open" if zero else ranked.marker for zero in rows["by_construction"]],
            "line": {"color": ranked.colour, "width": 2},
        },
        customdata=[[int(place)] for place in rows["measured"]],
        text=[_hover(row) for _, row in rows.iterrows()],
        hovertemplate="%{y:.2f} %<br>%{text}<extra></extra>",
        cliponaxis=False,
    )
    if rows["by_construction"].any():
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name="0 by construction", hoverinfo="skip",
            marker={"symbol": "circle-open", "size": 10, "color": ranked.colour, "line": {"width": 2}},
        )  # fmt: skip
    if measured in list(rows["measured"]):
        mark_at(figure, columns.index(measured))
    figure.update_xaxes(
        title_text=f"measured at layer; edited: layer {flipped}", tickvals=list(range(len(columns))),
        ticktext=[place_name(place) for place in columns], range=[-0.4, len(columns) - 0.6],
    )  # fmt: skip
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(height=360)
    return figure
