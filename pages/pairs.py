"""Which recordings are compared: every pair to hear, with labels, the model's own answers, and why it was built."""

from __future__ import annotations

import streamlit as st

from components import models, state, toolbar
from components.patching import ask, by_hand, edit_by_hand
from components.patching import pairs as pairs_view
from components.widgets import choice
from interp_core.experiments.patching.request import PatchRequest


def page() -> None:
    """Read the selection, build the pairs, draw them."""
    st.title("Pairs", anchor=False)
    st.markdown(
        "Every pair is a recipient **A** and a donor **B** whose difference is known. Listen before you patch: a flip "
        "means little if B does not sound like its label, or if the model cannot hear it to begin with."
    )
    request: PatchRequest = st.session_state[state.REQUEST]
    subject = models.require(request)
    asked = ask.fill(request)
    bar = st.container(horizontal=True, vertical_alignment="center")
    with bar:
        view = choice(
            "Pairs", (state.BUILT, state.BY_HAND, state.EDITED), key=state.PAIRS_VIEW, label_visibility="collapsed"
        )
    if view == state.BY_HAND:
        by_hand.draw(asked, subject)
    elif view == state.EDITED:
        edit_by_hand.draw(asked, subject)
    else:
        pairs_view.built(asked, subject)
        with bar:
            st.space("stretch")
            toolbar.draw(asked.key)


page()
