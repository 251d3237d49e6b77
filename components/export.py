"""What leaves the page: tables, figures, and the command and the Python that repeat the run."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from matplotlib.figure import Figure
from streamlit.elements.lib.mutable_popover_container import PopoverContainer

from components import server, state
from components.charts.paper import on_paper
from components.charts.parts import for_export
from components.shown import Shown
from components.words import md
from interp_core.errors import InterpError
from interp_core.experiments.figures import sign
from interp_core.experiments.report.notebook import notebook
from interp_core.experiments.report.page import report
from interp_core.request import Request

FORMATS: Mapping[str, str] = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}


@dataclass(frozen=True)
class Drawn:
    """The figure that a view shows, for its export.

    Attributes:
        figure: as it is on screen, with the mark of what is selected.
        title: what it shows. signed: the lines below it, made when they are asked for; see `facts`.
        name: for the names of files.
        picture: for paper, where the view has a figure of its own for that; else what is on screen is drawn for it.
        pair: the selected pair on paper, where the view has one.
    """

    figure: go.Figure
    title: str
    signed: Callable[[], str]
    name: str
    picture: Callable[[], Figure] | None = None
    pair: Callable[[], Figure] | None = None


def csv(table: pd.DataFrame) -> bytes:
    """A table as CSV, floats as they are, missing values empty."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def html(figure: go.Figure, title: str) -> bytes:
    """An interactive figure in one file that needs no network."""
    return for_export(figure, title).to_html(include_plotlyjs=True, full_html=True).encode()


def picture(drawn: Figure, file_format: str) -> bytes:
    """A figure for paper."""
    out = io.BytesIO()
    drawn.savefig(out, format=file_format)
    return out.getvalue()


def _drawn_now(drawn: Callable[[], Figure], file_format: str) -> bytes:
    return picture(drawn(), file_format)


def file_name(*parts: str) -> str:
    """Parts joined into a name that every file system takes."""
    return "-".join(re.sub(r"[^\w.~-]+", "_", part).strip("_") for part in parts if part)


def facts(shown: Shown, *settings: str, n: str = "") -> Callable[[], str]:
    """What makes the last lines of an exported figure; see `Result.signature`."""
    return partial(shown.result.signature, *settings, n=n)


def menu(shown: Shown, drawn: Drawn | None = None, asked: Request | None = None) -> None:
    """The downloads of the run on show. Files are made when they are asked for.

    Args:
        asked: names the clips as they are now, for the recordings in the report; None: as the run's config has them.
    """
    result = shown.result
    base = file_name(result.model_name, shown.command, drawn.name if drawn else "")
    figure = result.figure if drawn is None else drawn.picture or partial(_on_paper, drawn)
    opened = _opened(state.EXPORT)
    if not opened.open:
        return
    with opened:
        st.caption(
            "Figure: PNG, SVG and PDF for paper" + ("; HTML is the one on screen, interactive." if drawn else ".")
        )
        with st.container(horizontal=True):
            for kind, mime in FORMATS.items():
                _button(kind.upper(), partial(_drawn_now, figure, kind), f"{base}.{kind}", mime)
            if drawn is not None:
                _button("HTML", partial(_interactive, drawn), f"{base}.html", "text/html")
        if drawn is not None and drawn.pair is not None:
            st.caption("The selected pair in one figure: curve, both spectrograms, logits.")
            with st.container(horizontal=True):
                for kind, mime in FORMATS.items():
                    made = partial(_drawn_now, drawn.pair, kind)
                    _button(f"Pair {kind.upper()}", made, f"{base}-pair.{kind}", mime)
        st.caption("The whole run in one file that opens anywhere: figures, tables, settings, limits, pairs to hear.")
        _button("Report (HTML)", partial(report, result, server.engine(), asked), f"{base}-report.html", "text/html")
        st.caption("Tables of the whole run, as in its folder.")
        with st.container(horizontal=True):
            for name, table in result.tables().items():
                if len(table):
                    _button(f"{name} CSV", partial(csv, table), f"{base}-{name}.csv", "text/csv")
        _repeat(shown, base)


def chart(drawn: Drawn, *, key: str) -> None:
    """The downloads of one chart beside the run's own: what is on screen, signed.

    Args:
        key: of the chart.
    """
    opened = _opened(f"{state.EXPORT}-{key}", type="tertiary")
    if not opened.open:
        return
    with opened:
        st.caption("This chart: PNG, SVG and PDF for paper; HTML is the one on screen, interactive.")
        with st.container(horizontal=True):
            for kind, mime in FORMATS.items():
                made = partial(_drawn_now, partial(_on_paper, drawn), kind)
                _button(kind.upper(), made, f"{drawn.name}.{kind}", mime, of=key)
            _button("HTML", partial(_interactive, drawn), f"{drawn.name}.html", "text/html", of=key)


def _on_paper(drawn: Drawn) -> Figure:
    return sign(on_paper(drawn.figure, drawn.title), drawn.signed())


def _interactive(drawn: Drawn) -> bytes:
    return html(drawn.figure, f"{drawn.title}\n{drawn.signed()}")


def paper(name: str, draw: Callable[[], Figure]) -> None:
    """The downloads of one figure for paper that belongs to no run; it is drawn when it is asked for.

    Args:
        name: of the file, without its ending.
    """
    opened = _opened(f"{state.EXPORT}-{state.HAND_CURVE}")
    if not opened.open:
        return
    with opened:
        st.caption("Both spectrograms, the curve and the logits in one figure for paper.")
        with st.container(horizontal=True):
            for kind, mime in FORMATS.items():
                _button(kind.upper(), partial(_drawn_now, draw, kind), f"{name}.{kind}", mime, of="hand")


def _opened(key: str, **settings: Any) -> PopoverContainer:
    """The place of downloads, which are drawn while it is `.open`: they would be sent anew at each click on a chart."""
    return st.popover("Export", icon=":material/download:", key=key, on_change="rerun", **settings)


def _repeat(shown: Shown, base: str) -> None:
    """How the run on show is repeated, and where its files lie."""
    try:
        request = shown.request
    except InterpError as error:
        st.caption(md(error))
    else:
        repeat(request)
        _button("Notebook", partial(notebook, shown.result), f"{base}.ipynb", "application/x-ipynb+json")
    if shown.folder is not None and shown.source != "shipped":
        st.caption("Its folder:")
        st.code(str(shown.folder), language=None, wrap_lines=True)


def repeat(request: Request) -> None:
    """The command and the Python that repeat a run."""
    st.caption("The command that repeats the run, and the same in Python.")
    st.code(request.command_line(), language="bash", wrap_lines=True)
    st.code(request.snippet(), language="python", wrap_lines=True)


def _button(label: str, data: Callable[[], bytes], name: str, mime: str, of: str = "export") -> None:
    st.download_button(md(label), data, name, mime, on_click="ignore", key=f"{of}-{label}")
