"""Sign flip: what do flipped neurons do to energy, zero crossings and modulation of the representation behind them?"""

from __future__ import annotations

import streamlit as st

from components import neurons_runs, neurons_settings, signflip_view, state
from components.guard import show
from interp_core.doors.ablate import question
from interp_core.doors.signflip import prepare, read_result
from interp_core.errors import InterpError
from interp_core.experiments.signflip_flow import check_subject
from interp_core.request import PatchRequest

DEMO = "demo-emotion-wavlm"


def page() -> None:
    """Read the selection, start what is asked, draw what is there."""
    request: PatchRequest = st.session_state[state.REQUEST]
    title, actions = st.columns([1, 0.28], vertical_alignment="center")
    title.title("Sign flips, measured where they can act", anchor=False)
    st.markdown(
        "Flip the neurons that matter for a class at one layer, and measure the representation at every layer behind "
        "it. Click a cell; hear the clips whose answer changed."
    )
    subject = state.require_model(request)
    try:
        check_subject(subject)
        labels = request.settings.labels if subject.asks else subject.answers
        subject.labels(labels, question(subject, request.model))
    except InterpError as error:
        show(error)
        neurons_runs.offer_demo(request, DEMO)
        return
    with actions.popover("Settings and run", icon=":material/tune:", width="stretch"):
        asked, pressed = neurons_settings.signflip_form(request, labels)
    shown = neurons_runs.started(request, asked, pressed, prepare, read_result, DEMO)
    if shown is not None:
        signflip_view.explore(shown, asked, subject)


page()
