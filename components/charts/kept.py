"""Figures and their texts, made once: a click moves the mark of the selection and leaves the curves as they are."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import plotly.graph_objects as go
import streamlit as st


def kept_figure(key: tuple[Hashable, ...], build: Callable[[], go.Figure]) -> go.Figure:
    """A figure of one's own to add to: a copy of what `build` draws, which is kept.

    Args:
        key: all that `build` depends on, the run's key first.
    """
    # Taken as it is: plotly would check each value again, which takes as long as drawing some figures does.
    return go.Figure(_kept(key, build).to_dict(), _validate=False)


@st.cache_resource(max_entries=64, show_spinner=False)
def _kept(key: tuple[Hashable, ...], _build: Callable[[], go.Figure]) -> go.Figure:
    return _build()


def kept_text(key: tuple[Hashable, ...], write: Callable[[], str]) -> str:
    """A text that `write` makes of what `key` names, the run's key first; kept."""
    return _text(key, write)


@st.cache_resource(max_entries=1024, show_spinner=False)
def _text(key: tuple[Hashable, ...], _write: Callable[[], str]) -> str:
    return _write()
