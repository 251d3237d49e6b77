"""What is selected in a chart, as a thing apart from the chart: a step draws it anew and leaves the chart as it is.

A figure has its mark inside, and so it leaves the page in a file. On a page Streamlit takes a figure that differs in
anything for another chart and draws it from nothing: there the mark is taken off, and a small component draws it into
the chart (`assets/chart_mark`). The component also hands over what is clicked, because a chart that keeps selections of
its own takes the second click on a point for a wish to let go of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from components import page_style
from components.charts.parts import SELECTED
from components.charts.words import unmarked

Carried = Sequence[Sequence[Any]]
"""The `customdata` of each point that was clicked."""

_JS = Path(__file__).resolve().parents[2] / "assets" / "chart_mark" / "mark.js"
_mount = st.components.v2.component("patchbay_chart_mark", js=_JS.read_text(encoding="utf-8"), isolate_styles=False)


def taken_off(figure: go.Figure) -> tuple[go.Figure, dict[str, list[dict[str, Any]]]]:
    """A figure without the parts that are called `SELECTED`, and these: lines, dots, ways between, frames and names.

    Places are the figure's own numbers or names; sizes and widths are in pixels.
    """
    made = figure.to_dict()
    layout = made["layout"]
    shapes, notes = layout.get("shapes", ()), layout.get("annotations", ())
    mark: dict[str, list[dict[str, Any]]] = {"lines": [], "ways": [], "dots": [], "frames": [], "names": []}
    for trace in figure.select_traces({"name": SELECTED}):  # in a dict plotly packs arrays up
        points = list(zip(np.array(trace.x).tolist(), np.array(trace.y).tolist(), strict=True))
        if trace.mode == "lines":
            look = {"colour": trace.line.color, "width": trace.line.width}
            mark["ways"] += [{"from": one, "to": to, **look} for one, to in pairwise(points) if _there(*one, *to)]
        else:
            mark["dots"] += _dots(trace, points)
    for shape in filter(_is_selected, shapes):
        look = {"colour": shape["line"]["color"], "width": shape["line"]["width"]}
        if shape["type"] == "line":
            mark["lines"].append({"x": _plain(shape["x0"]), **look})
        else:
            mark["frames"].append({**{end: _plain(shape[end]) for end in ("x0", "x1", "y0", "y1")}, **look})
    for note in filter(_is_selected, notes):
        said = {"text": unmarked(note["text"]), "size": note["font"]["size"], "up": note.get("yshift", 0)}
        mark["names"].append({"x": _plain(note["x"]), **said})
    left = [[one for one in parts if not _is_selected(one)] for parts in (made["data"], shapes, notes)]
    bare = {**made, "data": left[0], "layout": {**layout, "shapes": left[1], "annotations": left[2]}}
    # As it is: plotly would check each value again, which takes as long as drawing some figures does.
    return go.Figure(bare, _validate=False), mark


def draw(of: str, mark: dict[str, list[dict[str, Any]]], on_click: Callable[[Carried], None] | None) -> None:
    """Draw a mark into the chart with the key `of`, in the place behind it.

    Args:
        on_click: called, before the rerun, with what was clicked.
    """
    key = f"{page_style.MARK}{of}"

    def clicked() -> None:
        if on_click is not None:
            on_click(st.session_state[key].get("clicked") or ())

    data = {"of": of, "key": key, "takes": on_click is not None, **mark}
    _mount(key=key, data=data, on_clicked_change=clicked)


def _dots(trace: go.Scatter, points: Sequence[tuple[Any, Any]]) -> list[dict[str, Any]]:
    """One a point that has a place; sizes, symbols and texts that each has for itself are its own."""
    marker = trace.marker
    each = [[of] * len(points) if np.ndim(of) == 0 else of for of in (marker.size, marker.symbol, trace.hovertext)]
    look = {"colour": marker.color, "width": marker.line.width}
    return [
        {"x": x, "y": y, "size": size, "symbol": symbol, "said": said, **look}
        for (x, y), size, symbol, said in zip(points, *each, strict=True)
        if _there(x, y)
    ]


def _there(*places: Any) -> bool:
    """Whether each is a name or a finite number; others cannot be sent to a browser."""
    return all(isinstance(one, str) or (one is not None and math.isfinite(one)) for one in places)


def _plain(place: Any) -> Any:
    """A name or a number of Python's own, as JSON takes it."""
    return place.item() if isinstance(place, np.generic) else place


def _is_selected(part: dict[str, Any]) -> bool:
    return part.get("name") == SELECTED
