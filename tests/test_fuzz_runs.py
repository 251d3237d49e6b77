"""Mutated config files and damaged run folders: one sentence, never another exception. The long form: benchmarks/."""

import json
import os
import shutil

import pytest

from benchmarks import fuzz_configs, fuzz_runs, fuzzing
from interp_core.__main__ import main
from interp_core.api import open_run
from interp_core.cli import BAD_INPUT
from interp_core.errors import InterpError
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models.bundled import demos
from interp_core.options import from_config
from interp_core.runs import WRITTEN


def test_mutated_configs_are_requests_or_refused_in_a_sentence(tmp_path):
    tally = fuzzing.run(fuzz_configs.cases(tmp_path, 200, 0))
    assert tally.faults == [] and min(tally.counts["fine"], tally.counts["refused"]) > 30, str(tally)


def test_damaged_run_folders_are_refused_in_a_sentence(tmp_path):
    tally = fuzzing.run(fuzz_runs.cases(tmp_path, 60, 0))
    assert tally.faults == [] and tally.counts["refused"] > 30, str(tally)


@pytest.mark.parametrize(
    "setting, value, said",
    [
        ("seed", "4", "--seed '4' is not a whole number"),
        ("seed", True, "--seed True is not a whole number"),
        ("labels", "yes,no", "--labels 'yes,no' is no list"),
        ("labels", ["yes", 1], "--labels 1 is not a text"),
        ("alphas", [None], "--alpha None is not a number"),
        ("skip_bad", "yes", "--skip-bad 'yes' is not yes or no"),
        ("max_pairs", {"prosody": "many"}, "--max-pairs {'prosody': 'many'} is no such setting"),
        ("model", None, "--model is missing"),
    ],
)
def test_a_setting_of_another_kind_is_named_with_what_was_expected(setting, value, said):
    with pytest.raises(InterpError) as refused:
        from_config(PatchRequest, {setting: value, "batch_size": 1.5})
    assert said in str(refused.value) and "--batch-size 1.5 is not a whole number" in str(refused.value)
    with pytest.raises(InterpError) as refused:
        PatchRequest(**{"model": "m", setting: value}).check()
    assert said in str(refused.value)


def test_good_values_of_every_setting_are_taken():
    for made in (PatchRequest("m", max_pairs={"a": 1}, alphas=(1, 0.5), layers=(0,)), CompareRequest("m", cka_bytes=5)):
        made.check()
    with pytest.raises(InterpError, match="seconds inf"):
        PatchRequest("m", max_seconds=float("inf")).check()


@pytest.mark.parametrize("given", ["", "  "])
def test_an_empty_out_writes_nothing_into_the_current_folder(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["patch", "--model", "demo-emotion", "--out", given]) == BAD_INPUT
    assert "--out is empty" in capsys.readouterr().err and not os.listdir(tmp_path)


@pytest.mark.parametrize("digests, said", [(True, "changed since"), (False, "cannot be read as CSV")])
def test_an_empty_table_of_a_finished_run_is_named(digests, said, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(demos()["demo-emotion-wavlm"].folder / "run-signflip", out)
    if not digests:  # as runs of earlier versions
        config = json.loads((out / "signflip_config.json").read_text())
        del config[WRITTEN]
        (out / "signflip_config.json").write_text(json.dumps(config))
    (out / "proxy_changes.csv").write_text("")
    with pytest.raises(InterpError, match=f"proxy_changes.csv {said}"):
        open_run(out)
    (out / "proxy_changes.csv").unlink()
    with pytest.raises(InterpError, match="proxy_changes.csv cannot be read as CSV"):
        open_run(out)
