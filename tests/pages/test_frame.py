"""The frame of every page: a run that a link shows, what is exported, a registered experiment without a page."""

import json
import shutil
import threading

import pytest
from streamlit.testing.v1 import AppTest

from components import server, state
from components.words import md
from interp_core import experiments
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.patching import run as patching_run
from interp_core.models import bundled
from tests.pages.conftest import ROOT, by_key, faults, forget, words
from tests.pages.tiny_demo import MAX_PAIRS, NAME
from tests.toy.experiment import LOUDNESS
from tests.toy.request import LoudnessRequest

SHORT = {"patch_max_pairs": "2", "patch_controls": "random", "patch_flow": "last"}


def button(at, label):
    return next(one for one in at.button if one.label == label)


def labels(at):
    return [one.label for one in at.button]


def test_a_link_to_a_run_folder_shows_it_whatever_is_set_and_a_button_leaves_it(open_app, server, assets):
    kept = server / "runs" / "elsewhere"
    shutil.copytree(assets / NAME / "run", kept)
    at = open_app(run=str(kept), patch_kinds="prosody")
    assert (
        faults(at) == [] and f"Shown is the run in {kept}" in words(at) and "From the run folder elsewhere" in words(at)
    )
    assert "Not what is set now" not in words(at) and by_key(at, "plotly_chart", "curve") is not None
    at = button(at, "Back to the settings").click().run()
    assert faults(at) == [] and "Shown is the run" not in words(at)
    assert "Kinds of pair: prosody asked, prosody,semantic in this run" in words(at)


@pytest.mark.parametrize("what", ["outside", "no run", "another page's", "broken"])
def test_a_link_to_a_folder_that_cannot_be_shown_is_one_sentence(open_app, server, assets, tmp_path_factory, what):
    folder, page = server / "runs" / "x", "patching.py"
    if what == "outside":
        folder = tmp_path_factory.mktemp("outside") / "run"
    if what != "no run":
        shutil.copytree(assets / NAME / "run", folder)
    if what == "another page's":
        page = "heads.py"
    if what == "broken":
        (folder / "patching_config.json").write_text("{")
    at = open_app()
    at.query_params[state.RUN] = str(folder)
    at = at.switch_page(str(ROOT / "pages" / page)).run()
    said = {"outside": "outside", "no run": "cannot be read", "another page's": "another page shows", "broken": "x"}
    assert len(faults(at)) == 1 and said[what] in faults(at)[0].replace("\\", "")
    assert "Back to the settings" in labels(at) and len(at.get("plotly_chart")) == 0


def test_where_no_label_is_an_answer_the_refusal_has_the_form_that_maps_them(open_app, server, assets):
    folder = assets / NAME
    before = (folder / "manifest.csv").read_text()
    answers = json.loads((folder / "demo.json").read_text())["labels"]
    short = {answer: answer[:2] for answer in answers}
    lines = [[short.get(cell, cell) for cell in line.split(",")] for line in before.splitlines()]
    (folder / "manifest.csv").write_text("\n".join(map(",".join, lines)))
    try:
        at = open_app(**SHORT, patch_kinds="prosody")
        assert "Read them so" not in labels(at), "control: the run that ships was made of labels that are answers"
        at = button(at, "Run on all pairs").click().run()
        assert "that are not among the labels" in words(at)[-1500:] and "Read them so" in labels(at)
        at = button(at, "Read them so").click().run()
        filled = at.session_state["patch_map_labels"].split(",")
        assert faults(at) == [] and set(filled) <= {f"{one[:2]}={one}" for one in answers} and len(filled) > 1
        assert "Read them so" not in labels(at) and "that are not among the labels" not in words(at)
    finally:
        (folder / "manifest.csv").write_text(before)


def test_a_run_says_what_it_rests_on_and_a_form_reads_its_unanswered_labels_as_answers(open_app, server, assets):
    kept = server / "runs" / "partly"
    shutil.copytree(assets / NAME / "run", kept)
    config = json.loads((kept / "patching_config.json").read_text())
    assert config["rests_on"][0].endswith("clips") and config["unanswered"]["labels"] == []
    answers = config["unanswered"]["answers"]
    told = ["12 of 80 clips", "3 recordings are repeated *x*: read them so: --map-labels a=b"]
    config |= {"rests_on": told, "unanswered": {"labels": [answers[0][:3], "<b>xyz"], "answers": answers}}
    (kept / "patching_config.json").write_text(json.dumps(config))
    at = open_app(run=str(kept))
    line = next(one.value for one in at.caption if one.value.startswith("What these numbers rest on"))
    assert line.replace("\\", "").endswith(f"{told[0]}; {told[1].replace('--map-labels', 'Labels read as answers')}.")
    at = button(at, "Read them so").click().run()
    assert faults(at) == [] and at.session_state["patch_map_labels"] == f"{answers[0][:3]}={answers[0]}"
    (kept / "patching_config.json").write_text(json.dumps({**config, "unanswered": {"labels": [], "answers": answers}}))
    assert "Read them so" not in labels(open_app(run=str(kept)))


def test_a_link_to_a_run_of_a_model_that_nobody_named_opens_nothing(open_app, server, assets, monkeypatch):
    kept = server / "runs" / "foreign"
    shutil.copytree(assets / NAME / "run", kept)
    config = kept / "patching_config.json"
    config.write_text(config.read_text().replace(f'"id": "{NAME}"', '"id": "/no/such/model"'))
    opened = []
    at = open_app()
    monkeypatch.setattr(running := server_engine(), "open", lambda *names: opened.append(names))
    at.query_params[state.RUN] = str(kept)
    at = at.run()
    assert running is server_engine() and opened == [] and faults(at) == []
    assert "does not ship with Patchbay" in words(at) and "Open this model" in labels(at)


def server_engine():
    return server.engine()


def test_the_export_has_every_table_the_figure_and_what_repeats_the_run(open_app, assets):
    at = open_app()
    assert len(at.get("download_button")) == 0, "nothing is sent before the export is opened"
    at.session_state[state.EXPORT] = True
    at = at.run()
    wanted = {"PNG", "SVG", "PDF", "HTML", "Pair PDF", md("Report (HTML)"), "Notebook", "metrics CSV", "records CSV"}
    assert wanted <= {one.proto.label for one in at.get("download_button")}
    command, python = (code.value for code in at.code)
    assert command.startswith(f"python -m interp_core patch --model={NAME}") and f"--max-pairs={MAX_PAIRS}" in command
    assert "--alpha=1,0.5" in command and "PatchRequest(" in python and "alphas=(1.0, 0.5)" in python


def test_where_nothing_is_there_a_button_runs_what_is_set_and_says_what_is_wrong_with_it(
    open_app, assets, server, monkeypatch
):
    bare = server / "assets"
    shutil.copytree(assets, bare, ignore=shutil.ignore_patterns("run"))
    monkeypatch.setattr(bundled, "ASSETS", bare)
    forget()
    at = open_app(patch_kinds="prosodie")
    assert "did you mean 'prosody'" in words(at), "before it is run"
    assert not any(one.label == "Run it now" for one in at.button)
    at = open_app(**SHORT)
    assert "about" in words(at) and "forward passes" in words(at), "what it will cost"
    at = button(at, "Run it now").click().run()
    (job,) = server_engine().jobs.jobs()
    assert job.wait(120) and job.status == "done", job.error
    assert "Computed by this server" in words(at.run())


def test_a_run_that_goes_on_shows_what_it_has_come_to_and_one_that_is_stopped_goes_on(
    open_app, assets, server, monkeypatch
):
    bare = server / "assets"
    shutil.copytree(assets, bare, ignore=shutil.ignore_patterns("run"))
    monkeypatch.setattr(bundled, "ASSETS", bare)
    forget()
    go_on, begun, right = threading.Event(), threading.Event(), patching_run.run_chunk

    def slowly(plan, store, chunk):
        if chunk.number:
            begun.set()
            go_on.wait(60)
        return right(plan, store, chunk)

    monkeypatch.setattr(patching_run, "run_chunk", slowly)
    at = button(open_app(**SHORT), "Run it now").click().run()
    (job,) = server_engine().jobs.jobs()
    assert begun.wait(120), (job.status, job.error, job.done, job.total, job.note)
    at = at.run()
    assert "So far, of n = 2" in words(at) and faults(at) == []
    (chart,) = at.get("plotly_chart")
    assert "any change of the answer" in chart.proto.spec
    at.button(key=f"cancel-page-{job.key}").click()
    job.cancel()
    go_on.set()
    assert job.wait(60) and job.status == "cancelled"
    at = at.run()
    assert "was stopped; what is done is not computed again" in words(at)
    assert [link.proto.label for link in at.get("page_link") if "Go on" in link.proto.label] == ["Go on with it"]
    at = button(at, "Go on with it").click().run()
    job = server_engine().jobs.jobs()[0]
    assert job.wait(60) and job.status == "done", job.error
    at = button(at.run(), "Look at it").click().run()  # a link to the page where one is does nothing
    assert f"Shown is the run in {job.place}" in words(at) and faults(at) == []
    at = at.switch_page(str(ROOT / "pages" / "runs.py")).run()
    (link,) = [link for link in at.get("page_link") if link.proto.label == "Look at it"]
    assert link.proto.page == "patching" and "run=" in link.proto.query_string


def test_what_other_settings_will_take_is_said_before_they_run_and_the_settings_close_once_they_do(open_app):
    at = open_app(patch_max_pairs="2", patch_controls="random")
    before = words(at)
    at = button(at, "What it will take").click().run()
    assert "forward passes" not in before and "forward passes" in words(at) and faults(at) == []
    at.session_state[state.setting("patch", state.SETTINGS)] = True  # as a press on the popover leaves it
    at = button(at, "Run on all pairs").click().run()
    assert at.session_state[state.setting("patch", state.SETTINGS)] is False
    (job,) = server_engine().jobs.jobs()
    assert job.wait(60)


def test_another_model_brings_its_own_settings_and_a_model_that_does_not_suit_offers_one_that_does(
    open_app, assets, server, monkeypatch
):
    two = server / "assets"
    shutil.copytree(assets, two)
    shutil.copytree(two / NAME, two / "demo-z", ignore=shutil.ignore_patterns("run"))
    monkeypatch.setattr(bundled, "ASSETS", two)
    forget()
    monkeypatch.setattr(HeadsRequest, "demo", "demo-z")
    at = open_app(patch_alphas="0.25", patch_max_pairs="3")
    assert at.text_input(key="patch_alphas").value == "0.25"
    at = at.selectbox(key=state.MODEL).set_value("demo-z").run()
    assert faults(at) == [] and at.text_input(key="patch_max_pairs").value == "100"
    assert at.text_input(key="patch_alphas").value == "1"
    at = at.selectbox(key=state.MODEL).set_value(NAME).run()
    assert at.text_input(key="patch_max_pairs").value == str(MAX_PAIRS)


def test_an_experiment_that_is_only_registered_has_a_page_that_runs_and_shows_it(open_app, monkeypatch):
    monkeypatch.setitem(experiments.EXPERIMENTS, "loudness", experiments.Registered(LoudnessRequest, lambda: LOUDNESS))
    assert faults(open_app()) == []  # the router has made a page of it

    def alone() -> None:
        import streamlit as st

        from components import experiment_page, state
        from interp_core.request import Request

        st.session_state[state.PAGE] = "loudness"
        st.session_state[state.REQUEST] = Request("demo-tiny")
        experiment_page.plain_page("loudness")()

    at = AppTest.from_function(alone, default_timeout=60).run()
    assert faults(at) == [] and at.title[0].value == "Loudness" and "How loud every clip is" in words(at)
    assert at.selectbox(key="loudness_measure").options == ["rms", "peak"]
    at = button(at, "Run").click().run()
    (job,) = server_engine().jobs.jobs()
    assert job.wait(300) and job.error is None
    at = at.run()
    assert faults(at) == [] and "Computed by this server" in words(at) and len(at.dataframe[0].value) == 12
    at.session_state[state.EXPORT] = True
    at = at.run()
    assert "loudness CSV" in {one.proto.label for one in at.get("download_button")}
