"""The curve of the patching page: which figure a view asks for, and what a click on it selects."""

from __future__ import annotations

from functools import partial
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from components import state
from components.charts import clicks
from components.charts.kept import kept_figure, kept_text
from components.charts.parts import at_height
from components.charts.words import alt_text
from components.patching import charts, edits, heads, subspaces
from components.patching.pair_panel import Look
from components.patching.results import Indexed
from components.shown import Shown
from components.words import layer_text, layer_title, md
from interp_core.errors import InterpError

PRESENTED_PX = 306  # of the curve before an audience: verdict, curve and player fill one screen of 800 pixels
VIEWS = ("Flip rate", "Logit change", "Recovered", "Information flow", "Dose-response", heads.VIEW)
IN_WORDS = "Answers in words"
"""A view of runs that hold any."""
RATES = {
    "reachable": "flip_to_target_rate_reachable",
    "eligible": "flip_to_target_rate_eligible",
    "all pairs": "flip_to_target_rate",
    "any change": "flip_from_base_rate",
}
DELTAS = {
    "log-probability": "delta_logprob_target_mean",
    "logit": "delta_logit_target_mean",
    "target − own": "delta_logit_diff_mean",
}


def draw_curve(shown: Shown, index: Indexed, look: Look) -> go.Figure:
    """Draw what the view asks for; the first figure takes clicks where its axis is the layer."""
    metrics = index.metrics(look.kind, look.prompt, look.strength)
    column, layer = "flip_to_target_rate_reachable", look.layer
    if look.head is not None:
        return heads.draw(index, look.kind, look.prompt, look.head)
    if look.view == heads.VIEW:
        st.info(heads.NO_MAP)
    if look.view == "Dose-response":
        column = RATES[look.measure]
        figure = charts.dose_response(index.doses(look.kind, look.prompt), layer, value=column)
        _show(figure, index, alt=f"Dose-response at {layer_title(layer)}: {column} against the strength alpha.")
        if len(index.alphas) == 1:
            st.caption("This run has one strength; add more under Settings and run. One pair by hand: on the right.")
        return figure
    if look.view == IN_WORDS:
        return _in_words(index, look)
    if look.view == edits.VIEW:
        asked = (index.result.edit_doses, look.kind, look.prompt, look.strength, layer)
        figure = edits.dose_curve(*asked, look.measure)
        _show(figure, index, alt=f"Effect against the dose. {edits.dose_said(*asked)}")
        return figure
    if look.view == subspaces.VIEW:
        return _within(index, look)
    if look.view == "Logit change":
        column = DELTAS[look.measure]
        draw = partial(charts.delta_curve, metrics, column, flow=())
    elif look.view == "Recovered":
        column = "recovered"
        draw = partial(charts.delta_curve, metrics, column, flow=())
    elif look.view == "Information flow":
        lens = index.lens(look.kind, look.prompt)
        draw = partial(charts.flip_curve, metrics, controls=(), lens=lens if len(lens) else None)
    else:
        column = RATES.get(look.measure, column)  # nothing was chosen where a map of heads was asked for
        draw = partial(charts.flip_curve, metrics, rate=column, flow=())
    drawn = (shown.key, look.kind, look.prompt, look.strength, look.view, column)
    figure = kept_figure(drawn, draw)
    charts.select_layer(figure, metrics, column, layer)
    alt = kept_text(drawn, partial(alt_text, metrics, rate=column))
    _show(figure, index, alt=alt, clickable=True)
    if look.view == "Information flow" and len(knockout := index.knockout(look.kind, look.prompt)):
        st.markdown("**Necessity**: which answers change when nobody may read the audio in a window of layers")
        _show(
            charts.knockout_curve(knockout, selected_layer=layer),
            index,
            alt="Changed answers when the audio may not be read in a window of layers.",
            key="knockout",
            clickable=True,
        )
    return figure


def _within(index: Indexed, look: Look) -> go.Figure:
    """What exchanging a subspace alone does."""
    if look.prompt:
        raise InterpError("subspaces were exchanged under the first question alone; choose it.")
    rows = index.result.subspace_of(look.kind)
    figure = subspaces.curve(rows, subspaces.MEASURES[look.measure], look.layer)
    _show(figure, index, alt="Whole state, subspace and random subspaces, by layer.", clickable=True)
    subspaces.told(rows, look.layer)
    return figure


def _in_words(index: Indexed, look: Look) -> go.Figure:
    """The mean shares of words that moved and were kept, and on how many pairs they rest."""
    rows = index.words_moved(look.kind, look.prompt).rename(columns={"moved_mean": "moved", "kept_mean": "kept"})
    if rows.empty:
        raise InterpError("answers were written in words under the first question alone; choose it.")
    figure = charts.words_curve(rows, selected_layer=look.layer)
    best: dict[Any, Any] = max(rows.fillna({"moved": -1}).to_dict("records"), key=lambda row: row["moved"])
    alt = "Mean share of B's own words in A's answer, and of A's own that are still there, by layer."
    if best["moved"] >= 0:
        alt += f" Most of B's: {best['moved']:.2f} at {layer_title(int(best['layer'])).lower()}."
    _show(figure, index, alt=alt, clickable=True)
    first = rows.iloc[0]
    left = f"; {md(first['pairs_left_out'])} more were not written out" if first["pairs_left_out"] else ""
    intervals = "; ".join(rows["interval_method"].unique())
    st.caption(
        f"Mean over {md(first['n_pairs'])} pairs{left}; 95 % interval: {md(intervals)}. A's and B's own words are "
        "those in which their clean answers differ."
    )
    return figure


def _show(figure: go.Figure, index: Indexed, *, alt: str, key: str = state.CURVE, clickable: bool = False) -> None:
    def clicked(layer: int) -> None:
        if layer in index.layers:
            st.session_state[state.LAYER] = layer_text(layer)

    if state.presenting():
        figure = at_height(figure, PRESENTED_PX)
    clicks.show(figure, key=key, alt=alt, on_click=clicked if clickable else None)
