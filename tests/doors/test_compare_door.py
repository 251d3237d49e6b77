"""Comparisons as they are asked for and kept: a folder that reads back, configs that repeat, runs that go on."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from interp_core.doors.compare import (
    CompareRequest,
    bundled_pairs,
    counterpart,
    pairs_of,
    prepare,
    request_from_config,
    resolve,
)
from interp_core.doors.compare_folder import RECORDS, TABLES, cka_figure, read_comparison
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.compare_settings import CompareSettings
from interp_core.models import bundled
from interp_core.runs import find_runs
from tests.pages.tiny_spoof import BASE, DONOR, PAIRS, write_spoof_demo
from tests.spoof_pairs import save_pair, write_spoof_corpus

QUICK = CompareSettings(patch=("auto:1",), stages=("mixed", "logits"), maps=("mean",), domain="none", batch_size=5)


@pytest.fixture(scope="module")
def engine():
    return Engine(cache_bytes=1 << 28)


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    base, donor = save_pair(folder, "tuned")
    manifest = write_spoof_corpus(folder / "clips", speakers=4, utterances=1, codecs=("NONE", "C01"))
    return CompareRequest(str(base), str(manifest), device="cpu", donor=str(donor), settings=QUICK)


@pytest.fixture(scope="module")
def kept(engine, request_, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "compare"
    return folder, request_.run(engine, out=folder)


def frames(made):
    return {name: getattr(made, name) for name in TABLES}


def assert_same(one, other):
    for name, frame in frames(one).items():
        found = frames(other)[name]
        pd.testing.assert_frame_equal(found.reset_index(drop=True), frame.reset_index(drop=True), check_dtype=False)


def test_a_run_folder_has_the_named_files_and_reads_back_as_the_same_tables(kept):
    folder, made = kept
    names = {path.name for path in folder.iterdir()}
    assert names >= {"compare_config.json", "cka.csv", "cka_heatmap.png", "patched_scores.csv", "summary.csv"}
    assert "identical_parts.json" in names and "probe.csv" not in names  # no domain was asked for
    assert_same(read_comparison(folder), made)
    assert read_comparison(folder).findings["onset"] == made.findings["onset"] == 2
    assert (folder / "cka_heatmap.png").read_bytes().startswith(b"\x89PNG")
    summary = find_runs(folder.parent)[0]
    assert (summary.command, summary.finished) == ("compare", True)


def test_the_config_says_both_models_and_repeats_the_run(engine, kept, request_):
    folder, made = kept
    config = json.loads((folder / "compare_config.json").read_text())
    assert config["model"]["weights_sha256"] != config["donor"]["weights_sha256"]
    assert config["settings"]["bonafide_index"] == 0 and config["versions"]["torch"]
    again = request_from_config(config)
    assert (again.model, again.donor, again.manifest) == (request_.model, request_.donor, request_.manifest)
    assert_same(again.run(engine, out=None), made)
    with pytest.raises(InterpError, match="give that of a comparison"):
        request_from_config({"command": "patch"})


def test_a_killed_run_goes_on_from_its_records_to_the_same_files(engine, request_, kept, tmp_path):
    folder, made = kept
    out = tmp_path / "run"

    def kill(done, total, note):
        if note.startswith("transplants") and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        request_.run(engine, out=out, progress=kill)
    before = (out / RECORDS).read_bytes()
    assert before and json.loads((out / "identical_parts.json").read_text())["notes"]
    with pytest.raises(InterpError, match="already holds a run"):
        request_.run(engine, out=out)
    with pytest.raises(InterpError, match="not finished"):
        read_comparison(out)
    again = request_.run(engine, out=out, resume=True)
    assert (out / RECORDS).read_bytes() == (folder / RECORDS).read_bytes()
    assert (out / RECORDS).read_bytes().startswith(before)
    assert_same(again, made)
    for name in TABLES.values():
        if (folder / name).exists():
            assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_records_of_an_earlier_run_are_used_and_not_made_again(engine, request_, tmp_path):
    out = tmp_path / "run"
    request_.run(engine, out=out)
    lines = [json.loads(line) for line in (out / RECORDS).read_text().splitlines()]
    lines[0]["logits"] = [7.0, -7.0]
    (out / RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = request_.run(engine, out=out, resume=True)
    rows = again.scores[(again.scores["model"] == lines[0]["model"]) & (again.scores["clip_id"] == lines[0]["clip_id"])]
    assert rows["score"].item() == 14.0


def test_a_pilot_is_spread_over_the_manifest(engine, request_):
    ready = prepare(engine, replace(request_, pilot=6))
    assert len(ready.question.clips) == 6
    assert {clip.label("label") for clip in ready.question.clips} == {"bonafide", "spoof"}
    with pytest.raises(InterpError, match="a pilot of 2 clips"):
        prepare(engine, replace(request_, pilot=2))


def test_a_matrix_without_values_is_drawn_with_dashes(kept):
    cka = kept[1].cka.assign(unbiased=float("nan"))
    texts = {text.get_text() for text in cka_figure(cka, "nothing").axes[0].texts}
    assert texts == {"–"}


# ---- bundled pairs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def demos(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "ASSETS", write_spoof_demo(tmp_path / "assets", run=False, speakers=2))
    bundled.demos.cache_clear()
    yield tmp_path / "assets"
    bundled.demos.cache_clear()


def test_a_bundled_model_knows_its_counterpart_its_clips_and_its_further_pairs(demos, engine):
    assert [pair.name for pair in bundled_pairs()] == list(PAIRS)
    assert counterpart(BASE) == DONOR and counterpart(DONOR) == BASE and counterpart("other") == ""
    asked = resolve(CompareRequest(BASE))
    assert (asked.donor, asked.manifest) == (DONOR, str(demos / BASE / "manifest.csv"))
    frozen = pairs_of(BASE)[1]
    asked = resolve(CompareRequest(frozen.base, donor=frozen.donor))
    assert asked.manifest == str(demos / BASE / "manifest.csv")
    assert len(prepare(engine, asked).question.null) == 4


def test_a_demo_with_one_pair_names_its_counterpart_alone(demos):
    about = json.loads((demos / BASE / "demo.json").read_text())
    del about["compare"]
    (demos / BASE / "demo.json").write_text(json.dumps({**about, "counterpart": DONOR}))
    bundled.demos.cache_clear()
    assert [(pair.base, pair.donor) for pair in bundled_pairs()] == [(BASE, DONOR)]


def test_a_model_without_counterpart_or_clips_says_what_to_give():
    with pytest.raises(InterpError, match="--donor MODEL"):
        resolve(CompareRequest("some/model"))
    with pytest.raises(InterpError, match="--manifest clips.csv"):
        resolve(CompareRequest("some/model", donor="other/model"))
