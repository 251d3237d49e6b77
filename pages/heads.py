"""Heads: which of them separate the classes, is it more than chance, and does the model use them?"""

from __future__ import annotations

import streamlit as st

from components import heads_runs, heads_settings, heads_view, jobs_panel, state
from components.guard import show
from components.words import md
from interp_core.errors import InterpError
from interp_core.experiments.heads_points import geometry_of
from interp_core.request import PatchRequest

DEMO = "demo-events"


def page() -> None:
    """Read the selection, start what is asked, draw what is there."""
    request: PatchRequest = st.session_state[state.REQUEST]
    title, actions = st.columns([1, 0.28], vertical_alignment="center")
    title.title("Heads, blocks, stages", anchor=False)
    st.markdown(
        "Which attention heads separate the classes, and does the model use them? Click a head; hear its clips."
    )
    subject = state.require_model(request, answers=False)
    try:
        geometry_of(subject)
    except InterpError as error:
        show(error)
        _offer_demo(request)
        return
    clips = state.engine().manifest(request).clips
    with actions.popover("Settings and run", icon=":material/tune:", width="stretch"):
        asked, pressed = heads_settings.form(request, clips)
    if pressed:
        state.engine().start(asked, state.runs_folder())
    job = state.engine().jobs.get(asked.key)
    if job is not None and job.active:
        jobs_panel.watch(job)
    elif job is not None and job.error:
        st.error(md(job.error))
    shown = heads_runs.current(asked)
    if shown is None and job is not None and job.active:
        return
    if shown is None:
        st.info("Nothing has been computed for these settings yet: open *Settings and run*, and press Run.")
        _offer_demo(request)
        return
    if shown.differences:
        st.info("Not what is set now: " + "; ".join(map(md, shown.differences)) + ". Run it to see that.")
    heads_view.explore(shown, asked, subject)


def _offer_demo(request: PatchRequest) -> None:
    """A model that suits the page, where another one is chosen."""
    if request.model == DEMO or state.engine().demo(DEMO) is None:
        return

    def choose() -> None:
        state.forget_choices()
        st.session_state[state.MODEL] = DEMO

    st.button("Look at demo-events instead", on_click=choose, icon=":material/graphic_eq:")


page()
