"""A chart on the page, and what was clicked in it: a point's `customdata`, as Streamlit hands it over.

Nothing selected means that a point was clicked for the second time, which says nothing about what is chosen: every
reader then gives None, and the selection stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from components import state
from components.charts.parts import CHART_CONFIG, presented

Points = Sequence[Mapping[str, Any]]
Cell = tuple[int, int]


def show(
    figure: go.Figure,
    *,
    key: str,
    alt: str,
    on_click: Callable[[Any], None] | None = None,
    read: Callable[[Points], Any] | None = None,
) -> None:
    """Put a figure on the page.

    Args:
        on_click: called, before the rerun, with what was clicked: what `read` finds, a number unless given.
    """

    def clicked() -> None:
        found = (read or clicked_number)(st.session_state[key].selection.points)
        if found is not None and on_click is not None:
            on_click(found)

    st.plotly_chart(
        presented(figure) if state.presenting() else figure,
        theme="streamlit",
        key=key,
        on_select=clicked if on_click is not None else "ignore",
        selection_mode="points",
        config=CHART_CONFIG,
        alt=alt,
    )


def clicked_number(points: Points) -> int | None:
    """The number (layer, dose, row of a table) that the first of the points with one carries."""
    return next((int(first) for first, *_ in _carried(points) if isinstance(first, int | float)), None)


def clicked_text(points: Points) -> str | None:
    """The name that the first of the points with one carries."""
    return next((first for first, *_ in _carried(points) if isinstance(first, str)), None)


def clicked_cell(points: Points) -> Cell | None:
    """The (row, column) that the first of the points with two whole numbers carries."""
    for first, *rest in _carried(points):
        if isinstance(first, int) and rest and isinstance(rest[0], int):
            return first, rest[0]
    return None


def _carried(points: Points) -> list[list[Any]]:
    """What each point carries, without those that carry nothing."""
    found = []
    for point in points:
        carried = point.get("customdata")
        # Streamlit hands a row of plain numbers over as {"0": ..., "1": ...}, and a mixed one as a list.
        if isinstance(carried, Mapping):
            carried = [carried.get("0"), carried.get("1")]
        if isinstance(carried, Sequence) and not isinstance(carried, str) and len(carried):
            found.append(list(carried))
    return found
