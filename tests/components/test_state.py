"""The keys of a session: what a page selects and what an experiment is asked never share one."""

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
