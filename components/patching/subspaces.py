"""Only a subspace exchanged: its curve beside the whole state and random subspaces, and what was exchanged there."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from components.charts.parts import add_series, layer_axis, mark_layer, new_figure, rate_axis, reference_line, ring
from components.charts.words import COUNT_OF, TITLES, layer_name
from components.words import md
from interp_core.experiments.patching.limits import SUBSPACE_LIMITS
from interp_core.experiments.patching.subspace_table import CONDITIONS
from interp_core.experiments.patching.subspace_words import sentence
from interp_core.looks import SUBSPACES

VIEW = "Subspace"
"""A view of runs that exchanged one."""
MEASURES = {"flips, reachable": "flip_to_target_rate_reachable", "log-probability": "delta_logprob_target_mean"}


def curve(rows: pd.DataFrame, column: str, selected_layer: int | None) -> go.Figure:
    """The whole state and the subspace with 95 % bands, random subspaces with that of their draws.

    Args:
        rows: of `summarise_subspace`, one kind of pair.
    """
    figure = new_figure(TITLES[column])
    count = COUNT_OF.get(column, "n")
    for condition in reversed(CONDITIONS):
        look = SUBSPACES[condition]
        own = rows[rows["condition"] == condition].drop(columns="p_adjusted")
        trace = add_series(figure, own, "layer", column, look, count=count, band=True)
        if condition == "random":
            said = {row["layer"]: _of_draws(row, column) for _, row in own.iterrows()}
            trace.customdata = [[layer, said.get(layer, "")] for layer, _ in trace.customdata]
    ring(figure, rows[rows["condition"] == "subspace"], column, selected_layer)
    layer_axis(figure, rows["layer"])
    mark_layer(figure, selected_layer)
    if column.startswith("flip"):
        rate_axis(figure)
    else:
        reference_line(figure, 0.0)
    return figure


def _of_draws(row: pd.Series, column: str) -> str:
    value, low, high = (row[f"{column}{end}"] for end in ("", "_low", "_high"))
    return (
        f"<b>{SUBSPACES['random'].name}</b>, {layer_name(row['layer'])}<br>mean {value:.2f}, lowest {low:.2f} and "
        f"highest {high:.2f} of {int(row['draws'])} draws"
    )


def told(rows: pd.DataFrame, layer: int) -> None:
    """The selected layer in words, how the subspace was made, and what it cannot show."""
    own = rows[(rows["condition"] == "subspace") & (rows["layer"] == layer)].iloc[0]
    said = sentence(rows, layer)
    st.markdown(f"{md(said[0].upper() + said[1:])}.")
    st.caption(
        f"n = {int(own['n'])} pairs. Fitted for each pair on the mean states of {int(own['fitted_classes'])} or more "
        f"classes, over {int(own['fitted_clips'])} or more clips, without those of A's and B's units. Bands: of random "
        f"subspaces lowest to highest of {int(own['draws'])} draws; else 95 %: {md(own['interval_method'])}."
    )
    with st.expander("What a subspace does not show", icon=":material/info:"):
        st.markdown(SUBSPACE_LIMITS)
