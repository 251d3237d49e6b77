"""What several pages have in common: a choice of one of a few, a slider with steps, a table whose rows are chosen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.elements.lib.mutable_expander_container import ExpanderContainer
from streamlit.navigation.page import StreamlitPage

from components import page_style, state
from components.words import md

ROW_PX, MOST_PX = 35, 400


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


def stepped(label: str, options: Sequence[str], first: str, *, key: str, helps: tuple[str, str], name: str) -> str:
    """A slider with a button at either end, which j and k press; `first` until another option is chosen.

    Args:
        helps: what each button does. name: begins the buttons' keys.
    """

    def step(by: int) -> None:
        at = options.index(st.session_state[key]) + by
        st.session_state[key] = options[min(max(at, 0), len(options) - 1)]

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.button("‹", key=f"{name}-down", on_click=step, args=(-1,), shortcut="j", help=helps[0])
        chosen = st.select_slider(label, options, value=first, key=key, bind=state.BOUND)
        st.button("›", key=f"{name}-up", on_click=step, args=(1,), shortcut="k", help=helps[1])
    return chosen if chosen in options else first


def picking_table(
    rows: pd.DataFrame,
    ids: Sequence[str],
    on_pick: Callable[[str], None],
    *,
    key: str,
    empty: str = "There is none.",
    **settings: Any,
) -> None:
    """A table; `on_pick` is called, before the rerun, with the id of the row that was clicked.

    Args:
        empty: what to do where there is no row; it stands in the table's place.
        height: in pixels, at most; a table of fewer rows is as high as they are.
    """
    if not len(rows):
        st.info(md(empty))
        return
    settings["height"] = min(settings.get("height", MOST_PX), ROW_PX * (len(rows) + 1) + 3)

    def picked() -> None:
        chosen = st.session_state[key].selection.rows
        if chosen and chosen[0] < len(ids):
            on_pick(ids[chosen[0]])

    st.dataframe(rows, hide_index=True, key=key, on_select=picked, selection_mode="single-row", **settings)


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
