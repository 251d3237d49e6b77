"""The time window of the selected pair: dragged in the player or typed, shown in seconds and in positions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import streamlit as st

from components import server, state
from components.guard import show
from components.player.ab_player import Region
from components.words import md
from interp_core.data.pairs import Pair
from interp_core.errors import InterpError
from interp_core.experiments.patching.experiment import window_by_hand
from interp_core.experiments.patching.positions import Replaced, time_window
from interp_core.experiments.patching.request import PatchRequest


@dataclass(frozen=True)
class Window:
    """A time window.

    Attributes:
        positions: as a request names it. seconds: (start, stop) of it. alone: whether nothing else is patched.
    """

    positions: str
    seconds: Region
    alone: bool


def marked(region: Region | None) -> None:
    """What the listener has marked in the player is the window; for its callback."""
    state.mark_window("" if region is None else f"{region[0]:.2f}-{region[1]:.2f}")


def choose() -> Window | None:
    """The window's widgets; None where there is none, or what was typed is none, which is said."""
    typed = st.text_input(
        "Window, s",
        key=state.WINDOW,
        bind=state.BOUND,
        placeholder="0.5-0.8",
        max_chars=24,
        width=110,
        help="Drag over the recordings, or type start-end in seconds. It belongs to this pair.",
    )
    seconds = time_window(typed or "")
    alone = st.toggle(
        "patch just this",
        key=state.ONLY_WINDOW,
        bind=state.BOUND,
        disabled=seconds is None,
        help="What is patched in goes to the positions inside the window alone, at the strength on the left.",
    )
    st.button("Clear", key="clear-window", on_click=state.mark_window, args=("",), disabled=not typed, help="no window")
    if typed and seconds is None:
        show(f"The window {typed!r} is not start-end in seconds, with the start first; type one like 0.5-0.8.")
    return None if seconds is None else Window((typed or "").strip(), seconds, alone)


def read(window: Window, made: PatchRequest, pair: Pair, prompt: int) -> Replaced | None:
    """Say what the window means in seconds and positions of this pair; None, and a sentence, where it misses a clip."""
    asked = replace(made, positions=window.positions)
    try:
        found = _replaced(server.engine().key_of(asked), pair.recipient.digest, pair.donor.digest, prompt, asked, pair)
    except InterpError as error:
        show(error)
        return None
    count = found.stop - found.first
    which = f"position {found.first:d}" if count == 1 else f"positions {found.first:d} to {found.stop - 1:d}"
    start, stop = found.seconds
    incoming = "B's states" if made.class_mean is None else made.donor_said
    said = f"take {incoming}" if window.alone else "are marked, not patched alone"
    st.caption(f"Audio {which} of A's {found.of:d} ({start:.2f} – {stop:.2f} s) {md(said)}.")
    return found


@st.cache_data(max_entries=512, show_spinner=False)
def _replaced(key: str, a: str, b: str, prompt: int, _asked: PatchRequest, _pair: Pair) -> Replaced:
    return window_by_hand(server.engine(), _asked, _pair, prompt=prompt)
