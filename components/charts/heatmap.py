"""A matrix to look at and to click: numbers in the cells where they fit, gaps for what is missing.

Plotly's heatmaps carry no data of their own to a click, so every cell has an invisible marker that does. `heatmap` only
draws; `show` puts the figure on a page and tells a callback which cell was clicked.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from components.charts import clicks
from components.charts.clicks import Cell, clicked_cell
from components.charts.parts import FONT_PX, SELECTED
from components.charts.words import plain
from components.words import layer_text
from interp_core.looks import GREY

SCALES: Mapping[str, str] = {"sequential": "Cividis", "diverging": "RdBu_r"}
MOST_WRITTEN = 14  # rows or columns up to which the number stands in the cell
LETTERS_OF_TITLE, LINE_PX = 46, 20
CELL_PX = (14, 44)  # least and most
MOST_PX = 520  # of all rows together
POINT_PX = 6  # of the markers that take clicks: none overlap, since plotly holds all below the mouse to be equally near


def heatmap(
    matrix: ArrayLike,
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    title: str,
    unit: str,
    row_title: str = "",
    column_title: str = "",
    limits: tuple[float, float] | None = None,
    scale: Literal["sequential", "diverging"] = "sequential",
    number: str = ".2f",
    written: ArrayLike | None = None,
    hover: Sequence[Sequence[str]] | None = None,
    selected: Cell | None = None,
    outlined: Collection[Cell] = (),
    marks: Mapping[Cell, str] | None = None,
    upwards: bool = False,
    numbers: bool = True,
) -> go.Figure:
    """Draw a matrix whose cells can be clicked.

    Args:
        matrix: [rows, columns]; a NaN is a gap with a dash in it, never a colour.
        row_names, column_names: plain text.
        title: what is shown, above the matrix; unit: beside the colour bar, with what its ends mean.
        limits: of the colours; the smallest and largest value unless given, symmetric about 0 if diverging.
        number: format of a value, in cells and hover.
        written: [rows, columns] the values in cells and hover, where the colours stand for another scale of them.
        hover: [rows, columns] further lines for the hover, plain text (interval, n, why a cell is empty).
        selected: the cell with a thick frame; outlined: those with a thin one, for instance the diagonal.
        marks: a sign for some cells, written behind the number ("✱" for what is significant).
        upwards: row 0 at the bottom, as layers are stacked.
        numbers: whether they stand in the cells where there are few of these; marks stand there in any case.
    Raises:
        ValueError: names or hover that do not fit the matrix.
    """
    values, lines = np.asarray(matrix, dtype=float), textwrap.wrap(title, LETTERS_OF_TITLE) or [""]
    heading = "<br>".join(f"<b>{plain(line)}</b>" for line in lines)
    if values.shape != (len(row_names), len(column_names)):
        raise ValueError(f"{values.shape} values for {len(row_names)} rows and {len(column_names)} columns.")
    if hover is not None and [len(line) for line in hover] != [len(column_names)] * len(row_names):
        raise ValueError("hover needs one text a cell.")
    told = values if written is None else np.asarray(written, dtype=float)
    if told.shape != values.shape:
        raise ValueError(f"{told.shape} values to write for a matrix of {values.shape}.")
    n_rows, n_columns = values.shape
    low, high = limits or _limits(values, scale)
    side = min(max(MOST_PX // n_rows, CELL_PX[0]), CELL_PX[1])
    figure = go.Figure()
    figure.add_heatmap(
        z=values, x=list(range(n_columns)), y=list(range(n_rows)), zmin=low, zmax=high, colorscale=SCALES[scale],
        xgap=1, ygap=1, hoverinfo="skip",
        colorbar={
            "title": {"text": plain(unit), "side": "right", "font": {"size": FONT_PX}}, "thickness": 14,
            "tickfont": {"size": FONT_PX}, "outlinewidth": 0,
        },
    )  # fmt: skip
    cells = [(row, column) for row in range(n_rows) for column in range(n_columns)]
    figure.add_scatter(
        x=[column for _, column in cells],
        y=[row for row, _ in cells],
        mode="markers",
        name="cells",
        marker={"size": POINT_PX, "color": "rgba(0,0,0,0)", "line": {"width": 0}},
        customdata=[list(cell) for cell in cells],
        text=[_said(cell, told, row_names, column_names, number, hover, marks) for cell in cells],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )
    write = numbers and max(values.shape) <= MOST_WRITTEN
    _write_cells(figure, values, told, number, (low, high), scale, marks or {}, write)
    for cell in outlined:
        _frame(figure, cell, width=1.5, color=GREY, name="outline")
    if selected is not None:
        # Black on white stands out from every colour of a scale.
        _frame(figure, selected, width=6.0, color="#FFFFFF", name=SELECTED)
        _frame(figure, selected, width=3.0, color="#000000", name=SELECTED)
    axis = {"showgrid": False, "zeroline": False, "fixedrange": True, "tickfont": {"size": FONT_PX}, "ticks": ""}
    at, names = _thinned(column_names, most=24)
    # On one line `emb` and `0` meet where layers are close.
    longest = max(map(len, names))
    names = [f"<br>{name}" if name == layer_text(-1) and len(names) > 8 else name for name in names]
    figure.update_xaxes(
        **axis, range=[-0.5, n_columns - 0.5], tickvals=at, ticktext=names, title_text=column_title,
        title_font={"size": FONT_PX}, tickangle=0 if longest * len(names) < 70 else -45,
    )  # fmt: skip
    at, names = _thinned(row_names, most=40)
    rows = [-0.5, n_rows - 0.5] if upwards else [n_rows - 0.5, -0.5]
    figure.update_yaxes(
        **axis, range=rows, tickvals=at, ticktext=names, title_text=row_title, title_font={"size": FONT_PX}
    )
    figure.update_layout(
        title={
            "text": heading,
            "x": 0,
            "xanchor": "left",
            "font": {"size": FONT_PX + 1},
        },
        height=side * n_rows + 110 + LINE_PX * len(lines),
        margin={"l": 70, "r": 20, "t": 26 + LINE_PX * len(lines), "b": 60},
        font={"size": FONT_PX},
        hoverlabel={"align": "left", "font": {"size": FONT_PX}},
        hovermode="closest",
        hoverdistance=-1,  # the nearest middle of a cell is meant, however far it is: that is the cell of the mouse
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return figure


def show(figure: go.Figure, *, key: str, alt: str, on_cell: Callable[[Cell], None] | None = None) -> None:
    """Put a heatmap on the page; `on_cell` is called, before the rerun, with the (row, column) that was clicked."""
    clicks.show(figure, key=key, alt=alt, on_click=on_cell, read=clicked_cell)


def _limits(values: np.ndarray, scale: str) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    if scale == "diverging":
        reach = float(np.abs(known).max()) or 1.0
        return -reach, reach
    low, high = float(known.min()), float(known.max())
    return (low, high) if high > low else (low, low + 1)


def _write_cells(
    figure: go.Figure,
    values: np.ndarray,
    told: np.ndarray,
    number: str,
    limits: tuple[float, float],
    scale: str,
    marks: Mapping,
    write: bool,
) -> None:
    """Numbers where they are to be written, marks and dashes over the cells, dark on light and light on dark."""
    x, y, texts, colours = [], [], [], []
    for row, column in np.ndindex(values.shape):
        value, mark = values[row, column], marks.get((row, column), "")
        text = "–" if not math.isfinite(value) else f"{told[row, column]:{number}}{mark}" if write else mark
        if text:
            x.append(column)
            y.append(row)
            texts.append(text)
            colours.append(GREY if not math.isfinite(value) else _ink(float(value), limits, scale))
    if texts:
        figure.add_scatter(
            x=x, y=y, mode="text", text=texts, textfont={"color": colours, "size": FONT_PX - 2}, hoverinfo="skip",
            showlegend=False, name="numbers",
        )  # fmt: skip


def _ink(value: float, limits: tuple[float, float], scale: str) -> str:
    at = (min(max(value, limits[0]), limits[1]) - limits[0]) / (limits[1] - limits[0])
    dark = abs(at - 0.5) > 0.32 if scale == "diverging" else at < 0.5
    return "#FFFFFF" if dark else "#000000"


def _frame(figure: go.Figure, cell: Cell, *, width: float, color: str, name: str) -> None:
    row, column = cell
    figure.add_shape(
        type="rect", x0=column - 0.48, x1=column + 0.48, y0=row - 0.48, y1=row + 0.48, fillcolor="rgba(0,0,0,0)",
        line={"color": color, "width": width}, name=name,
    )  # fmt: skip


def _said(
    cell: Cell,
    values: np.ndarray,
    row_names: Sequence[str],
    column_names: Sequence[str],
    number: str,
    hover: Sequence[Sequence[str]] | None,
    marks: Mapping[Cell, str] | None,
) -> str:
    row, column = cell
    value = values[row, column]
    lines = [f"<b>{plain(row_names[row])} × {plain(column_names[column])}</b>"]
    lines.append(f"{value:{number}} {(marks or {}).get(cell, '')}".rstrip() if math.isfinite(value) else "no value")
    if hover is not None and hover[row][column]:
        lines += [plain(line) for line in hover[row][column].splitlines()]
    return "<br>".join(lines)


def _thinned(names: Sequence[str], most: int) -> tuple[list[int], list[str]]:
    step = max(1, math.ceil(len(names) / most))
    at = list(range(0, len(names), step))
    return at, [plain(names[i]) for i in at]
