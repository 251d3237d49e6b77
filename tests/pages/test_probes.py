"""The page Probes: the saved run's own numbers, what a click selects, and the lenses on the chosen clip."""

import json

import numpy as np
import pytest

from components import server, state
from components.words import layer_text, option
from interp_core.engine import Engine
from interp_core.experiments import experiment_of
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.probes import tables
from interp_core.experiments.probes.lens import nearest_words, transcripts
from interp_core.experiments.probes.request import ProbesRequest
from interp_core.models import bundled
from interp_core.trace.clean import logit_lens
from tests.corpus import write_corpus
from tests.families.encoders import save_whisper
from tests.pages.conftest import by_key, click_point, faults, marks_on, opened_export, send, told, words
from tests.pages.test_neurons import drawn, trace, visit
from tests.pages.test_patching import _numbers
from tests.tiny import LABELS, save_qwen2_audio

NAME, HEARS = "demo-probed", "demo-whisper"


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """Two demos with random models, made-up recordings and a saved run each: an audio LLM and a Whisper."""
    assets = tmp_path_factory.mktemp("assets")
    for name, save in ((NAME, save_qwen2_audio), (HEARS, save_whisper)):
        folder = assets / name
        save(folder / "model", n_layers=3)
        write_corpus(folder).rename(folder / "manifest.csv")
        about = {"title": "Tiny", "description": "Random.", "labels": list(LABELS)}
        if name == NAME:
            about["prompts"] = [{"name": "voice", "text": "voice?"}]
        (folder / "demo.json").write_text(json.dumps(about))
    before, bundled.ASSETS = bundled.ASSETS, assets
    bundled.demos.cache_clear()
    try:
        for name in (NAME, HEARS):
            asked = ProbesRequest(name, columns=("prosody_label",), quantities=("level",), draws=19, controls=1)
            run(experiment_of("probes"), Engine(), asked, out=assets / name / "run-probes")
    finally:
        bundled.ASSETS = before
        bundled.demos.cache_clear()
    return assets


@pytest.fixture(scope="module")
def probed(assets):
    return open_result(experiment_of("probes"), assets / NAME / "run-probes")


def rows_of(result, target, at):
    rows = tables.of_target(result.table, target)
    return rows[rows["site"] + ", " + rows["place"] == at].sort_values("layer")


def test_the_page_shows_the_saved_scores_with_control_and_chance_and_says_what_they_cannot_show(open_app, probed):
    at = visit(open_app, "probes", model=NAME, pb_target="prosody_label", pb_at="resid_post, last")
    assert faults(at) == []
    said = words(at)
    assert f"Saved run that ships with {NAME}" in said and "12 clips" in said
    figure, rows = drawn(at, state.PB_CURVE), rows_of(probed, "prosody_label", "resid_post, last")
    found = trace(figure, "resid_post, last position")
    assert list(_numbers(found["y"])) == pytest.approx(rows["score"].tolist())
    control = trace(figure, "control task") if rows["control"].notna().any() else None
    assert control is None or list(_numbers(control["y"])) == pytest.approx(rows["control"].tolist(), nan_ok=True)
    assert "chance 33 %" in said
    plain = said.replace("*", "")
    for word in ("A probe that reads is not a model that uses", "1909.03368", "2303.08112", "2310.03686"):
        assert word in plain, word


def test_the_export_is_the_curve_on_screen_with_the_layer_that_is_chosen(open_app, probed, paper):
    at = visit(open_app, "probes", model=NAME, pb_at="resid_post, mean", pb_target="level")
    opened_export(click_point(at, state.PB_CURVE, "resid_post, mean", 1))
    rows = rows_of(probed, "level", "resid_post, mean")
    found = marks_on(paper())
    assert found["rings"] == [(0, pytest.approx(rows[rows["layer"] == 0]["score"].iloc[0]))]
    assert "layer 0" in found["words"] and f"seed {probed.config['settings']['seed']}" in found["words"]


def test_a_click_on_a_cell_or_a_point_selects_target_and_layer_and_the_table_has_its_predictions(open_app, probed):
    at = visit(open_app, "probes", model=NAME, pb_at="resid_post, mean")
    at = click_point(at, state.PB_MAP, "cells", 4 * 1 + 2)  # the second target, emb 0 1 2
    assert at.selectbox(key=state.PB_TARGET).value == "level" and at.selectbox(key=state.PB_LAYER).value == "1"
    at = click_point(at, state.PB_CURVE, "resid_post, mean", 0)
    assert at.selectbox(key=state.PB_LAYER).value == "emb" and faults(at) == []
    assert "What enters layer 0" in words(at) and "R2" in words(at)
    table = by_key(at, "dataframe", state.PB_CLIPS)
    shown = probed.at("level", "resid_post", "mean", -1)
    assert len(shown) == 12 and {"is", "is read as", "off by"} <= set(
        by_key(at, "dataframe", state.PB_CLIPS).value.columns
    )
    off = np.abs(shown["value"] - shown["read"]).sort_values(ascending=False)
    worst = shown.loc[off.index[0], "clip_id"]
    assert by_key(at, "dataframe", state.PB_CLIPS).value["clip"].iloc[0] == worst
    at = send(at, table, {"rows": [3], "columns": [], "cells": []})
    assert f"**{shown.loc[off.index[3], 'clip_id']}** is answered" in words(at) and told(at, state.PB_PLAYER)["clips"]


def test_a_link_shows_what_the_page_shows_where_a_default_depends_on_another_choice(open_app, probed):
    best = probed.best.set_index("target")
    first = best.index[0]
    other = next(name for name in best.index if name != first)
    own = (best.loc[other, "site"] + ", " + best.loc[other, "place"], best.loc[other, "layer"])
    assert own != (best.loc[first, "site"] + ", " + best.loc[first, "place"], best.loc[first, "layer"]), "control"
    at = visit(open_app, "probes", model=NAME)
    at = at.selectbox(key=state.PB_TARGET).set_value(option(tables.name_of(other, is_label=False))).run()
    shown = at.selectbox(key=state.PB_AT).value, at.selectbox(key=state.PB_LAYER).value
    assert shown == (own[0], layer_text(int(own[1]))), "the best point of a target until another is chosen"
    linked = visit(open_app, "probes", model=NAME, pb_target=at.selectbox(key=state.PB_TARGET).value)
    assert (linked.selectbox(key=state.PB_AT).value, linked.selectbox(key=state.PB_LAYER).value) == shown


def test_the_lens_is_the_logit_lens_at_every_audio_position_and_a_click_says_a_cells_values(open_app, probed):
    at = visit(open_app, "probes", model=NAME)
    assert faults(at) == []
    engine, request = Engine(), probed.config
    asked = ProbesRequest.from_config(request)
    clip = next(one for one in engine.manifest(asked).clips if f"**{one.clip_id}** is answered" in words(at))
    made = nearest_words(engine, asked, clip)
    store = engine.store(asked)
    clean = store.run(clip, asked.prompt)
    assert made.own[0] == made.labels[int(logit_lens(store.subject, clean)[-1][
        list(store.subject.labels(made.labels, asked.prompt, several_tokens="first").ids)].argmax())]  # fmt: skip
    start, stop = clean.prompted.audio
    assert made.answers.shape == (4, stop - start, len(LABELS)) and len(made.edges) == stop - start + 1
    figure = drawn(at, state.PB_LENS)
    heat = next(one for one in figure["data"] if one["type"] == "heatmap")
    np.testing.assert_array_equal(np.array(_numbers(heat["z"])).reshape(made.nearest.shape), made.nearest)
    at = click_point(at, state.PB_LENS, "cells", 3 * (stop - start) + 1)
    said = words(at)
    best = made.labels[made.nearest[3, 1]]
    assert f"nearest to **{best}** ({100 * made.shares[3, 1].max():.0f} % among the answers)" in said
    window = told(at, state.PB_PLAYER)["window"]
    assert (window["start"], window["end"]) == pytest.approx(tuple(made.edges[1:3]))
    at = click_point(at, state.PB_LENS, "cells", 0)
    assert faults(at) == [] and "What enters layer 0, 0.00 to" in words(at)
    few = nearest_words(engine, asked, clip, columns=3)  # a column is the mean over its positions
    assert few.answers.shape[1] == 3 and few.edges[-1] == made.edges[-1]
    width = int(round(few.edges[1] / made.edges[1]))
    np.testing.assert_allclose(few.answers[:, 0], made.answers[:, :width].mean(1), rtol=1e-6)


def test_whispers_transcripts_by_layer_are_shown(open_app, assets):
    at = visit(open_app, "probes", model=HEARS)
    assert faults(at) == [] and "The transcript, had the encoder ended at each layer" in words(at)
    frame = next(one.value for one in at.get("dataframe") if "transcript" in one.value.columns)
    assert frame["layer"].tolist() == ["emb", "0", "1", "2"] and frame.iloc[-1, -1] == "the model's own"
    engine, asked = (
        Engine(),
        ProbesRequest.from_config(open_result(experiment_of("probes"), assets / HEARS / "run-probes").config),
    )
    clip = next(
        one
        for one in engine.manifest(asked).clips
        if one.clip_id in by_key(at, "dataframe", state.PB_CLIPS).value["clip"].iloc[0]
    )
    assert frame["transcript"].tolist() == [text.text.strip() for text in transcripts(engine, asked, clip)]


@pytest.mark.parametrize(
    "given",
    [
        {"pb_target": "<b>x</b>", "pb_layer": "99", "pb_at": "nan", "pb_cell": "9,9999", "pb_word": "<i>"},
        {"probes_layers": "1,,x", "probes_draws": "-1", "pb_cell": ","},
    ],
)
def test_a_link_with_nonsense_is_no_fault_of_the_page(open_app, given):
    at = visit(open_app, "probes", model=NAME, **given)
    assert not at.exception and at.title[0].value.startswith("Probes")


def test_a_run_is_started_from_the_page_and_shown(open_app):
    at = visit(open_app, "probes", model=NAME, probes_draws="39", probes_layers="0,2", probes_controls="0")
    assert "Not what is set now" in words(at)
    press = next(one for one in at.button if one.label == "Run")
    at = press.click().run()
    [job] = server.engine().jobs.jobs()
    assert job.wait(120) and job.status == "done", job.error
    at = at.run()
    assert faults(at) == [] and "Not what is set now" not in words(at)
    assert [one for one in at.selectbox if one.key == state.PB_LAYER][0].options == ["0", "2"]
