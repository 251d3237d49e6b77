"""The selected run: what it is, what can be done with it, and what of it is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from components import export, heard, state
from components.guard import readable_errors, show
from components.runs import actions, beside
from components.runs.rows import Row, registered
from components.shown import Shown
from components.widgets import choice
from components.words import md
from interp_core.errors import InterpError
from interp_core.experiments.facts import facts_of, settings_of

FACTS, FIGURE, TABLES, REPEAT, BESIDE = "Facts", "Figure", "Tables", "Repeat it", "Side by side"
LOOKS_AT = (FACTS, FIGURE, TABLES, REPEAT, BESIDE)
ROW_PX, MOST_ROWS_IN_VIEW = 35, 12


def draw(row: Row, rows: Sequence[Row]) -> None:
    """Draw one run; `rows` are all there are, of which another can be laid beside it."""
    st.subheader(md(row.title or row.label), anchor=False)
    if row.fault:
        show(row.fault)
    actions.bar(row)
    if row.fault:
        return
    look = choice("Look at", LOOKS_AT, key=state.RUNS_LOOK, label_visibility="collapsed")
    with readable_errors():
        if look in (FIGURE, TABLES, BESIDE) and row.state != "finished":
            st.info("This run is not finished, so there is nothing of it to look at yet.")
        elif look == FIGURE:
            _figure(row.opened())
        elif look == TABLES:
            _tables(row.opened())
        elif look == REPEAT:
            export.repeat(registered(row.command).request.from_config(row.config))
        elif look == BESIDE:
            beside.draw(row, rows)
        else:
            _facts(row)


def _facts(row: Row) -> None:
    left, right = st.columns(2, gap="medium")
    with left:
        st.caption("What it was run on")
        _named(facts_of(row.config) | ({"folder": str(row.folder)} if row.folder else {}), "Facts of the run.")
    with right:
        st.caption("Its settings")
        _named(settings_of(registered(row.command).request.from_config(row.config)), "Settings of the run.")
    actions.notes(row)


def _named(values: Mapping[str, str], alt: str) -> None:
    table = pd.DataFrame({"name": list(values), "value": list(values.values())}, dtype=str)
    widths = {"name": st.column_config.TextColumn(width=200), "value": st.column_config.TextColumn(width="large")}
    height = ROW_PX * (min(len(table), MOST_ROWS_IN_VIEW) + 1) + 3
    st.dataframe(table, hide_index=True, column_config=widths, alt=alt, height=height)


def _figure(shown: Shown) -> None:
    st.image(_picture(shown.key, shown), width="content")


@st.cache_data(max_entries=16, show_spinner="Drawing the figure …")
def _picture(key: str, _shown: Shown) -> bytes:
    return export.picture(_shown.result.figure(), "png")


def _tables(shown: Shown) -> None:
    tables = {name: table for name, table in shown.result.tables().items() if len(table)}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            "Table",
            list(tables),
            format_func=lambda name: f"{name} ({len(tables[name])} rows)",
            key=state.RUNS_FILE,
            bind=state.BOUND,
            width=300,
        )
        if name in tables:
            st.download_button(
                "CSV",
                lambda: export.csv(tables[name]),
                f"{export.file_name(shown.result.model_name, shown.command, name)}.csv",
                "text/csv",
                on_click="ignore",
                icon=":material/download:",
            )
    if name in tables:
        clips = heard.clips_of(shown) if heard.names_clips(tables[name]) else {}
        heard.table(tables[name], clips, alt=f"The table {name} of the run.")


def chosen(rows: Sequence[Row]) -> Row | None:
    """The row that the URL names; a sentence on the page where it names none of them."""
    name = state.linked_run()
    found = next((row for row in rows if row.name == name), None)
    if name and found is None:
        show(InterpError("The run that this link names is not among those listed; type its folder above."))
    return found
