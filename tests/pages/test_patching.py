"""The patching page: what a link shows, what a click changes, and that the numbers on it are the run's."""

import base64
import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest

from components import defaults, shown, state
from components import server as running
from interp_core.experiments.experiment import open_result
from interp_core.experiments.patching.experiment import PATCHING, pair_by_hand, pairs_of, patch_by_hand
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models import bundled
from tests.pages.conftest import by_key, click, click_point, faults, forget, marked, send, words
from tests.pages.tiny_demo import MAX_PAIRS, N_LAYERS, NAME


@pytest.fixture
def saved(assets):
    """The run that ships with the tiny demo, read without the dashboard."""
    return open_result(PATCHING, assets / NAME / "run")


def record(saved, pair, layer, *, prompt=0, alpha=1.0):
    rows = saved.records
    found = rows[
        (rows.condition == "matched")
        & (rows.pair_id == pair)
        & (rows.layer == layer)
        & (rows.prompt == prompt)
        & (rows.alpha == alpha)
    ]
    assert len(found) == 1
    return found.iloc[0]


def logits_on_page(at):
    """name of the run -> label logits, as they are drawn."""
    drawn = json.loads(by_key(at, "plotly_chart", "logits").proto.spec)["data"]
    named = {trace["name"].partition(":")[0]: trace for trace in drawn if trace.get("mode") == "markers"}
    patched = [dot["x"] for dot in marked(at, "logits")["dots"]]
    return {name: list(_numbers(trace["x"])) for name, trace in named.items()} | {"A after the patch": patched}


def _numbers(values):
    if isinstance(values, dict):  # plotly's typed arrays
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
    return values


def test_the_first_page_is_the_patching_page_with_the_curve_of_the_saved_run(open_app, saved):
    at = open_app()
    assert faults(at) == []
    assert at.title[0].value == "Layer patching"
    assert f"Saved run that ships with {NAME}" in words(at)
    assert f"{MAX_PAIRS} prosody + {MAX_PAIRS} semantic pairs" in words(at)
    assert "Weights checked" in words(at)
    spec = json.loads(by_key(at, "plotly_chart", "curve").proto.spec)
    matched = next(trace for trace in spec["data"] if trace.get("name", "").startswith("patched from B (n"))
    metrics = saved.metrics
    rows = metrics[
        (metrics.kind == "prosody") & (metrics.prompt == 0) & (metrics.alpha == 1) & (metrics.condition == "matched")
    ]
    wanted = [
        None if value != value else pytest.approx(value)
        for value in rows.sort_values("layer").flip_to_target_rate_reachable
    ]
    assert [None if v is None or v != v else v for v in _numbers(matched["y"])] == wanted


def test_a_link_shows_that_pair_at_that_layer_under_that_question(open_app, saved):
    at = open_app(kind="semantic", prompt="words", layer="2", pair="semantic-0003", strength="0.5", view="Logit change")
    assert faults(at) == []
    assert at.select_slider(key=state.LAYER).value == "2"
    assert at.selectbox(key=state.PAIR).value == "semantic-0003"
    row = record(saved, "semantic-0003", 2, prompt=1)
    shown = logits_on_page(at)
    assert shown["A as it is"] == pytest.approx(row.base_logits, abs=1e-4)
    assert shown["A after the patch"] == pytest.approx(row.patched_logits, abs=1e-4)
    assert shown["B"] == pytest.approx(row.donor_logits, abs=1e-4)
    other = record(saved, "semantic-0003", 0, prompt=1)  # control: the numbers do hang on the layer
    assert shown["A after the patch"] != pytest.approx(other.patched_logits, abs=1e-4)


@pytest.mark.parametrize(
    "parameters",
    [
        {"pair": "nobody-0001"},
        {"layer": "99"},
        {"layer": "-1; drop"},
        {"kind": "nonsense"},
        {"prompt": "<script>alert(1)</script>"},
        {"view": "Everything"},
        {"alpha": "7"},
        {"alpha": "nan"},
        {"strength": "0.123"},
        {"scale": "parsec", "flips": "maybe", "measure": "luck"},
        {"patch_align": "sideways", "patch_method": "magic"},
        {"device": "auto", "dtype": "float8"},
        {"patch_seed": "-5"},
        {"layer": "99", "kind": "nonsense", "pair": "x", "view": "", "prompt": ""},
        {"unknown": "parameter", "trust_remote_code": "true"},
    ],
    ids=lambda parameters: "-".join(parameters),
)
def test_a_bad_choice_in_a_link_falls_back_to_the_default(open_app, parameters):
    at = open_app(**parameters)
    assert faults(at) == []
    assert at.select_slider(key=state.LAYER).value in {"emb", *map(str, range(N_LAYERS))}
    assert at.selectbox(key=state.PAIR).value.startswith("prosody-")
    assert at.slider(key=state.ALPHA).value == 1.0
    assert len(at.get("plotly_chart")) == 2


@pytest.mark.parametrize(
    "parameters, said",
    [
        ({"patch_alphas": "7"}, "Strengths alpha 7 is too large; give 1 or less"),
        ({"patch_alphas": "many"}, "Strengths alpha 'many' is not a number"),
        ({"patch_positions": "yesterday"}, "is none of audio"),
        ({"patch_site": "head_out:third"}, "give one head by its number"),
        ({"patch_site": "attn_out:1"}, "a head is patched at site head_out"),
        ({"patch_site": "resid_pst"}, "did you mean 'resid_"),
        ({"patch_max_pairs": "1e9"}, "give a number like 100"),
        ({"patch_max_pairs": "100000000"}, "more than the 1000 that this server takes"),
        ({"device": "cuda:77"}, "0 GPUs are visible"),
        ({"patch_kinds": "prosodie"}, "did you mean 'prosody'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_setting_that_means_nothing_is_one_sentence_and_the_page_stays(open_app, parameters, said):
    at = open_app(**parameters)
    if not any(
        said in fault.replace("\\", "") for fault in faults(at)
    ):  # what only a run would meet is said when it starts
        at = run_button(at).click().run()
    found = [fault.replace("\\", "") for fault in faults(at)]
    assert len(found) == 1 and said in found[0]
    assert "\n" not in found[0] and "Traceback" not in found[0]
    assert at.title[0].value == "Layer patching"


def run_button(at):
    return next(button for button in at.button if button.label == "Run on all pairs")


def test_a_model_from_a_link_is_opened_only_when_the_visitor_says_so_and_a_missing_one_is_a_sentence(
    open_app, server, monkeypatch
):
    opened = []
    inner = running.engine().open
    monkeypatch.setattr(running.engine(), "open", lambda name, *rest: opened.append(name) or inner(name, *rest))
    missing = str(server / "no" / "such" / "folder")
    at = open_app(model=missing)
    assert opened == [] and faults(at) == []
    assert "This link names a model" in words(at) and len(at.get("plotly_chart")) == 0
    at = next(button for button in at.button if button.label == "Open this model").click().run()
    assert opened == [missing]
    assert len(faults(at)) == 1 and "is no bundled model" in faults(at)[0].replace("\\", "")


def test_a_manifest_outside_the_allowed_folders_is_refused(open_app, server, assets, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    shutil.copytree(assets / NAME, outside / "corpus", ignore=shutil.ignore_patterns("model", "run"))
    at = open_app(clips=str(outside / "corpus" / "manifest.csv"))
    at = run_button(at).click().run()
    assert faults(at) and all("outside" in fault.replace("\\", "") for fault in faults(at)), "at the field and below"
    shutil.copytree(outside / "corpus", server / "corpus")  # control: the same file inside is taken
    at = open_app(clips=str(server / "corpus" / "manifest.csv"), patch_max_pairs="2")
    assert faults(run_button(at).click().run()) == []


def test_a_click_on_the_curve_selects_the_layer_and_a_second_click_leaves_it(open_app, saved):
    at = open_app(pair="prosody-0001", layer="0")
    at = click_point(at, "curve", "patched from B (n", 3)  # emb, 0, 1, 2
    assert faults(at) == []
    assert at.select_slider(key=state.LAYER).value == "2"
    assert at.query_params["layer"] in ("2", ["2"])
    assert logits_on_page(at)["A after the patch"] == pytest.approx(
        record(saved, "prosody-0001", 2).patched_logits, abs=1e-4
    )
    for nothing in ((), ([],)):  # a line, or a point that carries no layer
        at = click(at, "curve", *nothing)
        assert at.select_slider(key=state.LAYER).value == "2"
    at = click_point(at, "curve", "patched from B (n", 3)
    assert at.select_slider(key=state.LAYER).value == "2"
    at = click_point(at.button(key="layer-up").click().run(), "curve", "patched from B (n", 3)
    assert at.select_slider(key=state.LAYER).value == "2", "a point that was clicked before takes the next click too"


def test_a_step_through_the_layers_moves_the_mark_and_no_chart(open_app, saved):
    at = open_app(pair="prosody-0001", layer="0", measure="all pairs")
    before = {chart.proto.id for chart in at.get("plotly_chart")}
    at = at.button(key="layer-up").click().run()
    assert len(before) == 2 and {chart.proto.id for chart in at.get("plotly_chart")} == before
    mark = marked(at, state.CURVE)
    assert [line["x"] for line in mark["lines"]] == [1] and [name["text"] for name in mark["names"]] == ["layer 1"]
    assert [dot["x"] for dot in mark["dots"]] == [1]
    control = at.selectbox(key=state.PAIR).set_value("prosody-0002").run()
    assert len(before & {chart.proto.id for chart in control.get("plotly_chart")}) == 1, "another pair has other logits"


def test_a_row_of_the_table_and_the_arrows_select_the_pair(open_app, saved):
    at = open_app(layer="1", flips="all", pair="prosody-0000")
    listed = by_key(at, "dataframe", "flip_table").value["pair"].tolist()
    assert sorted(listed) == [f"prosody-{i:04d}" for i in range(MAX_PAIRS)]
    at = send(at, by_key(at, "dataframe", "flip_table"), {"rows": [4], "columns": [], "cells": []})
    assert at.selectbox(key=state.PAIR).value == listed[4]
    at = at.button(key="pair-after").click().run()
    ids = sorted(listed)
    assert at.selectbox(key=state.PAIR).value == ids[(ids.index(listed[4]) + 1) % MAX_PAIRS]
    at = at.button(key="layer-up").click().run()
    assert at.select_slider(key=state.LAYER).value == "2"


def test_where_no_pair_flips_the_page_says_what_to_do_and_all_pairs_can_be_listed(open_app, saved):
    rows = saved.records.query(
        "condition == 'matched' and kind == 'semantic' and layer == 0 and prompt == 0 and alpha == 1"
    )
    flips = rows[(rows.base_prediction != rows.target) & (rows.patched_prediction == rows.target)]
    assert not len(flips)  # of this demo, whose model is not trained
    at = open_app(layer="0", kind="semantic")
    assert f"0 of {MAX_PAIRS} pairs flip" in words(at) and "Choose “all” to see every pair" in words(at)
    at = open_app(layer="0", kind="semantic", flips="all")
    assert by_key(at, "dataframe", "flip_table").value["pair"].tolist() == rows.pair_id.tolist()
    assert faults(at) == [] and "Choose “all”" not in words(at)


def test_strength_by_hand_is_what_the_engine_computes_for_this_pair(open_app, saved):
    at = open_app(pair="prosody-0002", layer="1")
    at = at.slider(key=state.ALPHA).set_value(0.3).run()
    assert faults(at) == [] and "by hand: alpha 0.3" in words(at)
    request = PatchRequest(NAME, max_pairs=MAX_PAIRS)
    pair = next(p for p in pairs_of(running.engine(), request).pairs if p.pair_id == "prosody-0002")
    swept = patch_by_hand(running.engine(), request, pair, alphas=(0.3,))
    wanted = swept[swept.layer == 1].iloc[0].patched_logits
    assert logits_on_page(at)["A after the patch"] == pytest.approx(wanted, abs=1e-4)
    at = at.slider(key=state.ALPHA).set_value(0.5).run()  # a strength of the run is read, not computed
    assert "by hand" not in words(at)
    kept = record(saved, "prosody-0002", 1, alpha=0.5).patched_logits
    assert logits_on_page(at)["A after the patch"] == pytest.approx(kept, abs=1e-4)


def test_every_view_is_drawn_for_every_kind(open_app):
    at = open_app()
    for kind in ("prosody", "semantic"):
        at.segmented_control(key=state.KIND).set_value(kind)
        for view in ("Flip rate", "Logit change", "Recovered", "Information flow", "Dose-response"):
            at = at.selectbox(key=state.VIEW).set_value(view).run()
            assert faults(at) == [], (kind, view)
            assert by_key(at, "plotly_chart", "curve") is not None
            assert any("knockout" in chart.proto.id for chart in at.get("plotly_chart")) == (view == "Information flow")


def test_a_run_is_a_job_whose_result_every_session_and_a_new_server_show(open_app, server):
    at = open_app(patch_max_pairs="3", patch_controls="random")
    assert "Most pairs a kind: 3 asked, 8 in this run" in words(at)
    at = run_button(at).click().run()
    assert faults(at) == []
    (job,) = running.engine().jobs.jobs()
    assert job.wait(120)
    assert job.status == "done", job.error
    at = at.run()
    assert "Computed by this server" in words(at) and "3 prosody + 3 semantic" in words(at)
    other = open_app(patch_max_pairs="3", patch_controls="random")
    assert "Computed by this server" in words(other)
    assert len(running.engine().jobs.jobs()) == 1
    forget()
    later = open_app(patch_max_pairs="3", patch_controls="random")
    assert f"From the run folder patch-{NAME}-" in words(later) and running.engine().jobs.jobs() == ()


def test_a_job_that_runs_shows_its_progress_and_where_the_server_says_so_anybody_cancels_it(open_app, monkeypatch):
    monkeypatch.setenv("PATCHBAY_CANCEL", "all")
    started, go_on = threading.Event(), threading.Event()

    def work(progress):
        progress(1, 4, "the first step")
        started.set()
        go_on.wait(30)
        progress(2, 4, "the second step")

    job = running.engine().jobs.submit("some work", "Some <b>work</b>", work)
    assert started.wait(30)
    at = open_app()
    assert any("1 of 4" in bar.proto.text for bar in at.get("progress"))
    at = at.button(key="cancel-side-some work").click().run()
    go_on.set()
    assert job.wait(300) and job.status == "cancelled"
    at = at.run()
    assert "cancelled after" in words(at) and faults(at) == []


def test_a_run_of_other_weights_is_said_to_be_one(open_app, assets, server, monkeypatch):
    changed = server / "assets"
    shutil.copytree(assets, changed)
    config = changed / NAME / "run" / "patching_config.json"
    saved = json.loads(config.read_text())
    saved["model"]["weights_sha256"] = "0" * 64
    config.write_text(json.dumps(saved))
    monkeypatch.setattr(bundled, "ASSETS", changed)
    forget()
    at = open_app()
    assert faults(at) == [] and "made with other weights (000000000000)" in words(at)
    assert "Weights checked" not in words(at)


def test_without_a_saved_run_the_page_says_how_to_get_one(open_app, assets, server, monkeypatch):
    bare = server / "assets"
    shutil.copytree(assets, bare, ignore=shutil.ignore_patterns("run"))
    monkeypatch.setattr(bundled, "ASSETS", bare)
    forget()
    at = open_app()
    assert faults(at) == [] and "Nothing has been computed for these settings yet" in words(at)
    half = bare / NAME / "run"  # a run that was killed is not shown as if it were whole
    half.mkdir()
    whole = json.loads((assets / NAME / "run" / "patching_config.json").read_text())
    (half / "patching_config.json").write_text(json.dumps({**whole, "finished": None}))
    forget()
    at = open_app()
    assert faults(at) == [] and "Nothing has been computed" in words(at)


def test_an_error_nobody_expected_is_a_short_sentence_and_in_the_log(open_app, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(shown, "current", fail)
    at = open_app()
    assert len(faults(at)) == 1 and "did not expect" in faults(at)[0]
    assert "secret" not in words(at) and "secret detail" in caplog.text


def test_where_runs_cannot_be_kept_the_page_still_works(open_app, server, monkeypatch):
    blocked = server / "a file"
    blocked.write_text("")
    monkeypatch.setenv("PATCHBAY_RUNS", str(blocked / "runs"))
    assert running.runs_folder() is None
    at = open_app(patch_max_pairs="2", patch_controls="random", patch_flow="question")
    at = run_button(at).click().run()
    (job,) = running.engine().jobs.jobs()
    assert job.wait(120) and job.status == "done", job.error
    assert "Computed by this server" in words(at.run())


def test_the_usual_request_is_the_saved_run_so_that_nothing_differs(server):
    request = defaults.usual(PatchRequest(NAME))
    saved = shown.current(request)
    assert saved is not None and saved.source == "shipped" and list(saved.differences) == []
    other = shown.current(replace(request, kinds="prosody"))
    assert other is not None
    assert list(other.differences) == ["Kinds of pair: prosody asked, prosody,semantic in this run"]


def test_any_two_clips_are_patched_by_hand_below_a_run_with_its_settings_and_kept_for_the_next(open_app):
    at = open_app()
    assert state.HAND_A not in at.session_state  # nothing is computed before it is asked for
    at.session_state["hand_fold"] = True
    at = at.run()
    assert faults(at) == []
    a, b = (at.selectbox(key=key) for key in (state.HAND_A, state.HAND_B))
    at = a.set_value(b.options[2]).run()
    a, b = (at.selectbox(key=key).value for key in (state.HAND_A, state.HAND_B))
    assert a != b
    engine, asked = running.engine(), PatchRequest(NAME)
    clips = {clip.clip_id: clip for clip in engine.manifest(asked).clips}
    rows = patch_by_hand(engine, asked, pair_by_hand(engine, asked, clips[a], clips[b], prompt=0), prompt=0)
    flips = rows[rows["patched_prediction"] == rows["target"]]
    one = rows.iloc[0]
    alike = one["base_prediction"] == one["target"]
    said = (
        "Both are answered alike"
        if alike
        else f"at {len(flips)} of {len(rows)} layers"
        if len(flips)
        else "At no layer"
    )
    assert said in words(at)
    at = at.button(key="keep_pair").click().run()
    assert faults(at) == []
    assert at.session_state[state.setting("patch", "pairs")] == f"{a} <- {b}"
