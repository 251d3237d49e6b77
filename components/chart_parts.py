"""What the charts are put together from: looks, axes, a series with its band, marks and names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from components.chart_words import COUNT_OF, SIGNIFICANT, layer_name, row_reading

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # Okabe-Ito, 3:1 on white and on #171614
GREY = "#7A7A7A"  # 4.3:1 on white, 4.2:1 on #171614
COLORWAY = (BLUE, VERMILLION, GREEN, PURPLE)
FEW = 10  # fewer pairs than this are drawn hollow
MANY = 32  # more points than this are drawn smaller
HEIGHT_PX = 430
MARGIN_PX = {"l": 64, "r": 24, "t": 72, "b": 56}
# A click fades all points but one, and they stay so where the page has no reason to redraw.
UNFADED = {"selected": {"marker": {"opacity": 1}}, "unselected": {"marker": {"opacity": 1}}}
GLYPHS = {
    "square": "■", "x": "✖", "triangle-up": "▲", "cross": "✚", "diamond": "◆", "triangle-down": "▼",
    "hexagon": "⬢", "star-diamond": "✦",
}  # fmt: skip
FONT_PX = 14


@dataclass(frozen=True)
class Look:
    """How a series is told apart: name, colour, dash and marker, always the same on every page."""

    name: str
    color: str
    dash: str = "solid"
    symbol: str = "circle"
    width: float = 2.0


LOOKS: Mapping[str, Look] = {
    "matched": Look("patched from B", BLUE, width=3.0),
    "random": Look("random donor", GREY, "dash", "square"),
    "noise": Look("matched noise", GREY, "dot", "x"),
    "no-conflict": Look("no-conflict donor", GREY, "dashdot", "triangle-up"),
    "prefix": Look("prefix positions", GREY, "longdash", "cross"),
    "question": Look("question positions", GREEN, "longdashdot", "diamond"),
    "last": Look("last position", PURPLE, "longdash", "triangle-down"),
}
NO_CONFLICT_CHANGE = Look("no conflict, any change", GREY, "dashdot", "triangle-up")
LENS_LOOKS: Mapping[str, Look] = {
    "base": Look("logit lens, A", BLUE, "dot", "hexagon"),
    "donor": Look("logit lens, B", VERMILLION, "dash", "star-diamond"),
}
KNOCKOUT_LOOKS: Mapping[str, Look] = {
    "last": Look("the last position cannot read the audio", PURPLE, "dash", "triangle-down"),
    "text": Look("no text position can read the audio", GREEN, "solid", "diamond", width=3.0),
}


def new_figure(y_title: str) -> go.Figure:
    fig = go.Figure()
    fig.update_layout(
        height=HEIGHT_PX,
        margin=MARGIN_PX,
        font={"size": FONT_PX},
        hovermode="closest",
        hoverlabel={"align": "left", "font": {"size": FONT_PX}},
        legend={
            "orientation": "h", "x": 0, "xanchor": "left", "y": 1.07, "yanchor": "bottom", "font": {"size": FONT_PX},
        },
    )  # fmt: skip
    ticks = {"fixedrange": True, "tickfont": {"size": FONT_PX}, "title_font": {"size": FONT_PX}, "zeroline": False}
    fig.update_xaxes(showgrid=False, **ticks)
    fig.update_yaxes(title_text=y_title, **ticks)
    return fig


def add_series(
    fig: go.Figure,
    rows: pd.DataFrame,
    x: str,
    y: str,
    look: Look,
    *,
    count: str,
    band: bool = False,
    whole_steps: bool = True,
) -> go.Scatter:
    """A curve with markers, after its 95 % band. Returns the curve's trace.

    With `whole_steps` x counts layers, and a layer without a row leaves a gap.
    """
    rows = rows.sort_values(x)
    if whole_steps:
        rows = rows.set_index(x).reindex(range(int(rows[x].min()), int(rows[x].max()) + 1)).rename_axis(x).reset_index()
    if band and {f"{y}_low", f"{y}_high"} <= set(rows):
        _add_band(fig, rows[x].to_numpy(), rows[f"{y}_low"].to_numpy(), rows[f"{y}_high"].to_numpy(), look)
    counts = rows[count].to_numpy(dtype=float) if count in rows else np.full(len(rows), math.nan)
    known = counts[np.isfinite(counts)]
    shown = f" (n = {_span_of(known)})" if len(known) else ""
    fig.add_scatter(
        x=rows[x],
        y=[value if math.isfinite(value) else None for value in rows[y]],
        mode="lines+markers",
        name=f"{look.name}{shown}",
        connectgaps=False,
        cliponaxis=False,
        line={"color": look.color, "dash": look.dash, "width": look.width},
        marker={
            "color": look.color,
            "size": (9 if look.width > 2 else 7) - (3 if len(rows) > MANY else 0),
            "symbol": [f"{look.symbol}-open" if n < FEW else look.symbol for n in counts],
            "line": {"color": look.color, "width": 1.5},
        },
        **UNFADED,
        customdata=[[row[x], _hover(look, row, x, y)] for _, row in rows.iterrows()],
        hovertemplate="%{customdata[1]}<extra></extra>",
        meta={"name": look.name, "symbol": look.symbol},
    )
    return fig.data[-1]


def _span_of(counts: np.ndarray) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


def _hover(look: Look, row: pd.Series, x: str, y: str) -> str:
    if not math.isfinite(row[y]):
        return ""
    place = layer_name(row[x]) if x == "layer" else f"{x} {row[x]:g}"
    lines = [f"<b>{look.name}</b>, {place}", row_reading(row, y)]
    if math.isfinite(row.get("p_adjusted", math.nan)):
        lines.append(f"adjusted p = {row['p_adjusted']:.3f} against a random donor")
    count = row.get(COUNT_OF.get(y, "n"), math.nan)
    if count < FEW:
        lines.append(f"fewer than {FEW} pairs: hollow")
    return "<br>".join(lines)


def _add_band(fig: go.Figure, x: np.ndarray, low: np.ndarray, high: np.ndarray, look: Look) -> None:
    """A closed outline a run of points that have an interval; nothing is drawn across a gap."""
    known = np.isfinite(low) & np.isfinite(high)
    outline_x: list[float | None] = []
    outline_y: list[float | None] = []
    for part in np.split(np.arange(len(x)), np.flatnonzero(np.diff(known.astype(int))) + 1):
        if len(part) and known[part[0]]:
            outline_x += [*x[part], *x[part][::-1], None]
            outline_y += [*high[part], *low[part][::-1], None]
    fig.add_scatter(
        x=outline_x, y=outline_y, mode="lines", line={"width": 0}, fill="toself", fillcolor=_faint(look.color),
        hoverinfo="skip", showlegend=False, name=f"95 % interval, {look.name}",
    )  # fmt: skip


def _faint(color: str, alpha: float = 0.18) -> str:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def mark_significant(fig: go.Figure, rows: pd.DataFrame, column: str) -> None:
    """An asterisk above each layer whose adjusted p is under .05, and its line in the legend."""
    if "p_adjusted" not in rows or not (rows["p_adjusted"] < SIGNIFICANT).any():
        return
    for _, row in rows[rows["p_adjusted"] < SIGNIFICANT].dropna(subset=[column]).iterrows():
        fig.add_annotation(
            x=row["layer"], y=row[column], yshift=18, text="<b>✱</b>", showarrow=False, name="significant",
            font={"size": 15, "color": BLUE},
        )  # fmt: skip
    fig.add_scatter(
        x=[None], y=[None], mode="markers", name="adjusted p < .05 against random", hoverinfo="skip",
        marker={"symbol": "asterisk-open", "size": 10, "color": BLUE, "line": {"width": 2}},
    )  # fmt: skip


def ring(fig: go.Figure, rows: pd.DataFrame, column: str, layer: int | None) -> None:
    """A ring around the curve's point at the selected layer."""
    chosen = rows[rows["layer"] == layer].dropna(subset=[column])
    if len(chosen):
        fig.add_scatter(
            x=chosen["layer"], y=chosen[column], mode="markers", name="selected", hoverinfo="skip", showlegend=False,
            cliponaxis=False, marker={"symbol": "circle-open", "size": 20, "color": BLUE, "line": {"width": 3}},
            **UNFADED,
        )  # fmt: skip


def mark_layer(fig: go.Figure, layer: int | None) -> None:
    """A line through the plot at the selected layer, and its name above the plot."""
    if layer is None:
        return
    fig.add_vline(x=layer, line={"color": GREY, "width": 2, "dash": "solid"}, layer="below", name="selected layer")
    fig.add_annotation(
        x=layer, y=1, yref="paper", yanchor="bottom", yshift=12, showarrow=False, text=f"<b>{layer_name(layer)}</b>",
        font={"size": FONT_PX}, name="selected layer",
    )  # fmt: skip


def reference_line(fig: go.Figure, value: float) -> None:
    """A line across the plot, with its colour and width set: some templates hide plain shapes."""
    fig.add_hline(y=value, line={"color": GREY, "width": 1.5, "dash": "solid"}, layer="below", name="reference")


def rate_axis(fig: go.Figure) -> None:
    """A share of pairs always spans 0 to 1, with room for whole markers at both ends."""
    fig.update_yaxes(range=[-0.03, 1.03], dtick=0.2, tickformat=".1f")


def layer_axis(fig: go.Figure, layers: pd.Series) -> None:
    """Whole layers, `emb` for -1. Every layer has a tick; up to 20 have a number each, then every 2nd, 5th or 10th."""
    first, last = int(layers.min()), int(layers.max())
    count = last - first + 1
    step = 1 if count <= 21 else 2 if count <= 40 else 5 if count <= 100 else 10
    written = [layer for layer in range(max(first, 0), last + 1) if layer % step == 0 and (step == 1 or layer > 0)]
    if first == -1:
        written = [-1, *written]
    fig.update_xaxes(
        title_text="layer",
        range=[first - 0.5, last + 0.5],
        tickmode="array",
        tickvals=written,
        ticktext=["emb" if layer == -1 else str(layer) for layer in written],
        tickangle=0,
        minor={"tickmode": "linear", "tick0": 0, "dtick": 1, "ticks": "outside", "ticklen": 4},
    )


def name_right_ends(fig: go.Figure, traces: Sequence[go.Scatter]) -> None:
    """Writes each series' name beside its last point instead of in the legend, pushed apart where names would meet."""
    ends = []
    for trace in traces:
        trace.showlegend = False
        known = [(y, x) for x, y in zip(trace.x, trace.y, strict=True) if y is not None]
        if known:
            ends.append((*known[-1], trace))
    if not ends:
        return
    low, high = _value_range(fig)
    pixels_per_unit = (HEIGHT_PX - MARGIN_PX["t"] - MARGIN_PX["b"]) / max(high - low, 1e-9)
    lowest_free = -math.inf
    for value, x, trace in sorted(ends, key=lambda end: end[0]):
        place = max(value * pixels_per_unit, lowest_free)
        lowest_free = place + FONT_PX + 3
        glyph = f'<span style="color:{trace.line.color}">{GLYPHS[trace.meta["symbol"]]}</span>'
        fig.add_annotation(
            x=x, y=value, yshift=place - value * pixels_per_unit, xshift=12, xanchor="left", yanchor="middle",
            showarrow=False, text=f"{glyph} {trace.meta['name']}", font={"size": FONT_PX - 1}, name=trace.meta["name"],
        )  # fmt: skip
    fig.update_layout(margin={"r": 165})


def _value_range(fig: go.Figure) -> tuple[float, float]:
    values = [value for trace in fig.data for value in trace.y if value is not None and np.isfinite(value)]
    return min(values), max(values)


def lens_runs(lens: pd.DataFrame | None) -> list[tuple[str, pd.DataFrame]]:
    if lens is None or lens.empty:
        return []
    return [(run, lens[lens["run"] == run]) for run in LENS_LOOKS if (lens["run"] == run).any()]


def demand_one_group(table: pd.DataFrame, columns: Sequence[str] = ("kind", "prompt", "alpha")) -> None:
    """One curve a condition: a table of several kinds, prompts or strengths has to be filtered first."""
    for column in columns:
        if column in table and table[column].nunique() > 1:
            values = ", ".join(map(str, table[column].unique()[:5]))
            raise ValueError(f"the table holds several values of {column} ({values}): filter it to one.")
