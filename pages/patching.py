"""Layer patching: if A's audio at a layer becomes B's, does the answer move toward B?"""

from __future__ import annotations

import streamlit as st

from components import jobs_panel, patching_view, state
from components.guard import show
from components.settings import patching_form
from components.words import md
from interp_core.errors import InterpError
from interp_core.request import PatchRequest


def page() -> None:
    """Read the selection, start what is asked, draw what is there."""
    request: PatchRequest = st.session_state[state.REQUEST]
    title, actions = st.columns([1, 0.28], vertical_alignment="center")
    title.title("Layer patching", anchor=False)
    st.markdown(
        "Inside the model, B's audio replaces A's at one layer. Click a layer: see the answer flip, hear A and B."
    )
    subject = state.require_model(request)
    with actions.popover("Settings and run", icon=":material/tune:", width="stretch"):
        try:
            request, asked = patching_form(request, subject)
        except InterpError as error:
            show(error)
            asked = False
    if asked:
        with st.spinner("Checking the model, the clips and the settings …"):
            state.engine().submit(request, state.runs_folder())
    if (job := state.job_of(request)) and job.active:
        jobs_panel.watch(job)
    elif job and job.error:
        st.error(job.error)
    shown = state.current_result(request)
    if shown is None:
        st.info("Nothing has been computed for these settings yet: open *Settings and run*, and press Run.")
        return
    patching_view.check_shown(shown, subject)
    if shown.differences:
        st.info("Not what is set now: " + "; ".join(map(md, shown.differences)) + ". Run it to see that.")
    patching_view.explore(shown, request, subject)


page()
