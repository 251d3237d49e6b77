"""A chart on the page, with the mark of what is selected, and what was clicked in it: a point's `customdata`.

A point that carries nothing says nothing about what is chosen: every reader then gives None, and the selection stays as
it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from components import state
from components.charts import marks
from components.charts.marks import Carried
from components.charts.parts import CHART_CONFIG, presented

Cell = tuple[int, int]


def show(
    figure: go.Figure,
    *,
    key: str,
    alt: str,
    on_click: Callable[[Any], None] | None = None,
    read: Callable[[Carried], Any] | None = None,
) -> None:
    """Put a figure on the page.

    Args:
        alt: what the chart shows, whatever is selected in it: another text makes it another chart, drawn from nothing.
        on_click: called, before the rerun, with what was clicked: what `read` finds, a number unless given.
    """

    def clicked(carried: Carried) -> None:
        found = (read or clicked_number)(carried)
        if found is not None and on_click is not None:
            on_click(found)

    bare, mark = marks.taken_off(presented(figure) if state.presenting() else figure)
    marked = any(mark.values())
    # Plotly's own picture of a chart knows nothing of a mark, and *Export* draws both.
    config = {**CHART_CONFIG, "modeBarButtonsToRemove": ["toImage"]} if marked else CHART_CONFIG
    st.plotly_chart(bare, theme="streamlit", key=key, config=config, alt=alt)
    if on_click is not None or marked:
        marks.draw(key, mark, clicked if on_click is not None else None)


def clicked_number(points: Carried) -> int | None:
    """The number (layer, dose, row of a table) that the first of the points with one carries."""
    return next((int(first) for first, *_ in filter(None, points) if isinstance(first, int | float)), None)


def clicked_text(points: Carried) -> str | None:
    """The name that the first of the points with one carries."""
    return next((first for first, *_ in filter(None, points) if isinstance(first, str)), None)


def clicked_cell(points: Carried) -> Cell | None:
    """The (row, column) that the first of the points with two whole numbers carries."""
    for first, *rest in filter(None, points):
        if isinstance(first, int) and rest and isinstance(rest[0], int):
            return first, rest[0]
    return None
