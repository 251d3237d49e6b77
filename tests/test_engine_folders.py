"""Run folders of the engine: they hold what was computed, survive kills, and repeat their run on any machine."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from interp_core.choices import DEFAULT_PROMPT
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.experiment import open_result, run, start
from interp_core.experiments.patching import run as patching_run
from interp_core.experiments.patching.experiment import PATCHING, resolve
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models import bundled
from interp_core.runs import read_config
from tests.corpus import assert_same_records, full_request, quick_request, write_corpus
from tests.tiny import LABELS


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def engine():
    return Engine()


@pytest.fixture(scope="module")
def quick(tiny_folder, corpus):
    return quick_request(tiny_folder, corpus)


@pytest.fixture(scope="module")
def full(tiny_folder, corpus):
    return full_request(tiny_folder, corpus)


@pytest.fixture(scope="module")
def kept(engine, full, tmp_path_factory):
    """A whole run as it was computed, and the folder that it wrote."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return run(PATCHING, engine, full, out=out), out


def files_of(folder):
    """Name -> bytes of every file of a run; the config without its times."""
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    config = json.loads(found.pop("patching_config.json"))
    assert config.pop("created") and config.pop("finished")
    return {**found, "config": config}


def test_a_folder_read_back_is_the_result_that_wrote_it(kept, engine):
    live, out = kept
    found = open_result(PATCHING, out)
    # A folder lists its records kind by kind and the controls last; a result in the order of computing.
    order = ["kind", "prompt", "alpha", "condition", "pair_id", "layer"]
    sort = {"by": order, "ignore_index": True}
    assert_same_records(found.records.sort_values(**sort)[live.records.columns], live.records.sort_values(**sort))
    order = ["kind", "prompt", "alpha", "condition", "layer"]
    sort = {"by": order, "ignore_index": True}
    pd.testing.assert_frame_equal(found.metrics.sort_values(**sort), live.metrics.sort_values(**sort))
    pd.testing.assert_frame_equal(found.lens, live.lens)
    pd.testing.assert_frame_equal(found.knockout, live.knockout)
    assert list(found.pairs) == list(live.pairs) and len(found.pairs) == 8
    assert found.config == live.config and found.config["finished"]
    assert found.labels == live.labels == LABELS and found.prompts == live.prompts
    assert set(found.reports) == set(live.reports) and len(found.reports) == 4
    for name in set(live.reports) - {"pair_construction_report"}:
        assert found.reports[name] == json.loads(json.dumps(live.reports[name]))


def test_a_folder_holds_the_files_that_are_promised(kept):
    names = {path.name for path in kept[1].iterdir()}
    expected = {"patching_config.json", "tokenization_report.json", "pair_construction_report.json"}
    expected |= {"sanity_check_self_patch.json", "sanity_check_audio_span.json", "logit_lens.csv", "knockout.csv"}
    for kind in ("prosody", "semantic"):
        expected |= {f"pair_list_{kind}.jsonl", f"patching_records_{kind}.jsonl", f"patching_metrics_{kind}.csv"}
        expected |= {f"control_records_{kind}.jsonl", f"control_metrics_{kind}.csv"}
        expected |= {f"flip_rate_curve_{kind}.png", f"delta_logit_curve_{kind}.png"}
    assert names == expected


class Killed(BaseException):
    """Nothing in the engine catches it, as nothing catches a kill."""


def killed_after(steps):
    count = 0

    def progress(done, total, note):
        nonlocal count
        count += 1
        if count > steps:
            raise Killed

    return progress


def test_a_run_that_was_killed_again_and_again_ends_with_the_same_files(kept, full, tmp_path):
    out = tmp_path / "killed"
    for steps in (1, 4, 9, 30):
        with pytest.raises(Killed):
            run(PATCHING, Engine(), full, out=out, resume=True, progress=killed_after(steps))
        assert not read_config(out)["finished"]
        with open(out / "patching_records_prosody.jsonl", "ab") as file:
            file.write(b'{"chunk": 3, "kind": "pros')  # what a kill in the middle of a line leaves
    computed = []
    resumed = run(PATCHING, Engine(), full, out=out, resume=True, progress=lambda *step: computed.append(step))
    assert files_of(out) == files_of(kept[1])
    assert_same_records(resumed.records, kept[0].records)
    pd.testing.assert_frame_equal(resumed.metrics, kept[0].metrics)


def test_what_was_kept_is_not_computed_again(quick, tmp_path, monkeypatch):
    out, computed, quick = tmp_path / "run", [], replace(quick, batch_size=1)
    right = patching_run.run_chunk

    def counting(plan, store, chunk):
        computed.append(chunk.number)
        return right(plan, store, chunk)

    monkeypatch.setattr(patching_run, "run_chunk", counting)
    with pytest.raises(Killed):
        run(PATCHING, Engine(), quick, out=out, progress=killed_after(3))
    assert computed == [0, 1, 2]
    run(PATCHING, Engine(), quick, out=out, resume=True)
    assert computed == [0, 1, 2, 3, 4, 5], "each chunk was computed once"


def test_a_cancelled_job_goes_on_where_it_stopped(full, kept, tmp_path):
    engine = Engine()
    job = start(PATCHING, engine, full, tmp_path)
    while job.done < 3 and job.active:
        job.wait(0.01)
    job.cancel()
    assert job.wait(300) and job.status == "cancelled"
    [folder] = tmp_path.iterdir()
    assert folder.name == f"patch-model-{engine.key_of(full)}" and not read_config(folder)["finished"]
    again = start(PATCHING, engine, full, tmp_path)
    assert again.wait(120) and again.status == "done", again.error
    assert files_of(folder) == files_of(kept[1])


def test_a_config_repeats_its_run(kept, engine):
    live, out = kept
    config = json.loads((out / "patching_config.json").read_text())
    again = run(PATCHING, engine, PatchRequest.from_config(config))
    assert_same_records(again.records, live.records)
    pd.testing.assert_frame_equal(again.metrics, live.metrics)
    unlike = run(PATCHING, engine, replace(PatchRequest.from_config(config), seed=1))
    assert unlike.records.pair_id.tolist() != [] and not unlike.records.equals(live.records)


@pytest.mark.parametrize(
    "config, said",
    [
        ({}, "the config is one of None; give that of a 'patch' run"),
        ({"command": "compare"}, "the config is one of 'compare'"),
        (
            {"command": "patch", "settings": {}, "clip_seconds": {"max": 30}, "model": {"id": "x"}},
            "'manifest' is missing",
        ),
        ({"command": "patch", "model": "x"}, "is missing or wrong"),
    ],
)
def test_a_config_of_something_else_is_refused(config, said):
    with pytest.raises(InterpError, match=said):
        PatchRequest.from_config(config)


# ---- bundled models --------------------------------------------------------------------------------------------------


@pytest.fixture
def demo(tmp_path, tiny_folder, monkeypatch):
    """A bundled model named demo-tiny, with three prompts and clips of its own."""
    folder = tmp_path / "assets" / "demo-tiny"
    write_corpus(folder).rename(folder / "manifest.csv")
    shutil.copytree(tiny_folder, folder / "model")
    prompts = [{"name": "default", "text": DEFAULT_PROMPT}, {"name": "b", "text": "B?"}, {"name": "c", "text": "C?"}]
    about = {"title": "Tiny", "description": "", "labels": LABELS[:3], "prompts": prompts}
    (folder / "demo.json").write_text(json.dumps(about))
    monkeypatch.setattr(bundled, "ASSETS", folder.parent)
    bundled.demos.cache_clear()
    yield PatchRequest("demo-tiny", device="cpu", max_pairs=2, pilot=1, controls=(), flow=())
    bundled.demos.cache_clear()


def test_a_bundled_model_brings_its_clips_labels_and_prompts(demo, engine):
    found = resolve(engine, demo)
    assert engine.manifest_path(found).name == "manifest.csv" and found.labels == LABELS[:3]
    assert found.prompts == (DEFAULT_PROMPT, "B?", "C?")
    assert resolve(engine, found) == found and found.key == resolve(engine, demo).key
    assert engine.demo("demo-tiny").title == "Tiny" and engine.demo("other") is None


def test_a_persons_own_clips_are_asked_the_bundled_models_first_prompt(demo, engine, corpus):
    found = resolve(engine, replace(demo, manifest=str(corpus)))
    assert found.prompts == (DEFAULT_PROMPT,) and found.labels == LABELS[:3]
    assert found.manifest == str(corpus)


def test_prompts_that_are_given_stay_even_where_they_are_the_default(demo, quick, engine):
    one = replace(demo, prompts=("Own?",))
    assert resolve(engine, one).prompts == ("Own?",)
    assert resolve(engine, replace(demo, prompts=(DEFAULT_PROMPT,))).prompts == (DEFAULT_PROMPT,)
    no_demo = resolve(engine, PatchRequest(quick.model, quick.manifest))
    assert no_demo.prompts == (DEFAULT_PROMPT,)


def test_a_bundled_models_config_is_the_same_on_every_machine(demo, engine, tmp_path):
    for asked, prompts in ((demo, 3), (replace(demo, prompts=(DEFAULT_PROMPT,)), 1)):
        live = run(PATCHING, Engine(), asked)
        config = json.loads(json.dumps(live.config))
        assert config["manifest"]["path"] is None and config["model"]["id"] == "demo-tiny"
        assert str(tmp_path) not in json.dumps(config)
        again = run(PATCHING, Engine(), PatchRequest.from_config(config))
        assert len(again.prompts) == prompts
        assert_same_records(again.records, live.records)


def test_a_persons_own_manifest_stands_in_the_config_as_it_was_given(quick, engine, demo, corpus):
    assert PATCHING.prepare(engine, quick).config["manifest"]["path"] == quick.manifest
    assert PATCHING.prepare(engine, replace(demo, manifest=str(corpus))).config["manifest"]["path"] == str(corpus)
