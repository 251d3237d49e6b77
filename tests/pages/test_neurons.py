"""The pages Neurons and Sign flip: the saved runs' own numbers, what a click selects, what a form may ask."""

import json
from pathlib import Path

import numpy as np
import pytest

from components import server, shown, state
from components.neurons import charts as neurons_charts
from components.signflip import charts as signflip_charts
from interp_core.experiments import experiment_of
from interp_core.experiments.experiment import open_result
from interp_core.experiments.signflip.tables import OUTPUT
from tests.pages.conftest import by_key, click_point, faults, marks_on, opened_export, send, told, words
from tests.pages.test_patching import _numbers
from tests.pages.tiny_neurons import NAME, write_demo

PAGES = Path(__file__).resolve().parents[2] / "pages"


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def swept(assets):
    return open_result(experiment_of("ablate"), assets / NAME / "run-ablate")


@pytest.fixture(scope="module")
def flipped(assets):
    return open_result(experiment_of("signflip"), assets / NAME / "run-signflip")


def visit(open_app, page, **parameters):
    at = open_app(**parameters)
    return at.switch_page(str(PAGES / f"{page}.py")).run()


def drawn(at, key):
    return json.loads(by_key(at, "plotly_chart", key).proto.spec)


def trace(figure, start):
    return next(t for t in figure["data"] if t.get("name", "").startswith(start))


def test_the_neurons_page_shows_the_saved_sweep_with_its_band_its_control_and_its_base(open_app, swept):
    at = visit(open_app, "neurons")
    assert faults(at) == []
    assert f"Saved run that ships with {NAME}" in words(at) and "Weights checked" in words(at)
    figure = drawn(at, state.NEU_CURVE)
    rows = swept.curve[swept.curve["set"] == "domain"].sort_values("k")
    found = trace(figure, "best for the domain")
    assert list(_numbers(found["y"])) == pytest.approx(rows["head_ood"].tolist())
    assert list(_numbers(found["x"])) == pytest.approx([np.log2(k + 1) for k in rows["k"]])
    assert trace(figure, "random (10 draws)") and trace(figure, "best for the task")
    assert f"K = 0: {swept.report['base']['head_ood']:.3f}" in json.dumps(figure)
    assert swept.report["verdict"] in words(at) and swept.report["why"] in words(at)


def test_a_shortcut_that_was_planted_is_named_so_beside_the_verdict_and_in_the_chart_and_no_other_is(open_app, swept):
    at = visit(open_app, "neurons")
    assert "The shortcut was planted" in words(at) and swept.report["planted"] == "a hum under every angry voice"
    assert swept.report["planted"] in words(at)
    assert "(planted shortcut)" in trace(drawn(at, state.NEU_CURVE), "best for the domain")["name"]
    natural = {name: value for name, value in swept.report.items() if name != "planted"}
    figure = neurons_charts.dose_response(swept.curve, natural, "head_ood", None)
    assert [t.name for t in figure.data if "planted" in (t.name or "")] == []


def test_a_click_on_a_dose_selects_it_and_lists_the_clips_that_change_there(open_app, swept):
    at = visit(open_app, "neurons")
    at = click_point(at, state.NEU_CURVE, "best for the task", 2)
    dose = swept.report["doses"][2]
    assert at.select_slider(key=state.NEU_K).value == str(dose)
    rows = swept.answers[(swept.answers["set"] == "domain") & (swept.answers["k"] == dose)]
    moved = rows[rows["base"] != rows["answer"]]
    assert f"K = {dose}: {len(moved)} of {len(rows)} answers change" in words(at)
    at.segmented_control(key=state.NEU_SET).set_value("task")
    at = at.selectbox(key=state.NEU_CLIPS).set_value("all").run()
    table = by_key(at, "dataframe", state.NEU_TABLE)
    listed = swept.answers[(swept.answers["set"] == "task") & (swept.answers["k"] == dose)].reset_index(drop=True)
    assert table.value["clip"].tolist() == listed["clip_id"].tolist()
    assert table.value["without"].tolist() == listed["answer"].tolist()
    at = send(at, table, {"rows": [3], "columns": [], "cells": []})
    assert f"{listed['clip_id'][3]}: truly" in words(at).replace("*", "")
    assert told(at, state.NEU_PLAYER)["clips"]
    assert faults(at) == []


def test_the_exports_are_what_is_on_screen_with_the_dose_and_the_layer_that_are_marked(open_app, swept, flipped, paper):
    at = visit(open_app, "neurons")
    dose = swept.report["doses"][2]
    opened_export(click_point(at, state.NEU_CURVE, "best for the task", 2))
    found = marks_on(paper())
    assert found["lines"] == [pytest.approx(neurons_charts.position(dose))]
    assert f"K = {dose}" in found["words"] and f"seed {swept.config['settings']['seed']}" in found["words"]
    at = visit(open_app, "signflip")
    opened_export(click_point(at, state.SF_MATRIX, "cells", len(signflip_charts.places(flipped.report)) + 2))
    found = marks_on(paper())
    assert found["lines"] == [2] and "layer 1" in found["words"] and "seed" in found["words"]


def test_a_measure_that_was_refused_is_a_sentence_and_no_choice(open_app, swept, assets):
    at = visit(open_app, "neurons")
    options = at.selectbox(key=state.NEU_MEASURE).options
    known = [neurons_charts.MEASURES[name] for name in swept.report["base"]]
    assert options == [text for text in neurons_charts.MEASURES.values() if text in known]


def test_other_settings_say_that_the_run_on_show_is_another_and_run_makes_them(open_app):
    at = visit(open_app, "neurons", ablate_kind="zero", ablate_draws="3")
    assert "Replaced by: zero asked, mean in this run" in words(at)
    at = next(button for button in at.button if button.label == "Run").click().run()
    server.engine().jobs.jobs()[0].wait(60)
    at = at.run()
    assert faults(at) == []
    assert "Computed by this server" in words(at) and "zero asked" not in words(at)


def test_a_filter_that_no_clip_passes_is_one_sentence(open_app):
    at = visit(open_app, "neurons", ablate_train="split=nowhere", ablate_id="id_val", ablate_ood="ood")
    at = next(button for button in at.button if button.label == "Run").click().run()
    assert len(faults(at)) == 1 and "no clip passes train" in faults(at)[0].replace("\\", "")


def test_the_sign_flip_page_shows_the_saved_matrix_and_marks_zeros_by_construction(open_app, flipped):
    at = visit(open_app, "signflip")
    assert faults(at) == []
    figure = drawn(at, state.SF_MATRIX)
    assert "0 by construction" in json.dumps(trace(figure, "cells")["text"])
    changes = flipped.changes[flipped.changes["proxy"] == "rms"].set_index(["flipped", "measured"])["change"]
    wanted = signflip_charts.matrix(flipped.changes, flipped.report, "rms", None).data[0].z
    places = signflip_charts.places(flipped.report)
    for i in range(3):
        for j, place in enumerate(places):
            if (i, place) in changes.index:
                assert wanted[i][j] == pytest.approx(100 * changes[i, place])
            else:
                assert place != OUTPUT and place < i and np.isnan(wanted[i][j])
    curve = trace(drawn(at, state.SF_CURVE), "neurons of neutral")
    assert list(_numbers(curve["y"])) == pytest.approx([100 * changes[0, p] for p in places])


def test_a_click_on_a_cell_selects_both_layers_and_says_what_is_there(open_app, flipped):
    at = visit(open_app, "signflip")
    n = len(signflip_charts.places(flipped.report))
    at = click_point(at, state.SF_MATRIX, "cells", 1 * n + 1)
    assert at.selectbox(key=state.SF_FLIPPED).value == "1" and at.selectbox(key=state.SF_AT).value == "1"
    assert "0 by construction" in words(at)
    at = click_point(at, state.SF_CURVE, "neurons of", 1)
    assert at.selectbox(key=state.SF_AT).value == "2"
    assert "0 by construction" not in words(at).replace("≡ 0 by construction", "").split("What")[0]
    rows = flipped.clips[flipped.clips["flipped"] == 1]
    moved = rows[rows["base"] != rows["answer"]]
    assert f"{len(moved)} of {len(rows)} answers change with layer 1 edited" in words(at)
    at = at.segmented_control(key=state.SF_ONLY).set_value("all").run()
    table = by_key(at, "dataframe", state.SF_CLIPS)
    at = send(at, table, {"rows": [2], "columns": [], "cells": []})
    assert f"{rows['clip_id'].iloc[2]}: truly" in words(at).replace("*", "")
    assert told(at, state.SF_PLAYER)["clips"] and faults(at) == []


@pytest.mark.parametrize("page", ["neurons", "signflip"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"neu_k": "9999", "neu_measure": "luck", "neu_set": "third", "ablate_kind": "shave"},
        {
            "sf_layer": "99",
            "sf_at": "-7",
            "sf_proxy": "loudness",
            "signflip_frames": "none",
            "signflip_target": "<b>x</b>",
        },
        {"ablate_draws": "-4", "signflip_draws": "nan", "ablate_at": "<script>"},
    ],
    ids=["neurons", "signflip", "both"],
)
def test_a_bad_choice_in_a_link_is_the_default_or_one_sentence(open_app, page, parameters):
    at = visit(open_app, page, **parameters)
    assert not at.exception and len(faults(at)) <= 1
    assert at.title[0].value.startswith({"neurons": "Neurons", "signflip": "Sign flips"}[page])


def test_the_exported_command_is_the_runs_own(swept, flipped):
    said = shown.Shown("", swept, "shipped").request.command_line()
    assert (
        "interp_core ablate --model=demo-emotion-wavlm" in said and "--units=text_id" in said and "--refits=1" in said
    )
    said = shown.Shown("", flipped, "shipped").request.command_line()
    assert "interp_core signflip" in said and "--frames=all" in said and "--draws=4" in said
