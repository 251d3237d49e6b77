"""A folder in the sidebar's field for the manifest opens as a corpus, and says what it holds before anything runs."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from components import server as running
from components import state
from interp_core.data import collection as made_of
from interp_core.errors import InterpError
from interp_core.experiments.patching.experiment import pairs_of
from tests.corpus import sound
from tests.pages.conftest import ROOT, by_key, faults, words
from tests.tiny import RATE

EMOTIONS = {"01": "neutral", "03": "happy", "04": "sad"}


@pytest.fixture
def ravdess(server: Path) -> Path:
    """Two statements in three emotions by one actor, two folders down, beside a name that does not parse."""
    folder = server / "kaggle" / "archive" / "speech" / "Actor_01"
    folder.mkdir(parents=True)
    for text in (1, 2):
        for voice, code in enumerate(EMOTIONS):
            name = f"03-01-{code}-01-{text:02}-01-01.wav"
            soundfile.write(folder / name, sound(text, voice, 0.5), RATE)
    (folder / "03-01-01.wav").touch()
    return server / "kaggle"


def read_as(at):
    return [box for box in at.selectbox if box.key == state.CORPUS]


def summary(at) -> str:
    """The summary's title; "" where there is none."""
    return next((one.label for one in at.sidebar.expander if " clips, " in one.label), "")


def test_a_folder_says_what_it_holds_and_what_was_left_out_and_why(open_app, ravdess):
    at = open_app(clips=str(ravdess), skip_bad="true")
    assert faults(at) == []
    assert summary(at) == "RAVDESS: 6 clips, 3 labels, 1 left out"
    counts, left_out = (table.value for table in at.sidebar.dataframe)
    assert dict(counts.to_numpy()) == {"neutral": 2, "happy": 2, "sad": 2}
    assert (
        left_out["left out"].tolist() == ["speech/Actor_01/03-01-01.wav"] and "3 of the 7 fields" in left_out["why"][0]
    )
    assert "Read from archive/." in words(at)
    request = at.session_state[state.REQUEST]
    assert (request.manifest, request.corpus, request.skip_bad) == (str(ravdess), "auto", True)
    assert {clip.labels["speaker"] for clip in running.engine().manifest(request).clips} == {"01"}


@pytest.mark.parametrize("page", ["patching", "pairs", "heads", "neurons", "signflip", "compare", "probes", "steering"])
def test_it_opens_on_every_page(open_app, ravdess, page):
    at = open_app(clips=str(ravdess), skip_bad="true").switch_page(str(ROOT / "pages" / f"{page}.py")).run()
    assert not at.exception and summary(at) == "RAVDESS: 6 clips, 3 labels, 1 left out"
    assert at.session_state[state.REQUEST].corpus == "auto"
    assert faults(at) == []
    if page not in ("pairs", "compare"):
        assert "Nothing has been computed for these settings yet." in words(at)


def test_a_corpus_is_patched_from_the_page_by_the_pairs_that_it_has(open_app, ravdess):
    at = open_app(clips=str(ravdess), skip_bad="true")
    next(button for button in at.button if button.label == "Run it now").click().run()
    assert faults(at) == []
    (job,) = running.engine().jobs.jobs()
    job.wait(60)
    assert job.status == "done", job.error
    at.run()
    assert faults(at) == [] and by_key(at, "plotly_chart", state.CURVE)
    asked = at.session_state[state.REQUEST]
    made = pairs_of(running.engine(), asked)
    assert {pair.kind for pair in made.pairs} == {"prosody"}, "all its sentences mean the same"
    with pytest.raises(InterpError, match="no pair of kind 'semantic'"):
        pairs_of(running.engine(), replace(asked, kinds="prosody,semantic"))


def test_a_clip_that_cannot_be_used_is_said_at_the_field_at_once(open_app, ravdess):
    at = open_app(clips=str(ravdess))
    (said, *more) = [str(error.value).replace("\\", "") for error in at.sidebar.error]
    assert "speech/Actor_01/03-01-01.wav has 3 of the 7 fields" in said and not more and summary(at) == ""
    at.checkbox(key=state.SKIP_BAD).check().run()
    assert not at.sidebar.error and summary(at).startswith("RAVDESS: 6 clips")


def test_the_reader_can_be_chosen_is_in_the_link_and_is_found_anew_for_another_folder(open_app, ravdess):
    at = open_app(clips=str(ravdess), corpus="folder_per_class", skip_bad="true")
    assert at.session_state[state.REQUEST].corpus == "folder_per_class"
    assert summary(at) == "A folder a class: 7 clips, 1 label"
    at.selectbox(key=state.CORPUS).set_value("ravdess").run()
    assert summary(at).startswith("RAVDESS: 6 clips")
    at.text_input(key=state.CLIPS).set_value(str(ravdess / "archive")).run()
    assert at.session_state[state.REQUEST].corpus == "auto" and summary(at).startswith("RAVDESS: 6 clips")


def test_a_table_is_no_corpus_and_has_no_reader_to_choose(open_app, server, assets):
    at = open_app(corpus="ravdess")
    assert not read_as(at) and at.session_state[state.REQUEST].corpus == ""
    at = open_app(clips=str(server / "no.csv"), corpus="ravdess")
    (said,) = [str(error.value).replace("\\", "") for error in at.sidebar.error]
    assert "no.csv does not exist" in said
    assert not read_as(at) and at.session_state[state.REQUEST].corpus == ""


@pytest.mark.parametrize("name", ["outside", "not there"])
def test_a_folder_outside_the_allowed_ones_is_refused_whether_it_is_there_or_not(open_app, tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "outside" / "Actor_01").mkdir(parents=True)
    at = open_app(clips=str(folder / name))
    (said,) = [str(error.value).replace("\\", "") for error in at.sidebar.error]
    assert "lies outside the folders that may be read" in said and not read_as(at)


def test_a_recording_that_is_a_link_out_of_the_allowed_folders_is_left_out(open_app, ravdess, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.wav"
    soundfile.write(secret, sound(3, 1, 0.5), RATE)
    os.symlink(secret, ravdess / "archive" / "speech" / "Actor_01" / "03-01-08-01-01-01-01.wav")
    at = open_app(clips=str(ravdess), skip_bad="true")
    manifest = running.engine().manifest(at.session_state[state.REQUEST])
    assert len(manifest.clips) == 6
    assert [row.reason for row in manifest.skipped if "03-01-08" in row.file][0].startswith("lies outside the folders")


def test_recordings_of_other_visitors_are_no_corpus(open_app, server):
    made = made_of.create(running.data_folder(), "two tones", "another browser", running.caps())
    for folder in (made.folder, made.folder.parent, server):
        at = open_app(clips=str(folder))
        (said,) = [str(error.value) for error in at.sidebar.error]
        assert "visitor" in said and summary(at) == "", folder


def test_a_folder_is_read_again_when_a_table_below_it_is_another_one(server):
    from interp_core.engine import Engine
    from interp_core.request import Request

    keys = server / "keys" / "LA" / "CM" / "trial_metadata.txt"
    audio = server / "ASVspoof2021_LA_eval" / "flac"
    for folder in (keys.parent, audio):
        folder.mkdir(parents=True)
    soundfile.write(audio / "LA_E_1.flac", sound(1, 1, 0.5), RATE)
    engine, request = Engine(), Request("any", manifest=str(server), corpus="auto")
    for attack, key in (("A07", "spoof"), ("bonafide", "bonafide")):
        keys.write_text(f"LA_1 LA_E_1 none none {attack} {key} notrim eval\n")
        assert engine.corpus(request).clips["label"].tolist() == [key]
        assert [clip.labels["label"] for clip in engine.manifest(request).clips] == [key]
