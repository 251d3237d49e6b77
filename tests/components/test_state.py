"""The keys of a session: what a page selects and what an experiment is asked never share one."""

import streamlit as st

from components import state
from interp_core.experiments import EXPERIMENTS
from interp_core.options import declared


def test_no_selection_has_the_key_of_a_setting():
    keys = {value for name, value in vars(state).items() if name.isupper() and isinstance(value, str)}
    settings = {
        state.setting(command, one.name)
        for command, registered in EXPERIMENTS.items()
        for one in declared(registered.request)
    }
    assert state.HEADS_WORDS in keys and "heads_words" in settings, "control: there are both"
    assert keys & settings == set()


def test_a_choice_that_was_the_default_follows_when_the_default_changes_and_one_by_hand_stays():
    st.session_state.clear()
    try:
        state.follow("where", "mean")
        assert "where" not in st.session_state, "a link may be about to fill it"
        st.session_state["where"] = "mean"  # as the widget does
        state.follow("where", "last")
        assert st.session_state["where"] == "last"
        st.session_state["where"] = "each"  # by hand
        state.follow("where", "mean")
        state.follow("where", "last")
        assert st.session_state["where"] == "each"
        st.session_state["where"] = "last"  # by hand, what is usual now
        state.follow("where", "last")
        state.follow("where", "mean")
        assert st.session_state["where"] == "mean"
        state.take(where="mean")  # by hand, in one click with what its default depends on
        state.follow("where", "last")
        assert st.session_state["where"] == "mean"
    finally:
        st.session_state.clear()
