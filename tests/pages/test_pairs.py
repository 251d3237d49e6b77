"""The pairs page: every pair to see and to hear, and the way from it to the patching page."""

import io

import pytest
import soundfile
from starlette.requests import Request

from components import server as running
from components import state
from components.player import clip_audio
from interp_core.data.clips import read_audio
from interp_core.experiments.patching.experiment import base_table, pairs_of
from interp_core.experiments.patching.request import PatchRequest
from tests.pages.conftest import ROOT, by_key, faults, send, words
from tests.pages.tiny_demo import MAX_PAIRS, NAME

PAGE = str(ROOT / "pages" / "pairs.py")


@pytest.fixture
def open_pairs(open_app):
    return lambda **parameters: open_app(**parameters).switch_page(PAGE).run()


def table(at):
    return by_key(at, "dataframe", "pair_table").value


def test_every_pair_is_listed_with_labels_answers_and_sound(open_pairs, server):
    at = open_pairs()
    assert faults(at) == [] and at.title[0].value == "Pairs"
    pairs = pairs_of(running.engine(), PatchRequest(NAME, max_pairs=MAX_PAIRS)).of("prosody")
    shown = table(at)
    assert shown["pair"].tolist() == [pair.pair_id for pair in pairs]
    assert shown["A voice"].tolist() == [pair.recipient.label("prosody_label") for pair in pairs]
    assert shown["B words"].tolist() == [pair.donor.label("semantic_label") for pair in pairs]
    assert shown["hear B"].tolist() == [f"/audio/{pair.donor.digest}.wav" for pair in pairs]
    subject_says = base_table(running.engine(), PatchRequest(NAME)).query("prompt == 0").set_index("clip_id").prediction
    assert shown["A answer"].tolist() == [subject_says[pair.recipient.clip_id] for pair in pairs]


def test_a_pair_says_why_it_was_built_and_how_its_recordings_measure(open_pairs):
    at = open_pairs(pair="prosody-0002")
    pair = pairs_of(running.engine(), PatchRequest(NAME, max_pairs=MAX_PAIRS)).of("prosody")[2]
    said = words(at)
    assert f"same text_id **{pair.recipient.label('text_id')}**" in said
    voices = pair.recipient.label("prosody_label"), pair.donor.label("prosody_label")
    assert f"prosody_label **{voices[0]}** in A and **{voices[1]}** in B" in said
    assert f"Target: **{pair.target}**" in said
    facts = next(t.value for t in at.dataframe if "A" in t.value and "duration" in set(t.value.iloc[:, 0])).set_index(
        ""
    )
    seconds = len(read_audio(pair.donor.path, 16_000)) / 16_000
    assert facts.loc["duration", "B"] == f"{seconds:.2f} s"
    assert facts.loc["prosody_label"].tolist() == list(voices)


def test_filters_leave_what_they_say_and_an_empty_list_says_so(open_pairs):
    at = open_pairs()
    before = table(at)
    wanted = before["A voice"].iloc[0]
    at = at.multiselect(key="filter-prosody-prosody_label of A").set_value([wanted]).run()
    assert faults(at) == []
    left = table(at)
    assert set(left["A voice"]) == {wanted} and len(left) == (before["A voice"] == wanted).sum() < len(before)
    at = at.text_input(key="filter-prosody-text").set_value("no such text").run()
    assert faults(at) == [] and "No pair passes the filters" in words(at)


@pytest.mark.parametrize(
    "parameters", [{"pair": "x"}, {"kind": "nonsense"}, {"kind": "semantic", "pair": "prosody-0001"}]
)
def test_a_bad_link_falls_back_to_a_pair_that_is_there(open_pairs, parameters):
    at = open_pairs(**parameters)
    assert faults(at) == []
    assert at.selectbox(key=state.PAIR).value in set(table(at)["pair"])


def test_a_row_becomes_the_pair_that_the_patching_page_then_shows(open_pairs):
    at = open_pairs(kind="semantic")
    at = send(at, by_key(at, "dataframe", "pair_table"), {"rows": [5], "columns": [], "cells": []})
    chosen = table(at)["pair"].iloc[5]
    assert at.selectbox(key=state.PAIR).value == chosen
    (link,) = [element.proto for element in at.get("page_link") if "Patch this pair" in element.proto.label]
    assert link.query_string == f"kind=semantic&pair={chosen}"
    at = at.switch_page(str(ROOT / "pages" / "patching.py")).run()
    assert faults(at) == [] and at.title[0].value == "Layer patching"
    assert at.selectbox(key=state.PAIR).value == chosen
    assert at.segmented_control(key=state.KIND).value == "semantic"


def test_other_clips_have_no_answers_until_the_model_is_asked_about_them(open_pairs, server, assets):
    import shutil

    shutil.copytree(assets / NAME, server / "mine", ignore=shutil.ignore_patterns("model", "run"))
    link = {"clips": str(server / "mine" / "manifest.csv"), "patch_max_pairs": "3"}
    at = open_pairs(**link)
    assert faults(at) == [] and "A answer" not in table(at)
    at = next(button for button in at.button if button.label == "Ask the model about every clip").click().run()
    (job,) = running.engine().jobs.jobs()
    assert job.wait(120) and job.status == "done", job.error
    at = at.run()
    answers = job.result[job.result.prompt == 0].set_index("clip_id").prediction
    assert table(at)["A answer"].tolist() == [answers[name] for name in table(at)["A"]]


def test_bad_clips_are_one_message_with_every_row(open_pairs, server, assets):
    import shutil

    shutil.copytree(assets / NAME, server / "mine", ignore=shutil.ignore_patterns("model", "run"))
    for name in ("t0-happy", "t1-sad"):
        (server / "mine" / f"{name}.wav").unlink()
    at = open_pairs(clips=str(server / "mine" / "manifest.csv"))
    assert len(faults(at)) == 1
    folded = "\n".join([faults(at)[0], *(code.value for code in at.code)]).replace("\\", "")
    assert "t0-happy" in folded and "t1-sad" in folded
    at = open_pairs(clips=str(server / "mine" / "manifest.csv"), skip_bad="true")
    assert faults(at) == [] and "t0-happy" not in set(table(at)["A"])


def test_a_pair_by_hand_is_kept_in_the_setting_that_runs_on_it_and_listed_as_built_by_hand(open_app, server):
    at = open_app(pairs=state.BY_HAND).switch_page(PAGE).run()
    a, b = (at.selectbox(key=key).value for key in (state.HAND_A, state.HAND_B))
    at = at.button(key="keep_pair").click().run()
    assert faults(at) == [] and at.button(key="keep_pair").disabled
    setting = state.setting("patch", "pairs")
    assert at.text_area(key=setting).value == f"{a} <- {b}"
    assert any("Patch the 1 kept" in link.proto.label for link in at.get("page_link"))
    at = at.button(key="swap").click().run().button(key="keep_pair").click().run()
    assert at.text_area(key=setting).value == f"{a} <- {b}\n{b} <- {a}"
    at = open_app(pairs=state.BUILT, **{setting: f"{a} <- {b}"}).switch_page(PAGE).run()
    assert faults(at) == [] and table(at)["pair"].tolist() == [f"{a} <- {b}"]
    assert "Put together by hand" in words(at)
    assert not [box for box in at.number_input if "Most pairs" in box.label], "what builds pairs is asked no longer"


def request(digest):
    return Request({"type": "http", "method": "GET", "path": "/", "headers": [], "path_params": {"digest": digest}})


def test_sound_is_served_for_clips_that_were_shown_and_for_nothing_else(server, tmp_path):
    clip = running.engine().manifest(PatchRequest(NAME)).clips[0]
    assert clip_audio.serve(request("0" * 64)).status_code == 404
    assert clip_audio.serve(request("../../etc/passwd")).status_code == 404
    assert clip_audio.url(clip) == f"/audio/{clip.digest}.wav"
    answer = clip_audio.serve(request(clip.digest))
    assert answer.status_code == 200 and answer.media_type == "audio/wav"
    samples, rate = soundfile.read(io.BytesIO(answer.body), dtype="float32")
    assert rate == 16_000
    assert samples == pytest.approx(read_audio(clip.path, 16_000).clip(-1, 1), abs=1 / 30_000)
