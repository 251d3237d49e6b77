"""All runs, with those of a folder that is typed: the one list of the page Runs and of what lays two together."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from components import state
from components.guard import show
from components.runs import rows as runs
from components.runs.rows import Row
from interp_core.errors import InterpError


def every_with_typed(faults: DeltaGenerator) -> list[Row]:
    """All runs, and those below the folder that is typed."""
    typed = st.text_input(
        "Another folder",
        key=state.RUNS_FOLDER,
        bind=state.BOUND,
        placeholder="a folder that holds runs",
        icon=":material/folder:",
        help="Runs below this folder are listed too; it must lie inside the folders that the server may read. Links "
        "and hidden folders in it are not followed.",
    )
    try:
        return runs.every(runs.folder_of(typed or ""))
    except InterpError as error:
        with faults:
            show(error)
        return runs.every()
