"""The settings of a heads run as widgets."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from components import state
from interp_core.data.clips import Clip
from interp_core.doors.heads import HeadsRequest, as_heads
from interp_core.errors import InterpError
from interp_core.experiments.heads import PROBED, HeadSettings
from interp_core.experiments.heads_ablate import KINDS
from interp_core.request import Asked

MOST_CLASSES = 60
PREFERRED = ("label", "prosody_label", "category", "class")
DRAWS = (99, 499, 999, 4999)


def form(base: Asked, clips: Sequence[Clip]) -> tuple[HeadsRequest, bool]:
    """Draw the widgets; the request that they make, and whether Run was pressed.

    Raises:
        InterpError: no column tells classes apart.
    """
    columns = class_columns(clips)
    if not columns:
        raise InterpError("no column of the manifest has two classes or more of two clips each; add a label column.")
    default = next((name for name in PREFERRED if name in columns), columns[0])
    with st.form("heads_form", border=False):
        label = st.selectbox(
            "Classes", columns, index=columns.index(default), key=state.HEADS_LABEL, bind=state.BOUND,
            help="The column whose values are to be told apart.",
        )  # fmt: skip
        per_class = st.number_input(
            "Clips of each class", 0, 100_000, 0, key=state.HEADS_PER_CLASS, bind=state.BOUND,
            help="0: as many as the smallest class has.",
        )  # fmt: skip
        groups = st.selectbox(
            "Related clips share", ["auto", "none", *sorted({n for c in clips for n in c.labels} - {label})],
            key=state.HEADS_GROUPS, bind=state.BOUND,
            help="Shuffles, intervals and folds keep clips of one value together.",
        )  # fmt: skip
        held_out = st.checkbox(
            "Leave out clips that the model was trained on (split = train)", True, key=state.HEADS_HELD_OUT,
            bind=state.BOUND,
        )  # fmt: skip
        left, right = st.columns(2)
        draws = left.selectbox("Shuffles", DRAWS, index=2, key=state.HEADS_DRAWS, bind=state.BOUND)
        probes = right.selectbox(
            "Probes", PROBED, key=state.HEADS_PROBES, bind=state.BOUND, help="wide: blocks and stages only"
        )
        ablated = st.multiselect(
            "Ablate every head", KINDS, key=state.HEADS_ABLATE, bind=state.BOUND,
            help="Slow: every clip is answered again once a head and kind. A single head can be ablated by a click.",
        )  # fmt: skip
        seed = st.number_input("Seed", 0, 2**31 - 1, 42, key=state.HEADS_SEED, bind=state.BOUND)
        pressed = st.form_submit_button("Run", type="primary", icon=":material/play_arrow:")
    settings = HeadSettings(
        label=label or default,
        per_class=int(per_class) or None,
        groups=groups or "auto",
        held_out=bool(held_out),
        draws=int(draws or 999),
        probes=probes or "all",
        ablate=tuple(ablated),
        seed=int(seed),
    )
    return as_heads(base, settings), pressed


def class_columns(clips: Sequence[Clip]) -> list[str]:
    """Columns whose values can be classes: two or more, of two clips each, and not one a clip."""
    found = []
    for name in sorted({name for clip in clips for name in clip.labels}):
        values = [clip.label(name) for clip in clips if clip.label(name) is not None]
        counts = {value: values.count(value) for value in set(values)}
        if 2 <= len(counts) <= MOST_CLASSES and min(counts.values()) >= 2:
            found.append(name)
    return found
