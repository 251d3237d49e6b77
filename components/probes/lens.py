"""The lens on the Probes page: one clip's audio positions in words, by layer and time; or its transcript by layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from components import export, server, state
from components.charts import heatmap
from components.probes import charts
from components.shown import Shown
from components.widgets import choosing
from components.words import layer_text, layer_title, md, option
from interp_core.data.clips import Clip
from interp_core.experiments.facts import signature
from interp_core.experiments.probes.lens import Nearest, lens_refusal, nearest_words, transcripts
from interp_core.experiments.probes.request import EMB, ProbesRequest
from interp_core.experiments.wording import Written
from interp_core.models.subject import Subject

NEAREST = "whichever is nearest"
BIAS = (
    "The lens reads every layer with the final norm and the unembedding, which fit the last one alone: it is biased, "
    "and what it cannot read may be there (Belrose et al. 2023, arXiv:2303.08112)."
)
EXITS = (
    "The decoder hears what a layer of the encoder leaves, behind the encoder's final norm, as if it were the last "
    "(Langedijk et al. 2023, arXiv:2310.03686). Early layers are states that it never met."
)


def window_of(request: ProbesRequest, subject: Subject, clip: Clip, key: str) -> tuple[float, float] | None:
    """Seconds of the selected cell, for the player; None where there is none."""
    if lens_refusal(subject) is not None or subject.early_exit_refusal() is None:
        return None
    made = _nearest((key, subject.key, clip.digest), request, clip)
    cell = _cell(made)
    return None if cell is None else (float(made.edges[cell[1]]), float(made.edges[cell[1] + 1]))


def draw(request: ProbesRequest, subject: Subject, clip: Clip, shown: Shown) -> None:
    """The lens that the model has, on a clip.

    Args:
        request: of the run on show, on the models and clips of now.
    """
    if (refusal := lens_refusal(subject)) is not None:
        st.caption(f"No lens here: {md(subject.name)} {md(refusal)}.")
        return
    named = (shown.key, subject.key, clip.digest)
    if subject.early_exit_refusal() is None:
        with st.spinner("Writing from every layer …"):
            _transcripts(_written(named, request, clip))
        return
    with st.spinner("Reading words off every layer …"):
        made = _nearest(named, request, clip)
    _map(made, clip, shown)


def _cell(made: Nearest) -> tuple[int, int] | None:
    """The selected cell, as (row, column); None where none is, or one of another clip's map."""
    layer, _, column = state.linked_text(state.PB_CELL).partition(",")
    if not column.isdecimal() or int(column) >= len(made.edges) - 1:
        return None
    rows = {layer_text(one): row for row, one in enumerate(made.layers)}
    return (rows[layer], int(column)) if layer in rows else None


def _map(made: Nearest, clip: Clip, shown: Shown) -> None:
    names = {option(label): label for label in made.labels}
    chosen = st.selectbox("Coloured by", [NEAREST, *names], key=state.PB_WORD, bind=state.BOUND, width=220)
    cell = _cell(made)

    def on_cell(at: tuple[int, int]) -> None:
        choosing(state.PB_CELL)(f"{layer_text(made.layers[at[0]])},{at[1]}")

    figure = charts.lens_map(made, names.get(chosen or ""), cell)
    heatmap.show(
        figure, key=state.PB_LENS, on_cell=on_cell,
        alt="Which answer each position of the recording is nearest to, by layer and time.",
    )  # fmt: skip
    title = f"Lens on {clip.clip_id}: {names.get(chosen or '', 'the answer that each position is nearest to')}"
    signed = partial(signature, shown.config, "final norm and unembedding on every layer", "n = 1 clip, no interval")
    name = export.file_name(shown.result.model_name, "lens", clip.clip_id)
    export.chart(export.Drawn(figure, title, signed, name), key=state.PB_LENS)
    answer, share = made.own
    st.markdown(
        f"**{md(clip.clip_id)}** is answered :blue-badge[{md(answer)}] ({100 * share:.0f} % among the answers), at "
        f"the last position. {_reading(made, cell)}"
    )
    if cell is not None:
        rows = pd.DataFrame({
            "answer": made.labels,
            "among the answers": made.shares[cell].round(3),
            "among all words": [f"{value:.2g}" for value in made.answers[cell]],
        })  # fmt: skip
        st.dataframe(rows, hide_index=True, alt="Probability of every answer at the selected cell.")
    st.caption(BIAS)


def _reading(made: Nearest, cell: tuple[int, int] | None) -> str:
    """The selected cell in a sentence, or how many positions of the last layer lie nearest to the model's answer."""
    if cell is None:
        last = made.nearest[-1]
        own = made.labels.index(made.own[0])
        share, n_pos = 100 * float(np.mean(last == own)), int(made.n_pos)
        near = f"{share:.0f} % of its {n_pos} audio positions are nearest to that answer"
        return f"Behind the last layer {near}. Click a cell."
    i, j = cell
    best = int(made.nearest[i, j])
    where = "What enters layer 0" if made.layers[i] == EMB else layer_title(made.layers[i])
    return (
        f"{where}, {made.edges[j]:.2f} to {made.edges[j + 1]:.2f} s: nearest to **{md(made.labels[best])}** "
        f"({100 * made.shares[i, j, best]:.0f} % among the answers); of all words the likeliest is "
        f"“{md(made.words[i][j].strip() or 'blank')}” ({100 * made.sure[i, j]:.0f} %)."
    )


def _transcripts(made: list[Written]) -> None:
    st.markdown("**The transcript, had the encoder ended at each layer**")
    rows = pd.DataFrame({
        "layer": [layer_text(row - 1) for row in range(len(made))],
        "transcript": [text.text.strip() for text in made],
        "": ["the model's own" if row == len(made) - 1 else "" for row in range(len(made))],
    })  # fmt: skip
    st.dataframe(rows, hide_index=True, alt="What the decoder writes from every layer.")
    st.caption(EXITS)


@st.cache_data(max_entries=64, show_spinner=False)
def _nearest(named: tuple[Any, ...], _request: ProbesRequest, _clip: Clip) -> Nearest:
    """`named` names the run, the model and the clip that it comes from."""
    return nearest_words(server.engine(), _request, _clip)


@st.cache_data(max_entries=64, show_spinner=False)
def _written(named: tuple[Any, ...], _request: ProbesRequest, _clip: Clip) -> list[Written]:
    return transcripts(server.engine(), _request, _clip)
