"""Undo and redo of what is selected on a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from components import state

MOST_STEPS = 200


@dataclass
class History:
    """The selections of a page, one after the other.

    Attributes:
        of: names the run that they were made in: those of another mean nothing here.
        steps: key -> value of every selection; `at` is the one on show.
        moved: whether it has just been gone back or forth to, and so is not another one.
    """

    of: str
    steps: list[dict[str, Any]]
    at: int = 0
    moved: bool = False


def _history() -> History | None:
    return st.session_state.setdefault(state.HISTORY, {}).get(st.session_state.get(state.PAGE))


def note_selection(of: str) -> None:
    """Note what is selected on this page now, behind its widgets; the same again is no step. `of` names the run."""
    now = {key: st.session_state[key] for key in state.SELECTION if key in st.session_state}
    known = _history()
    if known is None or known.of != of:
        st.session_state[state.HISTORY][st.session_state.get(state.PAGE)] = History(of, [now])
    elif known.moved:  # what was gone to, as the widgets took it
        known.steps[known.at], known.moved = now, False
    elif all(now.get(key, value) == value for key, value in known.steps[known.at].items()):
        known.steps[known.at].update(now)  # a part of the page was opened or closed: nothing else is selected
    else:
        known.steps = [*known.steps[: known.at + 1], now][-MOST_STEPS:]
        known.at = len(known.steps) - 1


def steps_left() -> tuple[int, int]:
    """How many selections can be undone and redone on this page."""
    known = _history()
    return (0, 0) if known is None else (known.at, len(known.steps) - 1 - known.at)


def step_selection(by: int) -> None:
    """Select again what was selected one step before (-1), or what was undone (1); for callbacks."""
    known = _history()
    if known is None or not 0 <= known.at + by < len(known.steps):
        return
    known.at, known.moved = known.at + by, True
    state.take(**known.steps[known.at])
    st.session_state.pop(state.WINDOW_OF, None)
