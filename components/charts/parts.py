"""What the charts are put together from: looks, axes, a series with its band, marks and names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from components.charts.words import COUNT_OF, layer_name, plain, row_reading
from interp_core.experiments.wording import p_said
from interp_core.looks import BLUE, CATEGORIES, GREY, LENS, Look
from interp_core.maths.stats import SIGNIFICANT

CHART_CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "toImageButtonOptions": {"format": "svg", "filename": "patchbay"},
}
"""What plotly's own buttons are, on every page."""
PRESENTED_TYPE, PRESENTED_LINES = 1.3, 1.6
"""How much larger words and markers, and thicker lines, are for an audience."""
FEW = 10  # fewer pairs than this are drawn hollow
MANY = 32  # more points than this are drawn smaller
HEIGHT_PX = 400
MARGIN_PX = {"l": 64, "r": 24, "t": 78, "b": 56}
LEGEND_GAP_PX = 26  # between the plot and its legend: the selected layer's name stands there
SELECTED = "selected"
"""The name of every trace, shape and annotation that marks what is selected; on a page `marks` draws them."""
GLYPHS = {
    "square": "■", "x": "✖", "triangle-up": "▲", "cross": "✚", "diamond": "◆", "triangle-down": "▼",
    "hexagon": "⬢", "star-diamond": "✦",
}  # fmt: skip
DASHES = {
    "solid": "―{}―", "dash": "- {} -", "dot": "··{}··", "dashdot": "-·{}·-", "longdash": "– {} –",
    "longdashdot": "–·{}·–",
}  # fmt: skip
"""A line's dash in signs, around its marker's."""
FONT_PX = 14


def new_figure(y_title: str, height: int = HEIGHT_PX) -> go.Figure:
    ticks = {"fixedrange": True, "tickfont": {"size": FONT_PX}, "zeroline": False}
    layout = {
        "height": height,
        "margin": MARGIN_PX,
        "font": {"size": FONT_PX},
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "font": {"size": FONT_PX}},
        "legend": {
            "orientation": "h", "x": 0, "xanchor": "left", "y": 1 + LEGEND_GAP_PX / _plot_px(HEIGHT_PX),
            "yanchor": "bottom", "font": {"size": FONT_PX},
        },
        "xaxis": {**ticks, "title": {"font": {"size": FONT_PX}}, "showgrid": False},
        "yaxis": {**ticks, "title": {"font": {"size": FONT_PX}, "text": y_title}},
    }  # fmt: skip
    return go.Figure(layout=layout)  # at once: each `update_…` copies and checks what is there


def annotate(fig: go.Figure, annotations: Sequence[dict[str, Any]]) -> None:
    """Add them all at once: `add_annotation` copies and checks those that are there each time."""
    fig.layout.annotations = (*fig.layout.annotations, *annotations)


def _plot_px(height: float) -> float:
    """Pixels from the plot's lower edge to its upper one in a figure as high as this."""
    return height - MARGIN_PX["t"] - MARGIN_PX["b"]


def line_of(look: Look) -> dict[str, object]:
    """A look as plotly's line; its dash and its marker are plotly's own words."""
    return {"color": look.colour, "dash": look.dash, "width": 3.0 if look.strong else 2.0}


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
        add_band(fig, rows[x].to_numpy(), rows[f"{y}_low"].to_numpy(), rows[f"{y}_high"].to_numpy(), look)
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
        line=line_of(look),
        marker={
            "color": look.colour,
            "size": (9 if look.strong else 7) - (3 if len(rows) > MANY else 0),
            "symbol": [f"{look.marker}-open" if n < FEW else look.marker for n in counts],
            "line": {"color": look.colour, "width": 1.5},
        },
        customdata=[[row[x], _hover(look, row, x, y)] for _, row in rows.iterrows()],
        hovertemplate="%{customdata[1]}<extra></extra>",
        meta={"name": look.name, "symbol": look.marker},
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
        lines.append(f"adjusted {p_said(row['p_adjusted'])} against a random donor")
    count = row.get(COUNT_OF.get(y, "n"), math.nan)
    if count < FEW:
        lines.append(f"fewer than {FEW} pairs: hollow")
    return "<br>".join(lines)


def add_band(fig: go.Figure, x: np.ndarray, low: np.ndarray, high: np.ndarray, look: Look) -> None:
    """A closed outline a run of points that have an interval; nothing is drawn across a gap."""
    known = np.isfinite(low) & np.isfinite(high)
    outline_x: list[float | None] = []
    outline_y: list[float | None] = []
    for part in np.split(np.arange(len(x)), np.flatnonzero(np.diff(known.astype(int))) + 1):
        if len(part) and known[part[0]]:
            outline_x += [*x[part], *x[part][::-1], None]
            outline_y += [*high[part], *low[part][::-1], None]
    fig.add_scatter(
        x=outline_x, y=outline_y, mode="lines", line={"width": 0}, fill="toself", fillcolor=_faint(look.colour),
        hoverinfo="skip", showlegend=False, name=f"95 % interval, {look.name}",
    )  # fmt: skip


def _faint(color: str, alpha: float = 0.18) -> str:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def mark_significant(fig: go.Figure, rows: pd.DataFrame, column: str) -> None:
    """An asterisk above each layer whose adjusted p is under .05, and its line in the legend."""
    if "p_adjusted" not in rows or not (rows["p_adjusted"] < SIGNIFICANT).any():
        return
    sure = rows[rows["p_adjusted"] < SIGNIFICANT].dropna(subset=[column])
    # One trace: the browser lays each annotation out on its own. The empty line keeps the sign clear of the marker.
    fig.add_scatter(
        x=sure["layer"], y=sure[column], mode="text", text="<b>✱</b><br> ", textposition="top center",
        textfont={"size": 13, "color": GREY}, name="significant", hoverinfo="skip", showlegend=False, cliponaxis=False,
    )  # fmt: skip
    fig.add_scatter(
        x=[None], y=[None], mode="markers", name="✱ adjusted p < .05 against random", hoverinfo="skip",
        marker={"symbol": "circle", "size": 1, "color": "rgba(0,0,0,0)"},
    )  # fmt: skip


def ring(fig: go.Figure, rows: pd.DataFrame, column: str, layer: int | None) -> None:
    """A ring around the curve's point at the selected layer."""
    for _, row in rows[rows["layer"] == layer].iterrows():
        ring_at(fig, row["layer"], row[column], BLUE)


def ring_at(fig: go.Figure, x: Any, y: Any, colour: str) -> None:
    """A ring around what is selected, at numbers or at names; none where it has no value."""
    if all(isinstance(one, str) or math.isfinite(one) for one in (x, y)):
        fig.add_scatter(
            x=[x], y=[y], mode="markers", name=SELECTED, hoverinfo="skip", showlegend=False, cliponaxis=False,
            marker={"symbol": "circle-open", "size": 20, "color": colour, "line": {"width": 3}},
        )  # fmt: skip


def whiskers(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    """An interval from low to high around each value as plotly's error bars; none where it is not known."""
    known = np.isfinite(low) & np.isfinite(high)
    return {
        "type": "data", "symmetric": False, "visible": bool(known.any()), "thickness": 1.5, "width": 4,
        "array": np.where(known, high - values, 0), "arrayminus": np.where(known, values - low, 0),
    }  # fmt: skip


def mark_layer(fig: go.Figure, layer: int | None) -> None:
    """A line through the plot at the selected layer, and its name above the plot."""
    if layer is not None:
        mark_at(fig, layer, layer_name(layer))


def mark_at(fig: go.Figure, x: float, name: str = "") -> None:
    """A line through the plot at what is selected, and its name, plain text, above the plot."""
    # Not `add_vline`, which goes through every subplot that there could be.
    fig.add_shape(
        type="line", x0=x, x1=x, y0=0, y1=1, yref="y domain", layer="below", name=SELECTED,
        line={"color": GREY, "width": 2, "dash": "solid"},
    )  # fmt: skip
    if name:
        written = {
            "x": x, "y": 1, "yref": "paper", "yanchor": "bottom", "yshift": 2, "showarrow": False,
            "text": f"<b>{name}</b>", "font": {"size": FONT_PX}, "name": SELECTED,
        }  # fmt: skip
        annotate(fig, [written])


def reference_line(fig: go.Figure, value: float) -> None:
    """A line across the plot, with its colour and width set: some templates hide plain shapes."""
    fig.add_hline(y=value, line={"color": GREY, "width": 1.5, "dash": "solid"}, layer="below", name="reference")


def rate_axis(fig: go.Figure) -> None:
    """A share of pairs always spans 0 to 1, with room for whole markers at both ends and an asterisk over a 1."""
    fig.update_yaxes(range=[-0.03, 1.12], tickvals=[0, 0.2, 0.4, 0.6, 0.8, 1], tickformat=".1f")


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
        # A line lower than the numbers: on one line `emb` and `0` meet where layers are close.
        ticktext=["<br>emb" if layer == -1 else str(layer) for layer in written],
        tickangle=0,
        title_standoff=4,
        minor={"tickmode": "linear", "tick0": 0, "dtick": 1, "ticks": "outside", "ticklen": 4},
    )
    numbers_fit(fig)


def numbers_fit(fig: go.Figure) -> None:
    """Keep the margins as they are: to make them fit, the browser lays out every axis a second time."""
    fig.update_xaxes(automargin=False)
    fig.update_yaxes(automargin=False)


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks of a logarithmic axis between two numbers, each written out; plotly writes a bare 2 and 5 between tens.

    Every 1, 2 and 5 over two decades or less, else every power of ten.
    """
    if not (math.isfinite(low + high) and 0 < low <= high):
        return {}
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if math.log10(high / low) <= 2 else (1,)
    values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return {"type": "log", "tickmode": "array", "tickvals": values, "ticktext": [f"{value:g}" for value in values]}


def thinned(names: Sequence[str], most_letters: int) -> list[int]:
    """Which of the names to write so that, side by side, they are no longer than so many letters together."""
    longest = max((len(name) for name in names), default=0) + 2
    step = max(1, math.ceil(len(names) * longest / most_letters))
    return list(range(0, len(names), step))


def at_height(fig: go.Figure, height: int) -> go.Figure:
    """A copy with another height in pixels and no more around the plot than it needs."""
    copy, (above, below, left), named = go.Figure(fig), (112, 58, 92), 22
    copy.update_layout(
        height=height, margin={"t": above, "b": below, "l": left},  # the name of y has two lines, those of layers too
        legend={"y": 1 + (named + PRESENTED_TYPE * 24) / (height - above - below)},
    )  # fmt: skip
    copy.update_annotations(yshift=named, selector={"name": SELECTED})  # clear of an asterisk below it
    copy.update_xaxes(title_standoff=0)
    title = copy.layout.yaxis.title.text or ""
    copy.update_yaxes(title_text=title.replace(" (", "<br>(", 1))  # on one line it is longer than a low figure is high
    return copy


def presented(fig: go.Figure) -> go.Figure:
    """A copy for an audience: larger words, thicker lines, larger markers."""
    copy = go.Figure(fig)
    for trace in copy.data:
        if trace.type != "scatter":
            continue
        if trace.line.width:
            trace.line.width *= PRESENTED_LINES
        if trace.marker.size is not None:
            size = trace.marker.size
            trace.marker.size = [one * PRESENTED_TYPE for one in size] if np.ndim(size) else size * PRESENTED_TYPE
        if trace.textfont.size:
            trace.textfont.size *= PRESENTED_TYPE
    size = FONT_PX * PRESENTED_TYPE
    axis = {"tickfont": {"size": size}, "title_font": {"size": size}}
    copy.update_xaxes(**axis)
    copy.update_yaxes(**axis)
    copy.update_annotations(font={"size": size})
    copy.update_layout(font={"size": size}, legend={"font": {"size": size}}, hoverlabel={"font": {"size": size}})
    if copy.layout.margin.r and copy.layout.margin.r > 100:  # of names beside the curves
        copy.update_layout(margin={"r": round(copy.layout.margin.r * PRESENTED_TYPE)})
    return copy


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
    pixels_per_unit = _plot_px(HEIGHT_PX) / max(high - low, 1e-9)
    lowest_free = -math.inf
    names = []
    for value, x, trace in sorted(ends, key=lambda end: end[0]):
        place = max(value * pixels_per_unit, lowest_free)
        lowest_free = place + FONT_PX + 5
        sign = DASHES[trace.line.dash].format(GLYPHS[trace.meta["symbol"]])
        glyph = f'<span style="color:{trace.line.color}">{sign}</span>'
        names.append({
            "x": x, "y": value, "yshift": place - value * pixels_per_unit, "xshift": 12, "xanchor": "left",
            "yanchor": "middle", "showarrow": False, "text": f"{glyph} {trace.meta['name']}",
            "font": {"size": FONT_PX - 1}, "name": trace.meta["name"],
        })  # fmt: skip
    annotate(fig, names)
    fig.update_layout(margin={"r": 175})


def _value_range(fig: go.Figure) -> tuple[float, float]:
    values = [value for trace in fig.data for value in trace.y if value is not None and np.isfinite(value)]
    return min(values), max(values)


def lens_runs(lens: pd.DataFrame | None) -> list[tuple[str, pd.DataFrame]]:
    if lens is None or lens.empty:
        return []
    return [(run, lens[lens["run"] == run]) for run in LENS if (lens["run"] == run).any()]


def demand_one_group(table: pd.DataFrame, columns: Sequence[str] = ("kind", "prompt", "alpha")) -> None:
    """One curve a condition: a table of several kinds, prompts or strengths has to be filtered first."""
    for column in columns:
        if column in table and table[column].nunique() > 1:
            values = ", ".join(map(str, table[column].unique()[:5]))
            raise ValueError(f"the table holds several values of {column} ({values}): filter it to one.")


def for_export(fig: go.Figure, title: str) -> go.Figure:
    """A copy for a file: white paper, black text, and a title that says what the page around it would have said.

    Args:
        title: model, kind or pair, n, seed and date; plain text, lines split by newlines.
    """
    copy = go.Figure(fig)
    lines = "<br>".join(plain(line) for line in title.splitlines())
    extra = 24 * len(title.splitlines()) + 16
    copy.update_layout(
        template="plotly_white",
        colorway=list(CATEGORIES),
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"color": "black", "size": FONT_PX},
        title={
            "text": lines, "x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 14, "l": 12},
            "font": {"size": 16},
        },
        margin={"t": copy.layout.margin.t + extra},
        height=copy.layout.height + extra,
    )  # fmt: skip
    return copy
