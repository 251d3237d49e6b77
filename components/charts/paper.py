"""A figure as it is on screen, drawn again for paper, where the run folder has none like it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from components.charts.parts import SELECTED
from components.charts.words import unmarked
from interp_core.experiments.figures import LINES, MARKERS, Figure, quiet
from interp_core.looks import GREY

SIGNS: dict[str, str] = {str(name): sign for name, sign in MARKERS.items()}
POINTS_A_PX = 0.75
Places = Mapping[str, int]
"""Where the names on an axis stand; empty where it has numbers."""


def on_paper(figure: go.Figure, title: str) -> Figure:
    """Curves with bands, whiskers and markers, bars, matrices, words beside them, lines across, ticks, names of axes.

    Args:
        title: set above; taken as text.
    """
    drawn = Figure(figsize=(8, 1.4 + (figure.layout.height or 400) / 90), dpi=150, layout="constrained")
    axes = drawn.subplots()
    drawn.suptitle(title, fontsize=10, parse_math=False)
    places = {one: _places(figure, one) for one in ("x", "y")}
    if not any(trace.type == "heatmap" for trace in figure.data):
        quiet(axes)
    for trace in figure.data:
        if trace.name == "cells":
            continue
        if trace.type == "heatmap":
            _matrix(drawn, axes, trace)
        elif trace.type == "bar":
            _bars(axes, trace, places)
        elif trace.type == "scatter" and trace.x is not None:
            _trace(axes, trace, places)
    for shape in figure.layout.shapes:
        _shape(axes, shape)
    named = {trace.meta["name"]: trace.line.color for trace in figure.data if isinstance(trace.meta, Mapping)}
    for one in figure.layout.annotations:
        _annotation(axes, one, named)
    for name, of in (("x", figure.layout.xaxis), ("y", figure.layout.yaxis)):
        _axis(axes, name, of, places[name])
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        for text in axes.legend(handles, labels, fontsize=8, frameon=False).get_texts():
            text.set_parse_math(False)
    return drawn


def _places(figure: go.Figure, one: str) -> Places:
    order = getattr(figure.layout, f"{one}axis").categoryarray
    if order is None:
        values = [v for trace in figure.data if getattr(trace, one, None) is not None for v in getattr(trace, one)]
        order = [value for value in values if isinstance(value, str)]
    return {name: at for at, name in enumerate(dict.fromkeys(map(str, order)))}


def _numbers(values: Any, places: Places) -> np.ndarray:
    """Where values stand on their axis; NaN where there is none."""
    if places:
        return np.array([places.get(str(value), np.nan) for value in values], float)
    return np.array([np.nan if value is None else float(value) for value in values])


def _colour(said: Any) -> Any:
    """Plotly's colour as matplotlib takes it."""
    found = re.fullmatch(r"rgba?\(([^)]*)\)", str(said))
    if found is None:
        return said
    red, green, blue, *alpha = (float(part) for part in found.group(1).split(","))
    return (red / 255, green / 255, blue / 255, *alpha)


# ---- traces ----------------------------------------------------------------------------------------------------------


def _matrix(drawn: Figure, axes: Axes, trace: go.Heatmap) -> None:
    values = np.ma.masked_invalid(np.array(trace.z, float))
    colours = LinearSegmentedColormap.from_list("shown", [(at, _colour(one)) for at, one in trace.colorscale])
    edges = [np.arange(count + 1) - 0.5 for count in values.shape]
    mesh = axes.pcolormesh(edges[1], edges[0], values, cmap=colours, vmin=trace.zmin, vmax=trace.zmax)
    bar = drawn.colorbar(mesh, ax=axes, pad=0.02)
    bar.set_label(unmarked(str(trace.colorbar.title.text or "")), fontsize=8, parse_math=False)
    bar.ax.tick_params(labelsize=8)
    if trace.colorbar.tickvals is not None:
        bar.set_ticks(list(trace.colorbar.tickvals), labels=[unmarked(str(one)) for one in trace.colorbar.ticktext])


def _bars(axes: Axes, trace: go.Bar, places: Mapping[str, Places]) -> None:
    lying = trace.orientation == "h"
    along, length = (trace.y, trace.x) if lying else (trace.x, trace.y)
    at = _numbers(along, places["y" if lying else "x"])
    size = np.array(length, float)
    width = 0.7 if trace.width is None else np.array(trace.width, float)
    error = _ends(trace.error_x if lying else trace.error_y)
    settings: dict[str, Any] = {
        "color": _colour(trace.marker.color), "edgecolor": GREY, "linewidth": 0.5,
        "label": unmarked(trace.name) if trace.showlegend is not False and trace.name else None,
    }  # fmt: skip
    if lying:
        axes.barh(at, size, width, xerr=error, **settings)
    else:
        axes.bar(at, size, width, yerr=error, **settings)


def _trace(axes: Axes, trace: go.Scatter, places: Mapping[str, Places]) -> None:
    x, y = _numbers(trace.x, places["x"]), _numbers(trace.y, places["y"])
    if not (np.isfinite(x) & np.isfinite(y)).any():
        return
    if trace.fill == "toself":
        ends = np.flatnonzero(~np.isfinite(x))
        for part in np.split(np.arange(len(x)), ends):
            part = part[np.isfinite(x[part])]
            if len(part):
                axes.fill(x[part], y[part], color=_colour(trace.fillcolor), linewidth=0)
        return
    mode = trace.mode or "lines"
    if mode == "text":
        _words(axes, trace, x, y)
        return
    symbol = trace.marker.symbol
    symbols: Sequence[Any] = [symbol] if isinstance(symbol, str) or symbol is None else list(symbol)
    colour = _colour(trace.marker.color if isinstance(trace.marker.color, str) else trace.line.color or GREY)
    line = LINES.get(trace.line.dash or "solid", "-") if "lines" in mode else ""
    whisker: dict[str, Any] = {f"{one}err": _ends(getattr(trace, f"error_{one}")) for one in ("x", "y")}
    hollow = np.array([str(one).endswith("-open") for one in symbols])
    ring = trace.name == SELECTED and bool(hollow.all())
    axes.errorbar(
        x, y, **whisker, color=colour, linestyle=line, marker=SIGNS.get(str(symbols[0]).removesuffix("-open"), "o"),
        markersize=_size(trace) if "markers" in mode else 0, alpha=trace.opacity, linewidth=1.6, elinewidth=1,
        capsize=2,
        drawstyle="steps-post" if trace.line.shape == "hv" else "default",
        markerfacecolor="none" if ring else "white" if hollow.all() else colour,
        label=unmarked(trace.name) if trace.showlegend is not False and trace.name else None,
    )  # fmt: skip
    if len(hollow) == len(x) and hollow.any() and not ring:
        axes.plot(x[hollow], y[hollow], "o", markersize=3, color="white", zorder=5)


def _size(trace: go.Scatter) -> float:
    """Of its markers in points; where each has its own, the first one's."""
    size = trace.marker.size
    return 0.55 * float(9 if size is None else np.ravel(size)[0])


def _words(axes: Axes, trace: go.Scatter, x: np.ndarray, y: np.ndarray) -> None:
    """The words of a trace where they stand: numbers in cells, signs over points."""
    texts = [trace.text] * len(x) if isinstance(trace.text, str) else trace.text
    colours = trace.textfont.color
    each = [colours] * len(x) if isinstance(colours, str) or colours is None else colours
    above = "top" in str(trace.textposition or "")
    for at, up, text, colour in zip(x, y, texts, each, strict=True):
        axes.annotate(
            unmarked(str(text)).strip(), (at, up), (0, 4 if above else 0), textcoords="offset points", ha="center",
            va="bottom" if above else "center", fontsize=7, color=_colour(colour or GREY), parse_math=False,
        )  # fmt: skip


def _ends(of: Any) -> np.ndarray | None:
    """[2, n] lengths of whiskers below and above; None where there are none."""
    if of.array is None:
        return None
    above = np.nan_to_num(np.array(of.array, float))
    below = above if of.arrayminus is None else np.nan_to_num(np.array(of.arrayminus, float))
    return np.stack([np.maximum(below, 0), np.maximum(above, 0)])


# ---- what stands around them -----------------------------------------------------------------------------------------


def _shape(axes: Axes, shape: Any) -> None:
    colour = _colour(shape.line.color or GREY)
    if shape.type == "rect":
        width, height = shape.x1 - shape.x0, shape.y1 - shape.y0
        corner, thick = (shape.x0, shape.y0), (shape.line.width or 1) * POINTS_A_PX
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=thick, zorder=4))
    elif shape.x0 == shape.x1 and shape.yref in ("paper", "y domain"):
        axes.axvline(shape.x0, color=colour, linestyle="--", linewidth=1, zorder=1)
    elif shape.y0 == shape.y1 and shape.xref in ("paper", "x domain"):
        axes.axhline(shape.y0, color=colour, linestyle="--", linewidth=1, zorder=1)


def _annotation(axes: Axes, one: Any, named: Mapping[str, Any]) -> None:
    """Words at a point of the plot or above it; the name of a curve beside its end has the curve's colour."""
    if one.xref == "paper" or not isinstance(one.x, int | float) or not isinstance(one.y, int | float):
        return
    text = one.name if one.name in named else unmarked(str(one.text))
    shift = ((one.xshift or 0) * POINTS_A_PX, (one.yshift or 0) * POINTS_A_PX)
    if one.showarrow is not False:
        shift = ((one.ax or 0) * POINTS_A_PX, -(one.ay or 0) * POINTS_A_PX)
    axes.annotate(
        text, (one.x, one.y), shift, textcoords="offset points", fontsize=8, parse_math=False,
        xycoords=axes.get_xaxis_transform() if one.yref == "paper" else "data",
        ha=one.xanchor if one.xanchor in ("left", "right") else "center",
        va={"bottom": "bottom", "top": "top"}.get(str(one.yanchor), "center"),
        color=_colour(named.get(str(one.name)) or "black"),
        arrowprops={"arrowstyle": "-|>", "color": _colour(one.arrowcolor or GREY)} if one.showarrow is not False
        else None, annotation_clip=False,
    )  # fmt: skip


def _axis(axes: Axes, name: str, of: Any, places: Places) -> None:
    """Scale, ticks, name and ends of an axis."""
    setter, limit = getattr(axes, f"set_{name}ticks"), getattr(axes, f"set_{name}lim")
    if of.type == "log":
        getattr(axes, f"set_{name}scale")("log")
    if places:
        setter(list(places.values()), [unmarked(one) for one in places], fontsize=8, parse_math=False)
    if of.tickvals is not None:
        texts = of.ticktext if of.ticktext is not None else [f"{value:g}" for value in of.tickvals]
        shown = [unmarked(str(text)) for text in texts]
        turned = {"rotation": 45} if name == "x" and sum(map(len, shown)) > 110 else {}
        setter(list(of.tickvals), shown, fontsize=8, parse_math=False, **turned)
    if of.showticklabels is False:
        setter([])
    getattr(axes, f"set_{name}label")(unmarked(str(of.title.text or "")), fontsize=9).set_parse_math(False)
    if of.range is not None:
        limit(*(10.0 ** np.array(of.range, float) if of.type == "log" else of.range))
    elif of.autorange == "reversed":
        getattr(axes, f"invert_{name}axis")()
