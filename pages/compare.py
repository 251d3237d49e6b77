"""Compare: where do two models differ, and does the donor's activation, put into the base, change the answer?"""

from __future__ import annotations

import streamlit as st

from components import compare_runs, compare_settings, compare_view, compare_words, jobs_panel, state
from components.guard import show
from components.words import md
from interp_core.doors.compare import CompareRequest, resolve
from interp_core.errors import InterpError
from interp_core.request import PatchRequest


def page() -> None:
    """Read the selection, start what is asked, draw what is there."""
    request: PatchRequest = st.session_state[state.REQUEST]
    title, actions = st.columns([1, 0.28], vertical_alignment="center")
    title.title("Two models side by side", anchor=False)
    st.markdown(
        "Where do a base and a donor differ, and does the donor's activation, put into the base, change the answer? "
        "Click a cell; hear the clips whose score moved."
    )
    asked = compare_settings.choose_models(request)
    if asked is None:
        st.info(f"{md(request.model)} has no bundled counterpart: name a second model of its family above.")
        _offer_demo()
        return
    with actions.popover("Settings and run", icon=":material/tune:", width="stretch"):
        try:
            asked, pressed = compare_settings.form(asked)
        except InterpError as error:
            show(error)
            pressed = False
    asked = resolve(asked)
    for model in (asked.model, asked.donor):
        compare_settings.require(model)
    if pressed:
        state.engine().start(asked, state.runs_folder())
    job = state.engine().jobs.get(asked.key)
    if job is not None and job.active:
        jobs_panel.watch(job)
    elif job is not None and job.error:
        st.error(md(job.error))
    shown = compare_runs.current(asked)
    if shown is None:
        _before(asked, running=job is not None and job.active)
        return
    if shown.differences:
        st.info("Not what is set now: " + "; ".join(map(md, shown.differences)) + ". Run it to see that.")
    with st.spinner("Reading the clips …"):
        clips = {clip.clip_id: clip for clip in state.engine().manifest(asked).clips}
    compare_view.explore(shown, clips, clip_rate())


def clip_rate() -> int:
    """Samples a second that the player gets; every countermeasure and encoder here hears 16 kHz."""
    return 16_000


def _before(asked: CompareRequest, *, running: bool) -> None:
    """What is known before anything runs: identical parts, null transplants, the cost."""
    ready, cost = compare_runs.prepared(asked.key, asked)
    compare_words.notes(ready.question.notes)
    if not running:
        st.info(f"Nothing has been computed for these settings yet. {md(cost)}.")

        def start() -> None:
            state.engine().start(asked, state.runs_folder())

        st.button("Compare them now", on_click=start, type="primary", icon=":material/play_arrow:")


def _offer_demo() -> None:
    """A model that suits the page, where another one is chosen."""
    demo = compare_settings.suggestion()
    if not demo:
        return

    def choose() -> None:
        state.forget_choices()
        st.session_state[state.MODEL] = demo

    st.button(f"Look at {demo} instead", on_click=choose, icon=":material/graphic_eq:")


page()
