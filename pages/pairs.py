"""Which recordings are compared: every pair to hear, with labels, the model's own answers, and why it was built."""

from __future__ import annotations

import streamlit as st

from components import explain, pairs_view, state
from interp_core.request import PatchRequest


def page() -> None:
    """Read the selection, build the pairs, draw them."""
    request: PatchRequest = st.session_state[state.REQUEST]
    st.title("Pairs", anchor=False)
    st.markdown(
        "Every pair is a recipient **A** and a donor **B** whose difference is known. Listen before you patch: a flip "
        "means little if B does not sound like its label, or if the model cannot hear it to begin with."
    )
    subject = state.require_model(request)
    engine = state.engine()
    with st.spinner("Reading the clips and building the pairs …"):
        clips, made = engine.manifest(request).clips, engine.pairs(request)
    shown = state.current_result(request)
    names = state.prompt_names(request.model, engine.resolve(request).settings.prompts)
    answers = pairs_view.answers_of(state.base_answers(request, shown))

    best = shown.index.best_pair if shown else {kind.name: made.of(kind.name)[0].pair_id for kind in made.kinds}
    kind = pairs_view.choose_kind(made, best)
    pairs = pairs_view.filtered(made.of(kind.name), kind)
    pairs_view.table(pairs, answers, names[0], 0)
    pair = pairs_view.choose_pair(pairs, best.get(kind.name))
    if pair is not None:
        pairs_view.detail(pair, kind, subject, answers, names)

    with st.expander("How often the model is right by itself", icon=":material/percent:"):
        accuracy = explain.base_accuracy(shown, names) if shown else None
        if accuracy is not None and len(accuracy):
            st.dataframe(accuracy, hide_index=True, alt="Base accuracy a question and label column.")
            st.caption("Over the clips of the pairs of the run on show; majority is what a constant answer gets.")
        pairs_view.ask_about_every_clip(request)
    with st.expander(f"All {len(clips)} clips", icon=":material/library_music:"):
        pairs_view.all_clips(clips, answers, names)
    with st.expander("How the pairs were built", icon=":material/fact_check:"):
        st.json(made.report, expanded=2)


page()
