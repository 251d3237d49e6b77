"""What several pages have in common: a choice of one of a few, a slider with steps, a table whose rows are chosen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.elements.lib.mutable_expander_container import ExpanderContainer
from streamlit.navigation.page import StreamlitPage

from components import page_style, state
from components.words import md

ROW_PX, MOST_PX = 35, 400
CLICKS: tuple[Literal["single-row", "single-cell"], ...] = ("single-row", "single-cell")
"""What a click on a table selects: its box marks a row, and so does any cell; see `clicked_row`."""


def choice(
    label: str,
    options: Sequence[str],
    *,
    key: str,
    bind: Any = state.BOUND,
    format_func: Callable[[Any], str] = str,
    help: str | None = None,
    **settings: Any,
) -> str:
    """One of a few options side by side; the first until another is chosen."""
    chosen = st.segmented_control(
        label, options, default=options[0], required=True, key=key, bind=bind, format_func=format_func, help=help,
        **settings,
    )  # fmt: skip
    return chosen or options[0]


OF_SELECTION, OF_LINES, OF_CLIPS = ("j", "k"), ("k", "j"), ("p", "n")
"""Keys of a step down and up, of a step back and forth in a list as wide as the page, and in a list of clips."""


def stepped(
    label: str,
    options: Sequence[str],
    first: str,
    *,
    key: str,
    helps: tuple[str, str],
    name: str,
    keys: tuple[str, str] | None = OF_SELECTION,
    format_func: Callable[[Any], str] = str,
    width: int | None = None,
    help: str | None = None,
) -> str:
    """A slider, or a box, with a button for either way, which keys press; `first` until another option is chosen.

    Args:
        helps: what each button does. name: begins the buttons' keys.
        keys: that press them; None for a stepper beside the one that they belong to.
        width: of a box in pixels; without it there is a slider.
    """

    def step(by: int) -> None:
        now = st.session_state[key]
        at = options.index(now if now in options else first) + by
        st.session_state[key] = options[min(max(at, 0), len(options) - 1)]

    settings: dict[str, Any] = {"key": key, "bind": state.BOUND, "help": help}
    state.follow(key, first)
    if width is not None:
        with steps_row(name, vertical_alignment="bottom", width="content"):
            at = options.index(first)
            chosen = st.selectbox(label, options, index=at, width=width, format_func=format_func, **settings)
            step_button(-1, step, name, keys, helps)
            step_button(1, step, name, keys, helps)
    else:
        with steps_row(name, vertical_alignment="bottom"):
            step_button(-1, step, name, keys, helps)
            chosen = st.select_slider(label, options, value=first, format_func=format_func, **settings)
            step_button(1, step, name, keys, helps)
    return chosen if chosen in options else first


def steps_row(name: str, **settings: Any) -> DeltaGenerator:
    """One line for two buttons and what stands beside them; `name` begins the buttons' keys."""
    return st.container(key=f"{page_style.STEPS}{name}", horizontal=True, gap="xsmall", **settings)


def step_button(
    by: int, step: Callable[[int], None], name: str, keys: tuple[str, str] | None, helps: tuple[str, str]
) -> None:
    """One of two buttons: `step` is called with -1 or 1, which the key presses too."""
    at, sign, end = (0, "‹", "down") if by < 0 else (1, "›", "up")
    shortcut = None if keys is None else keys[at]
    what = helps[0] if by < 0 else helps[1]
    st.button(sign, key=f"{name}-{end}", on_click=step, args=(by,), shortcut=shortcut, help=md(what))


def list_steps(
    ids: Sequence[str],
    now: str | None,
    pick: Callable[[str], None],
    *,
    key: str,
    what: str = "clip",
    keys: tuple[str, str] = OF_CLIPS,
) -> None:
    """Buttons to the line before and the one after in a table of one line an id, which keys press.

    Args:
        now: the id that is selected. pick: called, before the rerun, with the one that is gone to.
        key: of the table, whose mark goes along. what: a line is.
    """

    def step(by: int) -> None:
        at = min(max(ids.index(now) + by, 0), len(ids) - 1) if now in ids else 0
        pick(ids[at])
        st.session_state[key] = {"selection": {"rows": [at], "columns": [], "cells": []}}

    for by in (-1, 1):
        step_button(by, step, key, keys, (f"previous {what}", f"next {what}"))


def picking_table(
    rows: pd.DataFrame,
    ids: Sequence[str],
    on_pick: Callable[[str], None],
    *,
    key: str,
    empty: str = "There is none.",
    caption: str = "",
    now: str | None = None,
    what: str = "clip",
    keys: tuple[str, str] | None = None,
    **settings: Any,
) -> None:
    """A table; `on_pick` is called, before the rerun, with the id of the row that was clicked.

    Args:
        empty: what to do where there is no row; it stands in the table's place.
        caption: above it, as markdown. keys: that go through its rows, None for no steps; see `list_steps`.
        now: the id that is selected. what: a row is.
        height: in pixels, at most; a table of fewer rows is as high as they are.
    """
    if caption or keys is not None:
        with steps_row(key, vertical_alignment="center"):
            if caption:
                st.caption(caption)
            if keys is not None and len(rows):
                list_steps(ids, now, on_pick, key=key, what=what, keys=keys)
    if not len(rows):
        st.info(md(empty))
        return
    settings["height"] = min(settings.get("height", MOST_PX), ROW_PX * (len(rows) + 1) + 3)

    def picked() -> None:
        row = clicked_row(key)
        if row is not None and row < len(ids):
            on_pick(ids[row])

    st.dataframe(rows, hide_index=True, key=key, on_select=picked, selection_mode=CLICKS, **settings)


def clicked_row(key: str) -> int | None:
    """The row of a table that was clicked, in any of its cells; None where it was let go of. For its callback.

    A cell that is clicked is selected alone; its row is marked in its place, as by a click on the row's box.
    """
    selection = st.session_state[key].selection
    cells = selection.get("cells") or []
    if not cells:
        return selection.rows[0] if selection.rows else None
    row = int(cells[0][0])
    st.session_state[key] = {"selection": {"rows": [row], "columns": [], "cells": []}}
    return row


def folded(label: str, icon: str, *, key: str) -> ExpanderContainer:
    """A part of a page that is drawn only while it is `.open`, which the link says."""
    return st.expander(label, icon=icon, key=key, on_change="rerun", bind=state.BOUND)


def halves(name: str, ratio: tuple[float, float]) -> tuple[DeltaGenerator, DeltaGenerator]:
    """Two columns, the chart's first, which stand below each other on a narrow page and before an audience.

    Args:
        name: of the container, one a page. ratio: of their widths.
    """
    place = st.container(key=f"{page_style.STACKS}{name}")
    if state.presenting():
        return place.container(), place.container()
    left, right = place.columns(list(ratio), gap="medium")
    return left, right


def choosing(key: str) -> Callable[[Any], None]:
    """What sets another widget's value; for callbacks."""

    def choose(value: Any) -> None:
        st.session_state[key] = value

    return choose


def chosen_of(key: str, known: Collection[str], offered: Iterable[str]) -> str | None:
    """What was chosen if it is known, else the first on offer that is; None where there is none."""
    chosen = state.linked_text(key)
    return chosen if chosen in known else next((one for one in offered if one in known), None)


def run_link(page: StreamlitPage, label: str, icon: str, folder: Path) -> None:
    """A link to a page that shows the run in a folder; on that page itself, where Streamlit's links do nothing, a
    button.

    Args:
        label: foreign text in it already escaped.
    """
    if page.url_path == st.session_state.get(state.PAGE):
        st.button(label, icon=icon, on_click=state.link_run, args=(str(folder),), key=f"link-{folder}", type="tertiary")
    else:
        st.page_link(page, label=label, icon=icon, query_params={state.RUN: str(folder)})
