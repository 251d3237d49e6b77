"""The labels of a collection in a table: typed, filled down, read off the names of the files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from components import state
from components.clips.facts import measured
from components.guard import readable_errors
from components.player import clip_audio
from interp_core.data.clips import Clip, file_digest
from interp_core.data.collection import OWN_COLUMNS, Collection, clean_name, labels_from_names, set_clips
from interp_core.errors import InterpError

TABLE_HEIGHT = 460
SHOWN = ("hear", "clip_id", "waveform", "sound")
SAME_TEXT = "clips of one text, but for case and blanks, pair up as kind prosody where their prosody_label differs"

COLUMNS = {
    **clip_audio.hear(),
    "clip_id": st.column_config.TextColumn("clip"),
    "waveform": st.column_config.AreaChartColumn(width=90, y_min=0, y_max=1),
    "sound": st.column_config.TextColumn(width=130, help="duration, RMS below full scale, what is wrong"),
    "text": st.column_config.TextColumn(help=f"what is said: {SAME_TEXT}"),
    "text_id": st.column_config.TextColumn(help="which text it is; where no clip has one, equal texts are one"),
    "speaker": st.column_config.TextColumn(help="who speaks; the two clips of a pair are one speaker's where they can"),
    "prosody_label": st.column_config.TextColumn(help="how it is said, such as the emotion of the voice"),
}


def table(collection: Collection) -> pd.DataFrame:
    """Draw the recordings as a table whose labels can be edited, and keep every change; what it holds now."""
    # The editor counts its changes from the table that it was first given, so that one stays until rows are added.
    version, kept = st.session_state.get(state.REC_TABLE, (None, None))
    if version != collection.folder.name or kept is None:
        kept = _with_facts(collection)
        st.session_state[state.REC_TABLE] = collection.folder.name, kept
        st.session_state[state.REC_EDITS] = st.session_state.get(state.REC_EDITS, 0) + 1
    edited = st.data_editor(
        kept,
        hide_index=True,
        height=min(TABLE_HEIGHT, 38 + 35 * max(len(kept), 1)),
        num_rows="delete",
        disabled=[name for name in SHOWN],
        key=f"recordings-{st.session_state[state.REC_EDITS]}",
        column_config=COLUMNS,
    )
    made = edited.drop(columns=[name for name in SHOWN if name != "clip_id"]).fillna("")
    if not made.equals(kept.drop(columns=[name for name in SHOWN if name != "clip_id"]).fillna("")):
        with readable_errors():
            set_clips(collection, made)
    return made


def listed(collection: Collection) -> pd.DataFrame:
    """Draw the recordings of another visitor, to be heard and left as they are; the table."""
    rows = _with_facts(collection)
    st.dataframe(rows, hide_index=True, column_config=COLUMNS, alt="The clips of the collection.")
    return rows


def forget() -> None:
    """The table is read from the disk again; for callbacks."""
    st.session_state.pop(state.REC_TABLE, None)


def tools(collection: Collection) -> None:
    """Fill labels without typing each: a new column, fill down, from the names."""

    def changed(make) -> None:  # type: ignore[no-untyped-def]
        try:
            set_clips(collection, make(collection.table()))
        except InterpError as error:
            st.session_state[state.REC_SAID] = [("error", str(error))]
        forget()

    def add_column() -> None:
        name = clean_name(st.session_state.get(state.REC_COLUMN, ""))
        changed(lambda rows: rows.assign(**{name: rows.get(name, "")}))

    def read_names() -> None:
        pattern = st.session_state.get(state.REC_PATTERN, "")
        changed(lambda rows: _from_names(rows, pattern))

    left, middle, right = st.columns([1, 1.6, 0.8], vertical_alignment="bottom")
    left.text_input("New label", key=state.REC_COLUMN, placeholder="mood", on_change=add_column)
    middle.text_input(
        "Labels from the names",
        key=state.REC_PATTERN,
        placeholder="{speaker}_{text}_{prosody_label}",
        on_change=read_names,
        help="What stands in braces becomes a label; {} is passed over. Names that do not fit keep their labels. "
        f"For {{text}} a number or a word does (so does {{text_id}}): {SAME_TEXT}.",
    )
    right.button("Fill down", on_click=changed, args=(fill_down,), help="An empty label takes the one above it.")


def fill_down(rows: pd.DataFrame) -> pd.DataFrame:
    """Every empty label takes the one above it."""
    labels = [name for name in rows.columns if name not in OWN_COLUMNS]
    filled = rows.copy()
    filled[labels] = rows[labels].replace("", np.nan).ffill().fillna("")
    return filled


def _from_names(rows: pd.DataFrame, pattern: str) -> pd.DataFrame:
    found = labels_from_names(rows["clip_id"].tolist(), pattern)
    left_out = found.index[found.isna().all(axis=1)].tolist()
    if left_out:
        shown = ", ".join(left_out[:5]) + (" …" if len(left_out) > 5 else "")
        said = f"The pattern does not fit {len(left_out)} of {len(rows)} names, whose labels stay: {shown}."
        st.session_state[state.REC_SAID] = [("warning", said)]
    made = {name: np.where(found[name].isna(), rows.get(name, ""), found[name]) for name in found}
    return rows.assign(**{str(name): values for name, values in made.items()})


def _with_facts(collection: Collection) -> pd.DataFrame:
    rows = collection.table()
    paths = [collection.folder / path for path in rows["path"]]
    digests = [file_digest(path) for path in paths]
    facts = [measured(str(path), digest) for path, digest in zip(paths, digests, strict=True)]
    rows = rows.drop(columns="path")
    rows.insert(
        0, "hear", [clip_audio.url(Clip(p.stem, p, {}, digest)) for p, digest in zip(paths, digests, strict=True)]
    )
    rows.insert(2, "waveform", pd.Series([list(one.envelope) for one in facts], dtype=object))
    rows["sound"] = [one.words for one in facts]
    return rows
