"""Comparisons as they are asked for and kept: a folder that reads back, configs that repeat, runs that go on."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.compare.bundled import bundled_pairs, counterpart, pairs_of
from interp_core.experiments.compare.experiment import COMPARE, resolve
from interp_core.experiments.compare.figures import cka_figure
from interp_core.experiments.compare.files import TABLES
from interp_core.experiments.compare.patch import RECORDS
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.experiment import open_result, run
from interp_core.models import bundled
from interp_core.runs import find_runs
from interp_core.storage import SEAL
from tests.pages.tiny_spoof import BASE, DONOR, PAIRS, write_spoof_demo
from tests.spoof_pairs import save_pair, write_spoof_corpus

QUICK = {"patch": ("auto:1",), "stages": ("mixed", "logits"), "maps": ("mean",), "domain": "none", "batch_size": 5}


@pytest.fixture(scope="module")
def engine():
    return Engine(cache_bytes=1 << 28)


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    base, donor = save_pair(folder, "tuned")
    manifest = write_spoof_corpus(folder / "clips", speakers=4, utterances=1, codecs=("NONE", "C01"))
    return CompareRequest(str(base), str(manifest), device="cpu", donor=str(donor), **QUICK)


@pytest.fixture(scope="module")
def kept(engine, request_, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "compare"
    return folder, run(COMPARE, engine, request_, out=folder)


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
    assert_same(open_result(COMPARE, folder), made)
    assert open_result(COMPARE, folder).findings["onset"] == made.findings["onset"] == 2
    assert (folder / "cka_heatmap.png").read_bytes().startswith(b"\x89PNG")
    summary = find_runs(folder.parent)[0]
    assert (summary.command, summary.finished) == ("compare", True)


def test_the_config_says_both_models_and_repeats_the_run(engine, kept, request_):
    folder, made = kept
    config = json.loads((folder / "compare_config.json").read_text())
    assert config["model"]["weights_sha256"] != config["donor"]["weights_sha256"]
    assert config["settings"]["bonafide_index"] == 0 and config["versions"]["torch"]
    again = CompareRequest.from_config(config)
    assert (again.model, again.donor, again.manifest) == (request_.model, request_.donor, request_.manifest)
    assert_same(run(COMPARE, engine, again, out=None), made)
    with pytest.raises(InterpError, match="give that of a 'compare' run"):
        CompareRequest.from_config({"command": "patch"})


def test_a_killed_run_goes_on_from_its_records_to_the_same_files(engine, request_, kept, tmp_path):
    folder, made = kept
    out = tmp_path / "run"

    def kill(done, total, note):
        if note.startswith("transplants") and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(COMPARE, engine, request_, out=out, progress=kill)
    before = (out / RECORDS).read_bytes()
    assert before and json.loads((out / "identical_parts.json").read_text())["notes"]
    with pytest.raises(InterpError, match="already holds a run"):
        run(COMPARE, engine, request_, out=out)
    with pytest.raises(InterpError, match="not finished"):
        open_result(COMPARE, out)
    again = run(COMPARE, engine, request_, out=out, resume=True)
    assert (out / RECORDS).read_bytes() == (folder / RECORDS).read_bytes()
    assert (out / RECORDS).read_bytes().startswith(before)
    assert_same(again, made)
    for name in TABLES.values():
        if (folder / name).exists():
            assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_records_of_an_earlier_run_are_used_and_not_made_again(engine, request_, tmp_path):
    out = tmp_path / "run"
    run(COMPARE, engine, request_, out=out)
    lines = [json.loads(line) for line in (out / RECORDS).read_text().splitlines()]
    for line in lines:
        line.pop(SEAL, None)  # records of before there were checksums
    lines[0]["logits"] = [7.0, -7.0]
    (out / RECORDS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = json.loads((out / "compare_config.json").read_text())
    (out / "compare_config.json").write_text(json.dumps({**config, "finished": None}))
    again = run(COMPARE, engine, request_, out=out, resume=True)
    rows = again.scores[(again.scores["model"] == lines[0]["model"]) & (again.scores["clip_id"] == lines[0]["clip_id"])]
    assert rows["score"].item() == 14.0


def test_a_pilot_is_spread_over_the_manifest(engine, request_):
    ready = COMPARE.prepare(engine, replace(request_, pilot=6))
    assert len(ready.plan.clips) == 6
    assert {clip.label("label") for clip in ready.plan.clips} == {"bonafide", "spoof"}
    with pytest.raises(InterpError, match="a pilot of 2 clips"):
        COMPARE.prepare(engine, replace(request_, pilot=2))


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
    assert {BASE, DONOR, frozen.base, frozen.donor} <= bundled.shipped() and str(demos / BASE) not in bundled.shipped()
    asked = resolve(CompareRequest(frozen.base, donor=frozen.donor))
    assert asked.manifest == str(demos / BASE / "manifest.csv")
    assert len(COMPARE.prepare(engine, asked).plan.null) == 4


def test_a_pair_of_a_demo_needs_no_name(demos):
    about = json.loads((demos / BASE / "demo.json").read_text())
    (demos / BASE / "demo.json").write_text(json.dumps({**about, "compare": [{"base": BASE, "donor": DONOR}]}))
    bundled.demos.cache_clear()
    assert [(pair.base, pair.donor) for pair in bundled_pairs()] == [(BASE, DONOR)]


def test_a_model_without_counterpart_or_clips_says_what_to_give():
    with pytest.raises(InterpError, match="--donor MODEL"):
        resolve(CompareRequest("some/model"))
    with pytest.raises(InterpError, match="--manifest clips.csv"):
        COMPARE.prepare(Engine(), CompareRequest("some/model", donor="other/model"))
