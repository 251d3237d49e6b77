"""Neurons: do a few carry a shortcut, and does taking them out help where the shortcut does not hold?"""

from __future__ import annotations

import streamlit as st

from components import neurons_runs, neurons_settings, neurons_view, state
from components.words import md
from interp_core.doors.ablate import prepare, read_result
from interp_core.models.images import ImageClassifier
from interp_core.request import PatchRequest

DEMO = "demo-emotion-wavlm"


def page() -> None:
    """Read the selection, start what is asked, draw what is there."""
    request: PatchRequest = st.session_state[state.REQUEST]
    title, actions = st.columns([1, 0.28], vertical_alignment="center")
    title.title("Neurons that carry a shortcut", anchor=False)
    st.markdown(
        "Take out the neurons that a probe of the domain leans on, K at a time: does the head do better where the "
        "shortcut does not hold? Click a dose; hear the clips that changed."
    )
    subject = state.require_model(request)
    if isinstance(subject, ImageClassifier):
        st.info(
            f"{md(subject.name)} sees pictures; run it on the command line: python -m interp_core ablate --corpus …"
        )
        neurons_runs.offer_demo(request, DEMO)
        return
    clips = state.engine().manifest(request).clips
    with actions.popover("Settings and run", icon=":material/tune:", width="stretch"):
        asked, pressed = neurons_settings.ablation_form(request, subject, clips)
    shown = neurons_runs.started(request, asked, pressed, prepare, read_result, DEMO)
    if shown is not None:
        neurons_view.explore(shown, asked, subject)


page()
