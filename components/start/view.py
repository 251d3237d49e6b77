"""The start page: examples, own recordings, recent runs, and which models can be opened."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from components import page_style, state
from components.clips import owner
from components.guard import readable_errors
from components.runs import rows as runs
from components.start.examples import EXAMPLES
from components.words import md
from interp_core.models import bundled

PAGES = Path(__file__).resolve().parents[2] / "pages"
RECENT = 6
ACROSS = 3
"""Examples beside each other."""


def draw() -> None:
    """Draw the whole page."""
    st.subheader("Views to begin with", anchor=False)
    for first in range(0, len(EXAMPLES), ACROSS):
        beside = EXAMPLES[first : first + ACROSS]
        for column, example in zip(st.columns(ACROSS, gap="medium"), beside, strict=False):
            key = f"{page_style.CARD}{EXAMPLES.index(example)}"
            with column, st.container(border=True, height="stretch", key=key):
                st.markdown(f"**{md(example.title)}**  \n{md(example.about)}")
                st.page_link(
                    str(PAGES / f"{example.page}.py"),
                    label=f"Open {md(example.page.capitalize())}",
                    icon=f":material/{example.icon}:",
                    query_params=example.parameters,
                )
    left, right = st.columns(2, gap="medium")
    with left, readable_errors():
        st.subheader("Your own recordings", anchor=False)
        _recordings()
        st.subheader("Models", anchor=False)
        _models()
    with right, readable_errors():
        st.subheader("Recent runs", anchor=False)
        _recent()


def _recordings() -> None:
    st.markdown("Drop files or speak two sentences, choose A and B, and see at which layer the answer flips.")
    st.page_link(str(PAGES / "recordings.py"), label="Record or drop sound", icon=":material/mic:")
    if known := owner.visible():
        st.caption("Kept: " + ", ".join(md(one.name) for one in known))


def _models() -> None:
    st.markdown("\n".join(f"- **{md(demo.name)}**: {md(demo.title)}" for demo in bundled.demos().values()))
    st.caption("Also a Hugging Face folder, a checkpoint of a known kind, or a hub id, typed under Model.")
    st.page_link(str(PAGES / "models.py"), label="All models", icon=":material/category:")


def _recent() -> None:
    finished = [row for row in runs.every() if row.state == "finished" and row.folder is not None][:RECENT]
    pages = st.session_state[state.PAGES]
    for row in finished:
        if (page := pages.get(row.command)) is not None:
            st.page_link(
                page,
                label=md(row.title),
                icon=":material/history:",
                query_params={state.RUN: row.name},
                help=md(row.asked) if row.asked else None,
            )
    if not finished:
        st.info("Nothing has been run yet.")
    st.page_link(str(PAGES / "runs.py"), label="All runs", icon=":material/folder_open:")
