"""The list of runs with its filters, and the run that is selected in it. A click reruns this and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from components import state
from components.guard import readable_errors
from components.runs import rows as runs
from components.runs import selected
from components.runs.rows import Row
from components.runs.typed import every_with_typed
from components.widgets import CLICKS, OF_LINES, clicked_row, list_steps, steps_row
from components.words import md

ROW_PX = 35
MOST_ROWS_IN_VIEW = 10
COLUMNS = {
    "experiment": st.column_config.TextColumn("experiment", width=80),
    "model": st.column_config.TextColumn("model", width=150),
    "asked": st.column_config.TextColumn("what was asked", width=230, help="The settings that are not at their usual."),
    "made": st.column_config.TextColumn("made (UTC)", width=125),
    "state": st.column_config.TextColumn("state", width=85),
    "source": st.column_config.TextColumn("source", width=95),
    "notes": st.column_config.TextColumn("notes", width=130),
}


@st.fragment
def draw() -> None:
    """Draw the filters, the table, and below them the selected run."""
    row: Row | None = None
    with readable_errors():
        if said := st.session_state.pop(state.RUNS_SAID, ""):
            st.toast(md(said), icon=":material/delete:")
        faults, filters = st.container(), st.columns([1, 1.2, 1, 1.2, 1.4])
        with filters[-1]:
            every = every_with_typed(faults)
        kept = _filtered(every, filters)
        if not every:
            st.info("There are no runs yet: run something on another page, or name a folder that holds runs.")
            return
        _table(kept, len(every))
        row = selected.chosen(every)
    if row is None:
        st.caption("Click a line to look at the run.")
        return
    with readable_errors():
        selected.draw(row, every)


def _filtered(every: Sequence[Row], places: Sequence[DeltaGenerator]) -> list[Row]:
    of = _several(places[0], "Experiment", sorted({row.command for row in every if row.command}), state.RUNS_OF)
    models = _several(places[1], "Model", sorted({row.model for row in every if row.model}), state.RUNS_MODEL)
    states = _several(places[2], "State", list(runs.STATES), state.RUNS_STATE)
    text = places[3].text_input(
        "Text", key=state.RUNS_TEXT, bind=state.BOUND, placeholder="in any column", icon=":material/search:"
    )
    return runs.matching(every, of=of, models=models, states=states, text=text or "")


def _several(place: DeltaGenerator, label: str, options: list[str], key: str) -> list[str]:
    return place.multiselect(label, options, key=key, bind=state.BOUND, placeholder="all")


def _table(kept: Sequence[Row], n_every: int) -> None:
    """The table; a click on a line names its run in the URL."""
    names = [row.name for row in kept]
    key = f"{hashlib.sha256(chr(0).join(names).encode()).hexdigest()[:12]}-{state.RUNS_TABLE}"
    now = state.linked_run()

    def pick(name: str) -> None:
        state.link_run(name)
        st.session_state[state.RUNS_ARMED] = ""

    def clicked() -> None:
        row = clicked_row(key)
        pick("" if row is None else names[row])

    shown = f"{len(kept)} of {n_every} runs" if len(kept) < n_every else f"{n_every} runs"
    damaged = sum(row.state == "damaged" for row in kept)
    with steps_row(state.RUNS_TABLE, vertical_alignment="center"):
        st.caption(f"{shown}{f', {damaged} of them cannot be read' if damaged else ''}.")
        if not kept:
            return
        list_steps(names, now, pick, key=key, what="run", keys=OF_LINES)
    st.dataframe(
        runs.table(kept),
        hide_index=True,
        column_config=COLUMNS,
        key=key,
        on_select=clicked,
        selection_mode=CLICKS,
        selection_default={"selection": {"rows": [names.index(now)] if now in names else []}},
        # Half of a line more where there are more, which says so.
        height=int(ROW_PX * (min(len(kept), MOST_ROWS_IN_VIEW + 0.5) + 1)) + 3,
        alt=f"{shown}, one a line: experiment, model, what was asked, when, state, source, notes.",
    )
