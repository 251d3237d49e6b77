"""A figure of lines and points as it is on screen, drawn again for paper, where the run folder has none like it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes

from components.charts.words import unmarked
from interp_core.experiments.figures import LINES, MARKERS, Figure, quiet
from interp_core.looks import GREY

SIGNS: dict[str, str] = {str(name): sign for name, sign in MARKERS.items()}


def on_paper(figure: go.Figure, title: str) -> Figure:
    """Scatter traces with their error bars, upright and level lines, ticks and names of the axes.

    Args:
        title: set above; taken as text.
    """
    drawn = Figure(figsize=(8, 1.4 + (figure.layout.height or 400) / 90), dpi=150, layout="constrained")
    axes = drawn.subplots()
    drawn.suptitle(title, fontsize=10, parse_math=False)
    quiet(axes)
    order = figure.layout.yaxis.categoryarray
    heights = {} if order is None else {str(name): at for at, name in enumerate(order)}
    for trace in figure.data:
        if trace.type == "scatter" and trace.x is not None and trace.name != "selected":
            _trace(axes, trace, heights)
    for shape in figure.layout.shapes:
        if shape.x0 == shape.x1 and shape.yref in ("paper", "y domain"):
            axes.axvline(shape.x0, color=shape.line.color or GREY, linestyle="--", linewidth=1, zorder=1)
        elif shape.y0 == shape.y1 and shape.xref in ("paper", "x domain"):
            axes.axhline(shape.y0, color=shape.line.color or GREY, linestyle="--", linewidth=1, zorder=1)
    if heights:
        axes.set_yticks(list(heights.values()), [unmarked(name) for name in heights], fontsize=8, parse_math=False)
    for one, of, setter in (("x", figure.layout.xaxis, axes.set_xticks), ("y", figure.layout.yaxis, axes.set_yticks)):
        if of.tickvals is not None and of.ticktext is not None:
            setter(list(of.tickvals), [unmarked(str(text)) for text in of.ticktext], fontsize=8, parse_math=False)
        name = getattr(axes, f"set_{one}label")(unmarked(str(of.title.text or "")), fontsize=9)
        name.set_parse_math(False)
        if of.range is not None and of.type != "log":
            getattr(axes, f"set_{one}lim")(*of.range)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        for text in axes.legend(handles, labels, fontsize=8, frameon=False).get_texts():
            text.set_parse_math(False)
    return drawn


def _trace(axes: Axes, trace: go.Scatter, heights: dict[str, int]) -> None:
    x = np.array([np.nan if value is None else float(value) for value in trace.x])
    y = np.array([heights[str(v)] if str(v) in heights else np.nan if v is None else float(v) for v in trace.y])
    if not (np.isfinite(x) & np.isfinite(y)).any():
        return
    symbol = trace.marker.symbol
    symbols: Sequence[Any] = [symbol] if isinstance(symbol, str) or symbol is None else list(symbol)
    colour = trace.marker.color if isinstance(trace.marker.color, str) else trace.line.color or GREY
    line = LINES.get(trace.line.dash or "solid", "-") if "lines" in (trace.mode or "lines") else ""
    points = "markers" in (trace.mode or "")
    whisker: dict[str, Any] = {f"{one}err": _ends(getattr(trace, f"error_{one}")) for one in ("x", "y")}
    hollow = np.array([str(one).endswith("-open") for one in symbols])
    axes.errorbar(
        x, y, **whisker, color=colour, linestyle=line, marker=SIGNS.get(str(symbols[0]).removesuffix("-open"), "o"),
        markersize=5 if points else 0, linewidth=1.6, elinewidth=1, capsize=2,
        drawstyle="steps-post" if trace.line.shape == "hv" else "default",
        markerfacecolor="white" if hollow.all() else colour,
        label=unmarked(trace.name) if trace.showlegend is not False and trace.name else None,
    )  # fmt: skip
    if len(hollow) == len(x) and hollow.any():
        axes.plot(x[hollow], y[hollow], "o", markersize=3, color="white", zorder=5)


def _ends(of: Any) -> np.ndarray | None:
    """[2, n] lengths of whiskers below and above; None where there are none."""
    if of.array is None:
        return None
    above = np.nan_to_num(np.array(of.array, float))
    below = above if of.arrayminus is None else np.nan_to_num(np.array(of.arrayminus, float))
    return np.stack([np.maximum(below, 0), np.maximum(above, 0)])
