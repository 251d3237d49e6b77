"""One clip and its own edited copy on the pages: heard, measured, patched, kept, and drawn by dose."""

import base64
import json

import numpy as np
import pytest
from starlette.requests import Request

from components import export, state
from components import server as running
from components.patching import edits
from components.player import clip_audio
from components.words import option
from interp_core.data.edits import clip_named, read_clip
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.edit_figures import doses_at
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.request import PatchRequest
from tests.pages.conftest import ROOT, by_key, faults, told, words
from tests.pages.tiny_demo import NAME

PAGE = str(ROOT / "pages" / "pairs.py")
KINDS = state.setting("patch", "kinds")


@pytest.fixture
def open_edits(open_app):
    return lambda **parameters: open_app(pairs=state.EDITED, **parameters).switch_page(PAGE).run()


def measured(at):
    """The table of what was measured, by quantity."""
    found = [table.value for table in at.dataframe if "B, edited" in table.value]
    return found[0].set_index("")


def test_a_knob_makes_the_copy_that_is_heard_measured_and_patched_and_a_link_says_which(open_edits, server):
    at = open_edits(knob="level", edit_level="-20.0")
    assert faults(at) == []
    a = at.selectbox(key=state.HAND_A).value
    clips = {clip.clip_id: clip for clip in running.engine().manifest(PatchRequest(NAME)).clips}
    copy = clip_named(f"{a} edit:level=-20", clips)
    sent = [one["digest"] for one in told(at, state.PLAYER)["clips"]]
    assert any(copy.digest in digest for digest in sent) and any(clips[a].digest in digest for digest in sent)
    assert measured(at).loc["level"].tolist()[2:] == ["-90 %", "as meant"]
    assert "switch *Match level* off" in words(at) and "moves the model's logits by" in words(at)
    assert by_key(at, "plotly_chart", state.HAND_CURVE)
    at = at.slider(key=state.edit_dose("level")).set_value(0.0).run()
    assert faults(at) == [] and "moves the model's logits by 0.00 nats" in words(at)
    assert "there is nothing to flip" in words(at) and set(measured(at)["change"]) <= {"0 %", "–"}


@pytest.mark.parametrize("knob", ["rate", "noise", "band", "codec", "silence"])
def test_every_knob_can_be_turned(open_edits, knob):
    at = open_edits(knob=knob)
    assert faults(at) == [] and at.selectbox(key=state.EDIT_KNOB).value == knob and len(measured(at)) == 4


def test_a_link_names_the_ends_of_a_band(open_edits):
    at = open_edits(knob="band", edit_band=["500.0", "2000.0"])
    assert faults(at) == [] and at.slider(key=state.edit_dose("band")).value == (500.0, 2000.0)
    assert "band=500-2000" in str(told(at, state.PLAYER)["clips"])


def test_the_same_edit_of_every_clip_becomes_a_kind_of_pair_and_further_doses_add_up(open_edits):
    at = open_edits(knob="level", edit_level="-20.0")
    at = at.button(key="edit_every_clip").click().run()
    assert faults(at) == [] and at.text_input(key=KINDS).value == "edit:level=-20"
    assert at.button(key="edit_every_clip").disabled
    at = at.slider(key=state.edit_dose("level")).set_value(-10.0).run()
    at = at.button(key="edit_every_clip").click().run()
    assert at.text_input(key=KINDS).value == "edit:level=-20,edit:level=-10"
    assert any("Patch with 2 edits" in link.proto.label for link in at.get("page_link"))
    at = at.button(key="keep_pair").click().run()
    a = at.selectbox(key=state.HAND_A).value
    assert at.text_area(key=state.setting("patch", "pairs")).value == f"{a} <- {a} edit:level=-10"
    assert at.button(key="edit_every_clip").disabled, "pairs by hand are all of a run"


def test_pairs_of_an_edit_are_listed_with_both_sounds_and_say_what_was_done(open_app):
    at = open_app(**{KINDS: "edit:level=-20", state.setting("patch", "max_pairs"): "3"}).switch_page(PAGE).run()
    assert faults(at) == []
    table = by_key(at, "dataframe", "pair_table").value
    assert len(table) == 3 and (table["B"] == table["A"] + " edit:level=-20").all()
    assert "B is A with its sound edited: **level=-20**" in words(at)
    clips = {clip.clip_id: clip for clip in running.engine().manifest(PatchRequest(NAME)).clips}
    copy = clip_named(table["B"].iloc[0], clips)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "path_params": {"digest": copy.digest}}
    answer = clip_audio.serve(Request(scope))
    samples = np.frombuffer(answer.body[44:], "<i2") / 32768
    np.testing.assert_allclose(samples, read_clip(copy, 16_000), atol=1 / 16_000)


def test_a_run_of_several_doses_is_drawn_by_dose_with_the_whole_model_beside_it(open_app, server, monkeypatch):
    seen, menu = [], export.menu
    monkeypatch.setattr(export, "menu", lambda shown, drawn, asked: (seen.append(drawn), menu(shown, drawn, asked)))
    asked = PatchRequest(
        NAME, kinds="edit:level=0,edit:level=-6,edit:level=-20,edit:noise=10", max_pairs=3, controls=(), flow=(),
        checks=False, layers=(0, 2),
    )  # fmt: skip
    result = run(PATCHING, running.engine(), asked, out=server / "runs" / "doses")
    at = open_app(run=str(server / "runs" / "doses"), view=edits.VIEW, kind=option("edit~level~-6"), layer="2")
    assert faults(at) == [] and at.selectbox(key=state.MEASURE).value == "logits"
    drawn = {
        t["name"].split(" (")[0]: t for t in json.loads(by_key(at, "plotly_chart", state.CURVE).proto.spec)["data"]
    }
    rows = doses_at(result.edit_doses, "level", 2)
    for name, column in (("patched from B", "change"), ("the whole model: B as it is", "whole_change")):
        values = dict(zip(decoded(drawn[name]["x"]), decoded(drawn[name]["y"]), strict=True))
        assert values == pytest.approx(dict(zip(rows["dose"], rows[column], strict=True)), abs=1e-9)
        assert list(values) == [-20, -6, 0] and values[0] == 0
    on_paper = export._on_paper(seen[-1])  # what is on screen, and not the run's flip curve
    assert "patched at" in on_paper.axes[0].get_xlabel() and "seed " in on_paper.get_supxlabel()
    assert any(
        list(line.get_ydata()) == pytest.approx(rows.sort_values("dose")["change"].tolist())
        for line in on_paper.axes[0].lines
    )
    assert "edit **level=-6**: B's own answer is another than A's in" in words(at)
    table = next(one.value for one in at.dataframe if "also moved" in one.value)
    assert table["edit"].tolist() == ["level=0", "level=-6", "level=-20", "noise=10"]
    at = at.selectbox(key=state.MEASURE).set_value("flips").run()
    assert faults(at) == []


def test_a_run_without_edits_has_no_such_view(open_app):
    at = open_app()
    assert edits.VIEW not in at.selectbox(key=state.VIEW).options
    assert "What the edits did to the sounds" not in [fold.label for fold in at.expander]


def decoded(values):
    """Plotly writes long columns as base64."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()
    return list(values)
