"""The page Steering: the saved run's own numbers, what a click selects, one clip by hand, own recordings."""

import json

import numpy as np
import pytest
import soundfile
from scipy.special import softmax

from components import state
from components.steering import live
from interp_core.data import collection
from interp_core.data.clips import ClipLimits
from interp_core.data.collection import Caps, Upload
from interp_core.engine import Engine
from interp_core.experiments import experiment_of
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.steering.request import SteerRequest
from interp_core.experiments.steering.vectors import FILE
from interp_core.models import bundled
from tests.corpus import write_corpus
from tests.pages.conftest import by_key, click_point, faults, marks_on, opened_export, send, told, words
from tests.pages.test_neurons import drawn, trace, visit
from tests.pages.test_patching import _numbers
from tests.tiny import LABELS, RATE, save_qwen2_audio, tone

NAME = "demo-steered"


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """One demo with a random model, made-up recordings and a saved steering run."""
    assets = tmp_path_factory.mktemp("assets")
    folder = assets / NAME
    save_qwen2_audio(folder / "model", n_layers=3)
    write_corpus(folder).rename(folder / "manifest.csv")
    prompts = [{"name": name, "text": f"{name}?"} for name in ("voice", "words")]
    about = {"title": "Tiny", "description": "Random.", "labels": list(LABELS), "prompts": prompts}
    (folder / "demo.json").write_text(json.dumps(about))
    before, bundled.ASSETS = bundled.ASSETS, assets
    bundled.demos.cache_clear()
    try:
        asked = SteerRequest(NAME, units="text_id", layers=(0, 1), alphas=(1.0, 4.0), draws=4)
        run(experiment_of("steer"), Engine(), asked, out=folder / "run-steer")
    finally:
        bundled.ASSETS = before
        bundled.demos.cache_clear()
    return assets


@pytest.fixture(scope="module")
def steered(assets):
    return open_result(experiment_of("steer"), assets / NAME / "run-steer")


def dose_of(result, condition, label, layer):
    rows = result.dose[(result.dose["condition"] == condition) & (result.dose["prompt"] == 0)]
    return rows[(rows["label"] == label) & (rows["layer"] == layer)].sort_values("alpha")


def test_the_page_shows_the_saved_doses_with_their_controls_and_what_else_a_vector_does(open_app, steered):
    at = visit(open_app, "steering", st_label="happy", st_layer="1")
    assert faults(at) == []
    said = words(at)
    assert f"Saved run that ships with {NAME}" in said and "fitted on 6 clips (2 of text_id)" in said
    figure = drawn(at, state.ST_DOSE)
    for condition, name in (("vector", "vector of the label"), ("random", "random, as long")):
        found = trace(figure, name)
        wanted = dose_of(steered, condition, "happy", 1)["moved_rate"].tolist()
        assert list(_numbers(found["y"])) == pytest.approx(wanted, nan_ok=True)
    cells = trace(drawn(at, state.ST_MAP), "cells")["text"]
    assert len(cells) == len(steered.smallest) and "What else it does" in said
    row = dose_of(steered, "vector", "happy", 1).iloc[-1]
    base = steered.dose[(steered.dose["condition"] == "base") & (steered.dose["prompt"] == 0)].iloc[0]
    for column in ("prosody_label", "semantic_label"):
        was, now = base[f"accuracy_{column}"], row[f"accuracy_{column}"]
        assert f"{100 * was:.0f} % → {100 * now:.0f} %" in said.replace("\\", "")
    assert any(element.proto.label == "Vectors" for element in at.get("download_button"))
    assert "sufficient" in said.replace("*", "") and "2311.17030" in said


def test_a_click_on_a_cell_selects_label_and_layer_and_one_on_a_dose_the_strength(open_app, steered):
    at = visit(open_app, "steering")
    labels = list(dict.fromkeys(steered.smallest["label"]))
    at = click_point(at, state.ST_MAP, "cells", 1 * 2 + 1)
    assert at.selectbox(key=state.ST_LABEL).value == labels[1] and at.selectbox(key=state.ST_LAYER).value == "1"
    at = click_point(at, state.ST_DOSE, "vector of the label", 0)
    assert at.select_slider(key=state.ST_ALPHA).value == "1" and faults(at) == []
    assert "at alpha 1;" in words(at)


def test_the_export_is_the_dose_on_screen_with_the_strength_that_is_chosen(open_app, steered, paper):
    at = visit(open_app, "steering", st_label="sad", st_layer="0")
    opened_export(click_point(at, state.ST_DOSE, "vector of the label", 0))
    row = dose_of(steered, "vector", "sad", 0).iloc[0]
    found = marks_on(paper())
    assert found["rings"] == [(0, pytest.approx(row["moved_rate"]))]
    assert "Vector of sad behind layer 0" in found["words"] and "seed" in found["words"]


def test_the_strength_acts_at_once_on_the_clip_and_gives_the_records_numbers(open_app, steered):
    at = visit(open_app, "steering", st_label="sad", st_layer="0", st_alpha="4")
    assert faults(at) == []
    rows = steered.records[(steered.records["condition"] == "vector") & (steered.records["prompt"] == 0)]
    rows = rows[(rows["label"] == "sad") & (rows["layer"] == 0)].set_index("clip_id")
    clip_id = next(one for one in rows.index if f"{one}: " in words(at).replace("*", ""))
    found = trace(drawn(at, state.ST_ANSWERS), "steered, alpha 4")
    assert list(_numbers(found["x"])) == pytest.approx(softmax(rows.loc[clip_id, "logits"][1]).tolist(), abs=1e-3)
    grey = trace(drawn(at, state.ST_LIVE), "20 random vectors")
    assert np.isfinite(np.array(_numbers(grey["y"]), float)).sum() == 20 * 3, "at nothing, 1 and 4"
    at = at.select_slider(key=state.ST_ALPHA).set_value("0").run()
    still, own = (trace(drawn(at, state.ST_ANSWERS), name) for name in ("steered, alpha 0", "as it is"))
    assert list(_numbers(still["x"])) == list(_numbers(own["x"])), "nothing added is the clip as it is"
    other = next(one for one in rows.index if one != clip_id)
    table = by_key(at, "dataframe", state.ST_CLIPS)
    ids = list(steered.records["clip_id"].unique())
    for row in range(len(ids)):
        at = send(at, table, {"rows": [row], "columns": [], "cells": []})
        if f"{other}: " in words(at).replace("*", ""):
            break
    assert told(at, state.ST_PLAYER)["clips"] and f"{other}: " in words(at).replace("*", "")


def test_an_own_recording_without_a_label_is_steered_by_the_runs_vector(open_app, server):
    made = collection.create(server / "recordings", "Mine", "of one browser", Caps())
    sound = server / "hello.wav"
    soundfile.write(sound, tone(0.6, 300), RATE)
    with open(sound, "rb") as file:
        collection.add(made, [Upload("hello.wav", file)], Caps(), ClipLimits())
    at = visit(open_app, "steering", st_clips_of="Mine", st_label="happy", st_layer="0", st_alpha="4")
    assert faults(at) == [] and "hello: " in words(at).replace("*", "")
    assert trace(drawn(at, state.ST_ANSWERS), "steered, alpha 4")
    at = visit(open_app, "steering")
    assert at.selectbox(key=state.ST_OF).value == live.OF_THE_RUN, "without a link the run's own clips"
    at = at.selectbox(key=state.ST_OF).set_value("Mine").run()
    assert faults(at) == [] and "hello: " in words(at).replace("*", "") and "somebody else" not in words(at)
    at = visit(open_app, "steering", st_clips_of="Theirs")
    assert at.selectbox(key=state.ST_OF).value == live.OF_THE_RUN and "recordings of somebody else" in words(at)


def test_a_link_to_recordings_of_somebody_else_says_so(open_app):
    at = visit(open_app, "steering", st_clips_of="Theirs", st_clip="hello")
    assert "The link asks for clips of Theirs, which are recordings of somebody else" in words(at)


def test_the_vectors_of_the_page_are_those_of_the_folder(assets, steered):
    assert steered.vectors.to_bytes() == (assets / NAME / "run-steer" / FILE).read_bytes()


@pytest.mark.parametrize(
    "given",
    [{"st_label": "<b>x</b>", "st_layer": "99", "st_alpha": "nan"}, {"steer_alphas": "1,,x", "steer_draws": "-1"}],
)
def test_a_link_with_nonsense_is_no_fault_of_the_page(open_app, given):
    at = visit(open_app, "steering", **given)
    assert not at.exception and at.title[0].value.startswith("Steering")
