"""verify-model: every site of a model is held to its own forward, what is broken is named, and the record is listed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from interp_core.__main__ import main
from interp_core.cli import BAD_INPUT, CHECK_FAILED, DONE, parser, request_of
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.patching import verify as verifying
from interp_core.experiments.patching.check_requests import VerifyRequest
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.verify import resident_peak, sampled, verify
from interp_core.models.verified import verified
from interp_core.trace.sweep import sweep


def test_layers_are_sampled_at_both_ends_and_in_the_middle():
    assert [sampled(n) for n in (1, 2, 3, 28)] == [(0,), (0, 1), (0, 1, 2), (0, 14, 27)]


def test_every_site_is_checked_by_both_routes_and_the_record_says_on_what(engine, plain, ready):
    record = verify(engine, asked(plain))
    subject = ready.store.subject
    of_sites = {check["site"] for check in record["checks"]}
    assert record["passed"] and of_sites == set(record["sites"]) == set(subject.kinds) - {"pooled", "logits"}
    for site in of_sites:
        names = {check["check"].partition(" (")[0] for check in record["checks"] if check["site"] == site}
        assert {"self-patch", "fast"} <= names, site
    assert record["model"]["weights_sha256"] == subject.weights_hash and record["dtype"] == "float32"
    assert record["versions"]["torch"] and record["manifest"]["sha256"] and record["spans"]
    clips = record["manifest"]["clips_sha256"]
    assert {span["clip"] for span in record["spans"]} <= set(clips) < {clip.clip_id for clip in ready.manifest.clips}
    assert record["manifest"]["clips"] == record["ties"]["clips"] == len(clips)
    assert record["model"]["id"] == Path(plain.model).name, "and not where it lies on this machine"
    assert 0 < record["seconds"]["clean_pass"] < record["seconds"]["all"] and record["peak_of"].startswith("resident")
    assert json.loads(json.dumps(record)) == record


def test_the_peak_of_memory_stays_when_memory_is_given_back():
    before = resident_peak()
    held = np.ones(200 << 17)  # 200 MiB
    with_it = resident_peak()
    del held
    assert resident_peak() >= with_it >= before and with_it > psutil.Process().memory_info().rss


def asked(plain):
    return VerifyRequest(plain.model, plain.manifest, device="cpu", kinds=plain.kinds, labels=plain.labels)


@pytest.mark.parametrize("command", ["check", "verify-model"])
def test_only_what_the_checks_heed_is_taken_and_a_config_says_what_is_left_out(command, plain, tmp_path, capsys):
    line = [command, "--model", plain.model, "--manifest", str(plain.manifest), "--device", "cpu"]
    wrong = ["--controls=noise", "--flow=lens", "--map=time", "--words=5", "--method=reference", "--windows=3"]
    assert main([*line, *wrong]) == BAD_INPUT
    said = capsys.readouterr().err
    assert all(f"{one.partition('=')[0]} means nothing here: `{command}`" in said for one in wrong)
    with pytest.raises(SystemExit):
        main([command, "--help"])
    listed = capsys.readouterr().out
    assert "--kinds" in listed and not any(f"  {one.partition('=')[0]} " in listed for one in wrong)
    config = {**PATCHING.prepare(Engine(), replace(plain, maps=("time",), windows=3)).config, "finished": None}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "patching_config.json").write_text(json.dumps(config, default=str))
    args = parser().parse_args([command, "--config", str(tmp_path / "run" / "patching_config.json")])
    made = request_of(args)
    made.check()
    assert (made.kinds, made.labels, made.maps, made.windows) == (plain.kinds, plain.labels, (), None)
    assert "changes nothing here: " in (told := capsys.readouterr().err) and "--map=time" in told


def test_a_fast_route_that_is_wrong_at_one_site_fails_there_alone(engine, plain, monkeypatch):
    def off(subject, patches, labels, spec, *, method="fast"):
        found = sweep(subject, patches, labels, spec, method=method)
        if spec.kind == "mlp_out" and method == "fast":
            found = replace(found, label_logits=found.label_logits + torch.eye(*found.label_logits.shape[-2:]))
        return found

    monkeypatch.setattr(verifying, "sweep", off)
    record = verify(engine, asked(plain))
    failed = {check["site"] for check in record["checks"] if not check["passed"]}
    assert not record["passed"] and failed == {"mlp_out"}


def test_the_command_prints_each_check_writes_the_record_and_refuses_a_file_that_is_there(
    tiny_folder, corpus, tmp_path, capsys, monkeypatch
):
    file = tmp_path / "tiny.json"
    line = [
        "verify-model",
        "--model",
        str(tiny_folder),
        "--manifest",
        str(corpus),
        "--device",
        "cpu",
        "--out",
        str(file),
    ]
    line += ["--kinds", "prosody", "--labels", "happy,sad,neutral"]
    assert main(line) == DONE
    said = capsys.readouterr().out
    assert "passed  attn_out: fast (wavefront) = reference" in said and "a sweep of a pair" in said
    (record,) = verified(tmp_path)
    assert (record.model_type, record.dtype) == ("qwen2_audio", "float32") and tiny_folder.name in str(record)
    assert main(line) == BAD_INPUT and "must name a new file" in capsys.readouterr().err

    assert main([*line, "--out", ""]) == BAD_INPUT and "--out '' must name a new file" in capsys.readouterr().err

    monkeypatch.setattr(verifying, "compared", failing)
    assert main(line[:-6] + line[-4:]) == CHECK_FAILED
    assert "FAILED  attn_out" in capsys.readouterr().out


def failing(check, found, wanted, subject):
    return {"check": check, "max_difference": 1.0, "allowed": 1e-4, "passed": False}


def test_records_that_failed_are_not_listed_and_broken_ones_are_named(tmp_path):
    whole = {"passed": False, "model": {"id": "m", "type": "t"}, "dtype": "float32", "device": "cpu", "verified": "now"}
    (tmp_path / "failed.json").write_text(json.dumps(whole))
    assert list(verified(tmp_path)) == []
    (tmp_path / "good.json").write_text(json.dumps({**whole, "passed": True}))
    assert [record.name for record in verified(tmp_path)] == ["m"]
    (tmp_path / "broken.json").write_text(json.dumps({"passed": True}))
    with pytest.raises(InterpError, match="broken.json is no record of verify-model: 'model'"):
        list(verified(tmp_path))
