"""Two runs over each other: curves, their difference, or one against the other where there are too many names."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from components.charts.parts import FONT_PX, MANY, layer_axis, line_of, new_figure, reference_line
from components.charts.words import plain
from components.runs.compared import DIFFERENCE, ONE, OTHER, Compared, place
from interp_core.looks import GREY, SIDE_BY_SIDE, Look

MOST_NAMES = 24
"""Names that have room side by side on an axis; of more, one run is drawn against the other."""
LOOKS: Mapping[str, Look] = {ONE: SIDE_BY_SIDE["one"], OTHER: SIDE_BY_SIDE["other"]}
SMALL_PX = 240
LETTERS_OF_A_LINE = 36


def crowded(compared: Compared) -> bool:
    """Whether there are more names than an axis can hold."""
    return compared.textual and len(compared.points) > MOST_NAMES


def curves(compared: Compared, series: str, x_title: str) -> go.Figure:
    """Both runs over x. A layer that one of them does not have is a gap in its curve; a dose that it was not asked for
    is none.
    """
    figure = new_figure(_folded(series))
    for run, look in LOOKS.items():
        _add(figure, compared, run, x_title, look, 9)
    _name_x(figure, compared, x_title)
    return figure


def _add(figure: go.Figure, compared: Compared, run: str, x_title: str, look: Look, size: int) -> None:
    """One run, or the difference of the two, over x."""
    rows, number = compared.points, "+.4g" if run == DIFFERENCE else ".4g"
    named = zip(rows["x"], rows[run], strict=True)
    figure.add_scatter(
        x=_axis_values(rows["x"], x_title),
        y=[None if pd.isna(value) else value for value in rows[run]],
        mode="lines+markers",
        name=run,
        showlegend=run != DIFFERENCE,
        connectgaps=x_title != "layer",
        cliponaxis=False,
        line=line_of(look),
        marker={"color": look.colour, "symbol": look.marker, "size": 6 if len(rows) > MANY else size},
        text=[f"<b>{run}</b>, {plain(place(x, x_title))}<br>{value:{number}}" for x, value in named],
        hovertemplate="%{text}<extra></extra>",
    )


def differences(compared: Compared, x_title: str) -> go.Figure:
    """Run 1 less run 2 over the same x, about a line at 0."""
    figure = new_figure(DIFFERENCE)
    rows = compared.points
    _add(figure, compared, DIFFERENCE, x_title, Look(DIFFERENCE, GREY, "dot", "diamond"), 8)
    reference_line(figure, 0.0)
    _name_x(figure, compared, x_title)
    low, high = min(rows[DIFFERENCE].min(), 0.0), max(rows[DIFFERENCE].max(), 0.0)
    room = 0.12 * (high - low) or 1.0
    figure.update_yaxes(range=[low - room, high + room])
    figure.update_layout(height=SMALL_PX, margin={"t": 16})
    return figure


def against(compared: Compared, series: str) -> go.Figure:
    """Run 1 against run 2, a marker a name; on the line they agree."""
    rows = compared.both
    figure = new_figure(f"{ONE}: {_folded(series)}")
    low, high = rows[[ONE, OTHER]].to_numpy().min(), rows[[ONE, OTHER]].to_numpy().max()
    room = 0.04 * (high - low) or 0.5
    ends = [low - room, high + room]
    look = LOOKS[ONE]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", name="the two agree", line={"color": GREY, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
    )  # fmt: skip
    figure.add_scatter(
        x=rows[OTHER],
        y=rows[ONE],
        mode="markers",
        name=f"{len(rows)} places in both runs",
        marker={"color": look.colour, "symbol": look.marker, "size": 8, "opacity": 0.75},
        text=[
            f"<b>{plain(x)}</b><br>{ONE}: {here:.4g}<br>{OTHER}: {there:.4g}<br>{DIFFERENCE}: {apart:+.4g}"
            for x, here, there, apart in rows[["x", ONE, OTHER, DIFFERENCE]].itertuples(index=False)
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.update_xaxes(title_text=f"{OTHER}: {plain(series)}", range=ends)
    figure.update_yaxes(range=ends)
    return figure


def _axis_values(x: pd.Series, x_title: str) -> list[object]:
    """Layers stand where they are; doses and names follow each other at even steps."""
    return list(x) if x_title == "layer" else [f"{one:g}" if not isinstance(one, str) else plain(one) for one in x]


def _name_x(figure: go.Figure, compared: Compared, x_title: str) -> None:
    x = compared.points["x"]
    if x_title == "layer" and not compared.textual:
        layer_axis(figure, x)
        return
    figure.update_xaxes(
        title_text=x_title, type="category", categoryorder="array", categoryarray=_axis_values(x, x_title),
        tickfont={"size": FONT_PX},
    )  # fmt: skip


def _folded(series: str) -> str:
    """A long name in lines that fit the height of a figure."""
    return "<br>".join(plain(line) for line in textwrap.wrap(series, LETTERS_OF_A_LINE))
