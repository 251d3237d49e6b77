"""An experiment that is registered and has no page of its own: the plain page runs it and shows figure and tables."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from interp_core import experiments
from tests.pages.conftest import PATIENCE_S, faults, opened_export, words
from tests.toy.experiment import LOUDNESS
from tests.toy.request import LoudnessRequest

SCRIPT = """
import streamlit as st
from components import experiment_page, state
from interp_core.request import Request

st.session_state[state.PAGE] = "loudness"
st.session_state[state.REQUEST] = Request("demo-tiny", device="cpu", max_clips=4)
experiment_page.plain_page("loudness")()
"""


@pytest.fixture
def page(server, monkeypatch):
    registration = experiments.Registered(LoudnessRequest, lambda: LOUDNESS)
    monkeypatch.setitem(experiments.EXPERIMENTS, "loudness", registration)
    return AppTest.from_string(SCRIPT, default_timeout=PATIENCE_S).run()


def test_the_plain_page_draws_the_declared_settings_runs_and_shows_the_run(page, server) -> None:
    while page.button and any("Open this model" in button.label for button in page.button):
        next(button for button in page.button if "Open this model" in button.label).click().run()
    page.run()  # the model is open now
    assert faults(page) == []
    assert "How loud every clip is." in words(page) and "Nothing has been computed" in words(page)
    (measure,) = [box for box in page.selectbox if box.label == "Measure"]
    measure.set_value("peak")
    next(button for button in page.button if button.label == "Run").click().run()
    from components import server as served

    assert all(job.wait(300) for job in served.engine().jobs.jobs())
    page.run()
    assert faults(page) == []
    assert "Computed by this server" in words(page)
    (folder,) = (server / "runs").glob("loudness-*")
    assert (folder / "loudness.csv").exists()
    assert len(page.dataframe[0].value) == 4 and "loudness" in page.dataframe[0].value
    commands = [block.value for block in opened_export(page).code]
    assert any("loudness" in text and "--measure=peak" in text for text in commands), commands
