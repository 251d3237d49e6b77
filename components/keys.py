"""Every key of the pages and of the players, in one panel on every page."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from components.words import md

Keys = Mapping[str, str]

ON_THE_PAGE: Keys = {
    "h": "this panel",
    "u": "undo: what was selected before (layer, pair, head, cell, window, strength, question …)",
    "y": "redo",
    "j": "one layer, head, dose, transplant or line of a list of runs or models down",
    "k": "one up",
    "p": "previous pair or clip",
    "n": "next pair or clip",
    "1": "blind test: X is A",
    "2": "blind test: X is B",
    "Tab": "to the next control; Shift + Tab to the one before, Enter or Space presses it",
}
"""While the focus is in no field that takes text. Streamlit's own keys come beside them."""
IN_THE_PLAYER: Keys = {
    "Space": "play, pause",
    "a": "hear A",
    "b": "hear B",
    "x": "the other one of A and B; in the blind test hear X",
    "ArrowLeft": "0.1 s back",
    "ArrowRight": "0.1 s on",
    "ArrowUp": "on the letters: the other one of A and B",
    "ArrowDown": "on the letters: the other one of A and B",
    "Home": "to the start",
    "l": "loop",
    "m": "match the levels of A and B, or not",
    "Escape": "clear the region",
    "q": "play all pairs that flip, A and then B of each; again to stop",
    ",": "previous pair that flips",
    ".": "next pair that flips",
}
"""While the focus is in a player: Tab to it, or click it."""
SHOWN = {"ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "ArrowDown": "↓", "Escape": "Esc"}


def draw() -> None:
    """The button that opens the panel; in the sidebar, on every page."""
    if st.button("Keys and help", icon=":material/keyboard:", shortcut="h", key="keys", width="stretch"):
        _panel()


@st.dialog("Keys and help", width="large")
def _panel() -> None:
    st.markdown(
        "**A** is the recording whose answer is changed, **B** the one whose states are put in. A click on a curve, a "
        "map or a row selects; what is selected stands in the address, so *Copy link* gives the view to others, and a "
        "model that does not ship with Patchbay is opened for them only when they say so. Dragging over the recordings "
        "marks a time window; without a mouse it is typed beside *Strength by hand* on the page Patching."
    )
    page, player = st.columns(2)
    page.markdown("**On the page**, while the focus is in no text field")
    page.markdown(_table(ON_THE_PAGE))
    player.markdown("**In a player**, while the focus is in it: Tab to it, or click it")
    player.markdown(_table(IN_THE_PLAYER))


def _table(keys: Keys) -> str:
    shown = {key: SHOWN.get(key, key.upper() if len(key) == 1 else key) for key in keys}
    rows = [f"| **{md(shown[key])}** | {md(what)} |" for key, what in keys.items()]
    return "\n".join(["| key | what it does |", "| --- | --- |", *rows])
