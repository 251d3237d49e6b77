"""Files that are edited in place while the dashboard is open, and after a restart: no curve of them as they were."""

from __future__ import annotations

import json
import shutil

import pytest
from streamlit.testing.v1 import AppTest

from components import server as served
from interp_core import experiments
from interp_core.models import bundled
from tests.pages.conftest import PATIENCE_S, faults, forget, words
from tests.pages.tiny_demo import NAME
from tests.test_content import (
    edit,
    edit_config,
    edit_processor,
    replace_clip,
    replace_weights,
    swap_labels,
    write_clips,
)
from tests.toy.experiment import LOUDNESS
from tests.toy.request import LoudnessRequest

SCRIPT = """
import streamlit as st
from components import experiment_page, state
from interp_core.request import Request

st.session_state[state.PAGE] = "loudness"
st.session_state[state.REQUEST] = Request({model!r}, {clips!r}, device="cpu")
state.approve({model!r})
experiment_page.plain_page("loudness")()
"""
CURRENT = "settings, labels and recordings too"
EDITS = {
    "labels": swap_labels,
    "a recording": replace_clip,
    "weights": replace_weights,
    "a setting": edit_config,
    "the processor": edit_processor,
}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(experiments.EXPERIMENTS, "loudness", experiments.Registered(LoudnessRequest, lambda: LOUDNESS))
    monkeypatch.setattr(LOUDNESS, "passes", 0, raising=False)


@pytest.fixture
def place(server, assets):
    """The server's folder, with a model and recordings of somebody's own."""
    shutil.copytree(assets / NAME / "model", server / "model")
    write_clips(server)
    return server


def visit(place):
    script = SCRIPT.format(model=str(place / "model"), clips=str(place / "clips.csv"))
    at = AppTest.from_string(script, default_timeout=PATIENCE_S).run()
    return at.run()  # the model is open now


def press_run(at):
    next(button for button in at.button if button.label == "Run it now").click().run()
    assert all(job.wait(300) and job.status == "done" for job in served.engine().jobs.jobs())
    return at.run()


@pytest.mark.parametrize("what", EDITS)
def test_a_file_that_is_edited_in_place_takes_its_curve_away_and_run_computes_another(what, place):
    at = press_run(visit(place))
    assert faults(at) == [] and CURRENT in words(at) and LOUDNESS.passes == 4
    EDITS[what](place)
    at.run()
    at.run()
    assert faults(at) == [] and "Nothing has been computed for these settings yet" in words(at)
    assert not at.dataframe
    press_run(at)
    assert faults(at) == [] and CURRENT in words(at) and LOUDNESS.passes == 8
    forget()  # a restart
    again = visit(place)
    assert faults(again) == [] and "From the run folder" in words(again) and CURRENT in words(again)
    assert len(list((place / "runs").iterdir())) == 2


def test_a_linked_run_says_what_changed_since_and_so_does_one_whose_clips_are_gone(place):
    at = press_run(visit(place))
    (folder,) = (place / "runs").iterdir()
    script = SCRIPT.format(model=str(place / "model"), clips=str(place / "clips.csv"))
    linked = AppTest.from_string(script, default_timeout=PATIENCE_S)
    linked.query_params["run"] = str(folder)
    assert CURRENT in words(linked.run())
    replace_clip(place)
    linked.run()
    assert "Changed since this run: the recordings clip2" in words(linked) and CURRENT not in words(linked)
    assert "Weights checked: those of the open model, **but made from other files**" in words(linked)
    swap_labels(place)
    linked.run()
    assert "the manifest with its labels; the recordings clip2" in words(linked)
    (place / "clips.csv").unlink()
    linked.run()
    assert "its clips cannot be read now" in words(linked) and len(linked.dataframe) == 1
    assert at is not linked


def test_the_shipped_run_of_a_demo_whose_clips_were_changed_says_so(server, assets, open_app, monkeypatch):
    copied = shutil.copytree(assets, server / "assets")
    monkeypatch.setattr(bundled, "ASSETS", copied)
    forget()
    at = open_app()
    assert faults(at) == [] and CURRENT in words(at)
    manifest = copied / NAME / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",happy,", ",angry,"))
    at.run()
    assert faults(at) == []
    assert "Changed since this run: the manifest with its labels" in words(at) and CURRENT not in words(at)
    edit(copied / NAME / "run" / "patching_config.json", forget_digests)
    shutil.copy(assets / NAME / "manifest.csv", manifest)
    old = open_app()
    assert "not known of the model's settings and processor and the recordings" in words(old)
    assert json.loads((copied / NAME / "run" / "patching_config.json").read_text())["finished"]


def forget_digests(config):
    del config["model"]["files_sha256"], config["manifest"]["clips_sha256"], config["manifest"]["content_sha256"]
