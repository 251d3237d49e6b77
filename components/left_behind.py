"""Runs that were on their way when the server ended: found when it starts again, and offered until they are done."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from components import server, state
from components.shown import waits
from components.widgets import run_link
from components.words import md
from interp_core import experiments
from interp_core.runs import find_runs

MOST_IN_VIEW = 3


def draw() -> None:
    """A link to each run that nobody is on; for the sidebar."""
    page = st.session_state.get(state.PAGES, {}).get("runs")
    waiting = [folder for folder in _unfinished_at_start() if waits(folder)]
    if not waiting or page is None:
        return
    st.subheader("Left unfinished")
    st.caption("From before this server started. What is done is not computed again.")
    for folder in waiting[:MOST_IN_VIEW]:
        run_link(page, f"Go on with {md(folder.name)}", ":material/resume:", folder)
    if len(waiting) > MOST_IN_VIEW:
        st.caption(f"And {len(waiting) - MOST_IN_VIEW} more on the page Runs.")


@st.cache_resource(show_spinner=False)
def _unfinished_at_start() -> tuple[Path, ...]:
    """Of the runs folder, the newest first. Later ones were cancelled by somebody, who knows."""
    runs = server.runs_folder()
    names = {one.request.config_file for one in experiments.EXPERIMENTS.values()}
    found = find_runs(runs, names=names) if runs else []
    return tuple(run.path for run in found if waits(run.path))
