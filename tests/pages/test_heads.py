"""The heads page: the map is the run's, a click selects, a head is ablated and patched, a wrong model is told so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from components import server, state
from interp_core.engine import Engine
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.heads.experiment import HEADS
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.heads.run import HeadsResult
from interp_core.models import bundled
from tests.experiments.heads_cases import CLASSES, write_clips, write_manifest
from tests.families.encoders import save_clap_audio
from tests.pages.conftest import by_key, click, faults, forget, marks_on, opened_export, told, words

NAME = "demo-tiny-events"


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One demo: a tiny HTS-AT, 24 clips, and its saved run, with the mean ablation of every head."""
    torch.set_num_threads(1)
    assets = tmp_path_factory.mktemp("assets")
    folder = assets / NAME
    save_clap_audio(folder / "model", depths=(1, 1, 1, 1), heads=(1, 2, 4, 8))
    write_manifest(folder, write_clips(folder, CLASSES * 8, seconds=(0.5,)), train=6).rename(folder / "manifest.csv")
    about = {"title": "Tiny", "description": "Nobody trained it.", "labels": list(CLASSES), "probe": "label"}
    (folder / "demo.json").write_text(json.dumps(about))
    before, bundled.ASSETS = bundled.ASSETS, assets
    bundled.demos.cache_clear()
    try:
        run(HEADS, Engine(), HeadsRequest(NAME, probe="label", ablate=("mean",)), out=folder / "run-heads")
    finally:
        bundled.ASSETS = before
        bundled.demos.cache_clear()
    return assets


@pytest.fixture
def saved(assets: Path) -> HeadsResult:
    return open_result(HEADS, assets / NAME / "run-heads")


def open_heads_page(open_app, **parameters):
    at = open_app(**parameters)
    return at.switch_page(str(Path(__file__).resolve().parents[2] / "pages" / "heads.py")).run()


def drawn(at, key):
    return json.loads(by_key(at, "plotly_chart", key).proto.spec)


def test_the_page_opens_with_the_saved_run_and_the_best_head_selected(open_app, saved) -> None:
    at = open_heads_page(open_app)
    assert faults(at) == [] and at.title[0].value == "Heads, blocks, stages"
    heads = saved.points("head")
    best = heads.loc[heads["fisher_f"].idxmax()]
    assert at.selectbox(key=state.HEADS_AT).value == best["name"]
    assert f"Saved run that ships with {NAME}" in words(at) and "Weights checked" in words(at)
    assert f"{best['fisher_f']:.2f} times as well" in words(at).replace("\\", "")
    cells = next(trace for trace in drawn(at, state.HEADS_MAP)["data"] if trace.get("name") == "cells")
    assert [tuple(cell) for cell in cells["customdata"]] == list(zip(heads["layer"], heads["head"], strict=True))


def test_a_click_on_the_map_selects_that_head_everywhere(open_app, saved) -> None:
    at = open_heads_page(open_app)
    at = click(at, state.HEADS_MAP, [2, 1])
    assert faults(at) == [] and at.selectbox(key=state.HEADS_AT).value == "S2 B0 H1"
    row = saved.points("head").set_index("name").loc["S2 B0 H1"]
    assert f"Head S2 B0 H1** separates the classes {row['fisher_f']:.2f}" in words(at).replace("\\", "")
    kept = saved.ablation[(saved.ablation["layer"] == 2) & (saved.ablation["head"] == 1)].iloc[0]
    bars = drawn(at, "heads_effect_logprob_change")["data"]
    assert [bar["y"] for bar in bars] == [[f"mean {kept['logprob_change']:+.3f}"]]


def test_the_export_is_the_map_on_screen_with_the_head_that_is_chosen(open_app, saved, paper) -> None:
    opened_export(click(open_heads_page(open_app), state.HEADS_MAP, [2, 1]))
    found = marks_on(paper())
    assert found["frames"] == {(1, 2)} and "S2 B0 H1" in found["words"] and "seed" in found["words"]


def test_a_link_shows_that_head_in_that_view(open_app, saved) -> None:
    at = open_heads_page(open_app, heads_at="S3 B0 H4", heads_view="Without it: log-probability")
    assert at.selectbox(key=state.HEADS_AT).value in ("S3 B0 H4", saved.points("head")["name"].iloc[0])
    assert faults(at) == []


def test_the_other_kinds_of_ablation_are_computed_by_a_job(open_app, saved) -> None:
    at = open_heads_page(open_app)
    at.button(key="heads_ablate_one").click().run()
    (job,) = [job for job in server.engine().jobs.jobs() if "Without" in job.title]
    assert job.wait(120) and set(job.result["kind"]) == {"zero", "resample"}
    at.run()
    assert faults(at) == []
    bars = drawn(at, "heads_effect_change")["data"]
    assert [bar["y"][0].partition(" ")[0] for bar in bars] == ["mean", "zero", "resample"]


def test_a_click_on_a_clip_makes_it_a_and_patching_shows_three_runs(open_app, saved) -> None:
    at = open_heads_page(open_app)
    clip = saved.clips["clip_id"].iloc[7]
    at = click(at, state.HEADS_PLANE, [clip])
    assert faults(at) == [] and at.selectbox(key=state.HEADS_A).value == clip
    logits = {trace["name"].partition(":")[0] for trace in drawn(at, "heads_patch")["data"] if "name" in trace}
    assert {"A as it is", "A after the patch", "B"} <= logits
    player = told(at, state.PLAYER)
    assert [one["label"].partition(" ")[0] for one in player["clips"]] == [clip, at.selectbox(key=state.HEADS_B).value]


def test_a_run_with_other_settings_is_a_job_and_can_be_compared(open_app, saved) -> None:
    at = open_heads_page(open_app)
    at.selectbox(key=state.setting("heads", "probes")).set_value("none")
    at.number_input(key=state.setting("heads", "seed")).set_value(7)
    next(button for button in at.button if button.label == "Run").click().run()
    (job,) = [job for job in server.engine().jobs.jobs() if job.title.startswith("heads")]
    assert job.wait(120) and job.error is None
    at.run()
    assert faults(at) == [] and "Computed by this server" in words(at)
    assert "Probe" not in at.selectbox(key=state.HEADS_VIEW).options


def test_a_run_of_another_model_does_not_stand_in(open_app, assets, tmp_path, monkeypatch) -> None:
    import shutil

    copied = tmp_path / "assets"
    shutil.copytree(assets, copied)
    shutil.rmtree(copied / NAME / "run-heads")
    monkeypatch.setattr(bundled, "ASSETS", copied)
    forget()
    at = open_heads_page(open_app)
    assert faults(at) == [] and "Nothing has been computed" in words(at)


def test_a_head_that_was_clicked_is_undone(open_app, saved) -> None:
    at = open_heads_page(open_app)
    first = at.selectbox(key=state.HEADS_AT).value
    other = next(name for name in at.selectbox(key=state.HEADS_AT).options if name != first)
    at = at.selectbox(key=state.HEADS_AT).set_value(other).run()
    at = at.button(key="undo").click().run()
    assert faults(at) == [] and at.selectbox(key=state.HEADS_AT).value == first
    at = at.button(key="redo").click().run()
    assert at.selectbox(key=state.HEADS_AT).value == other


def test_a_model_that_writes_nothing_has_no_answer_in_words(open_app, saved) -> None:
    at = open_heads_page(open_app)
    at.session_state[state.HEADS_WORDS] = True
    at = at.run()
    assert faults(at) == [] and "writes none, so there is no answer in words" in words(at)


def test_another_map_is_any_run_that_the_page_runs_lists_wherever_its_command_put_it(open_app, saved, assets) -> None:
    import shutil

    folder = server.runs_folder() / "by" / "hand"  # as `--out runs/by/hand` makes it, under no name of the dashboard's
    shutil.copytree(assets / NAME / "run-heads", folder)
    config = folder / "heads_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"manifest": {"sha256": "another", "clips": 3}}))
    at = open_heads_page(open_app, heads_compare="true")
    assert faults(at) == [] and len(at.selectbox(key=state.HEADS_OTHER).options) == 1
    assert by_key(at, "plotly_chart", state.HEADS_DIFFERENCE)
