"""Two runs of one experiment side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
import streamlit as st

from components import export, state
from components.charts import clicks
from components.runs import charts, compared
from components.runs.compared import DIFFERENCE, ONE, OTHER, Compared
from components.runs.rows import Row
from components.words import md

ROW_PX, MOST_ROWS_IN_VIEW = 35, 10


def draw(row: Row, rows: Sequence[Row]) -> None:
    """Lay another run of the same experiment over this one; the latest other one unless another is chosen."""
    others = {one.label: one for one in rows if _comparable(one, row)}
    if not others:
        st.info("There is no other finished run of this experiment to lay beside it.")
        return
    left, right = st.columns(2, gap="medium")
    label = left.selectbox("Run 2", list(others), key=state.RUNS_OTHER, bind=state.BOUND)
    second = others.get(label or "") or next(iter(others.values()))
    one, other = row.opened(), second.opened()
    profiles = one.result.profile(), other.result.profile()
    shared = compared.series_in_both(*profiles)
    if not shared:
        st.info("The two runs have no series in common: they measured something else.")
        return
    series = right.selectbox("Series", shared, key=state.RUNS_SERIES, bind=state.BOUND)
    series = series if series in shared else shared[0]
    st.caption(f"Run 1: {md(row.label)}  \nRun 2: {md(second.label)}")
    _asked_apart(compared.apart(one, other))
    lone = [len(set(profile["series"]) - set(shared)) for profile in profiles]
    if any(lone):
        said = [f"{count} that only {run} has" for run, count in zip((ONE, OTHER), lone, strict=True) if count]
        st.caption(f"Series left out: {' and '.join(said)}.")
    _drawn(compared.compare(*profiles, series), series, one.result.profile_x)


def _comparable(one: Row, with_: Row) -> bool:
    return one.command == with_.command and one.state == "finished" and one.name != with_.name


def _asked_apart(table: pd.DataFrame) -> None:
    if table.empty:
        st.markdown("Both were asked the same, of the same weights and clips, on the same device.")
        return
    st.caption(f"What was not the same ({len(table)}); everything else was.")
    st.dataframe(table, hide_index=True, alt="Settings and facts in which the two runs differ.")


def _drawn(laid: Compared, series: str, x_title: str) -> None:
    said = compared.in_words(laid, x_title)
    st.markdown(md(said))
    if laid.both.empty:
        return
    if charts.crowded(laid):
        figure = charts.against(laid, series)
        clicks.show(figure, key=state.RUNS_CURVES, alt=f"{series}, a marker a place. {said}")
    else:
        figure = charts.curves(laid, series, x_title)
        clicks.show(figure, key=state.RUNS_CURVES, alt=f"{series}, two curves. {said}")
        small = charts.differences(laid, x_title)
        clicks.show(small, key=state.RUNS_APART, alt=f"{DIFFERENCE} of {series}. {said}")
    table = differences_of(laid, x_title)
    st.dataframe(
        table,
        hide_index=True,
        height=ROW_PX * (min(len(table), MOST_ROWS_IN_VIEW) + 1) + 3,
        alt=f"The values of both runs. {said}",
    )
    st.download_button(
        "Differences as CSV",
        partial(export.csv, table.assign(series=series)),
        f"{export.file_name('differences', series[:60])}.csv",
        "text/csv",
        on_click="ignore",
        icon=":material/download:",
    )


def differences_of(laid: Compared, x_title: str) -> pd.DataFrame:
    """The points that both runs have; names by how far they are apart, numbers in their order."""
    table = laid.both
    if laid.textual:
        table = table.sort_values(DIFFERENCE, key=lambda column: column.abs(), ascending=False, kind="stable")
    return table.rename(columns={"x": x_title}).reset_index(drop=True)
