"""The field of the manifest, looked at before anything runs: a table, or a folder that holds a corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import streamlit as st

from components import server, state
from components.clips import owner
from components.guard import readable_errors
from components.words import md
from interp_core.data.corpora import CORPORA, Corpus
from interp_core.data.manifest import check_inside
from interp_core.data.tables import read_table
from interp_core.digests import digest_or_none
from interp_core.request import Request

MOST_ROWS = 1000
"""Clips that were left out are listed up to here."""
ROW_HEIGHT, MOST_SHOWN = 35, 8


def choose(request: Request) -> Request:
    """Where the manifest is a folder, ask how it is read, and name that corpus in the request."""
    if not _is_folder(request.manifest):
        return request
    reader = st.selectbox(
        "Read as",
        [state.AUTO, *CORPORA],
        key=state.CORPUS,
        bind=state.BOUND,
        help="auto recognises the corpus by its files, also one folder down. The names are those of `--corpus`.",
    )
    return replace(request, corpus=reader)


def look(request: Request) -> None:
    """Say at once what is wrong with the manifest of a request; of a corpus also what it holds and leaves out."""
    if not request.manifest:
        return
    with readable_errors():
        path = Path(request.manifest).expanduser()
        owner.refuse_foreign(path)
        check_inside(path, server.roots())
        if not request.corpus:
            _check_table(str(path), digest_or_none(path))
            return
        with st.spinner("Looking through the folder …"):
            found = server.engine().corpus(request)
        _summary(found)


@st.cache_data(max_entries=64, show_spinner=False)
def _check_table(path: str, digest: str | None) -> None:
    """Read a manifest once as long as it holds the same; what is wrong with it is said every time."""
    read_table(Path(path))


def _is_folder(manifest: str | None) -> bool:
    """Whether it is a folder that the server may read; of any other place not even that is told."""
    try:
        path = Path(manifest or "").expanduser()
        check_inside(path, server.roots())
        return bool(manifest) and path.is_dir()
    except (OSError, ValueError, RuntimeError):  # an InterpError is a ValueError; ~ of nobody is a RuntimeError
        return False


def _summary(corpus: Corpus) -> None:
    n_clips, n_labels = len(corpus.clips), len(corpus.classes)
    what = "pictures" if corpus.media == "image" else "clips"
    title = f"{CORPORA[corpus.name].TITLE}: {n_clips:,} {what}, {n_labels} {'labels' if n_labels != 1 else 'label'}"
    with st.expander(f"{title}, {len(corpus.skipped)} left out" if corpus.skipped else title, icon=":material/folder:"):
        counts = corpus.clips["label"].value_counts().reindex(corpus.classes)
        _table(pd.DataFrame({"label": counts.index, what: counts.to_numpy()}), "Clips of each label.")
        for note in corpus.notes:
            st.caption(md(note))
        if corpus.skipped:
            rows = [(row.file, row.reason) for row in corpus.skipped[:MOST_ROWS]]
            _table(pd.DataFrame(rows, columns=["left out", "why"]), "Clips that were left out.")


def _table(rows: pd.DataFrame, alt: str) -> None:
    st.dataframe(rows, hide_index=True, height=ROW_HEIGHT * (1 + min(len(rows), MOST_SHOWN)) + 3, alt=alt)
