"""The checks before a run: they pass on a right engine, and each way of breaking an edit makes one of them fail."""

import re
from dataclasses import replace

import pytest
import torch

from interp_core.__main__ import main
from interp_core.cli import CHECK_FAILED, DONE
from interp_core.errors import CheckFailed, InterpError
from interp_core.experiments import checks
from interp_core.experiments.checks import run_checks
from interp_core.experiments.patching.chunks import patches_of
from interp_core.experiments.patching.experiment import check
from interp_core.trace import sweep as sweep_module
from interp_core.trace.clean import CleanRun
from interp_core.trace.patch import Patch
from tests.corpus import write_corpus

SELF, WHOLE, PREFIX, SAME = "self-patch", "whole donor", "prefix", "fast (shortcut) = reference"


@pytest.fixture
def run(ready):
    """Run the checks on the first pairs of the shared run."""
    first = patches_of(ready.plan, ready.store, ready.plan.chunks[0])[0]
    made, prompt = ready.plan, ready.request.prompts[0]
    return lambda: run_checks(ready.store, made.pairs.pairs, made.labels[0], prompt, first, made.spec)


def failures(error):
    return {(row["check"], row.get("method")) for row in error.report["self_patch"]["checks"] if not row["passed"]}


def test_all_checks_pass_on_a_right_engine_with_their_numbers(run):
    report = run()
    assert report.self_patch["passed"] and report.self_patch["tolerance"] == 1e-4
    done = {(row["check"], row.get("method")) for row in report.self_patch["checks"]}
    assert done >= {(SELF, "reference"), (WHOLE, "reference"), (WHOLE, "wavefront"), (PREFIX, "shortcut"), (SAME, None)}
    for row in report.self_patch["checks"]:
        assert row["passed"] and 0 <= row["max_difference"] <= row["allowed"]
        assert len(row["by_layer"]) == 6 and max(row["by_layer"]) == pytest.approx(row["max_difference"], abs=1e-7)


def test_the_audio_spans_are_reported_with_the_tokens_around_them(run, ready):
    report = run().audio_span
    assert report["passed"] and len(report["clips"]) == 5
    for row in report["clips"]:
        clip = next(c for c in ready.manifest.clips if c.clip_id == row["clip"])
        ids = ready.store.prompted(clip, ready.request.prompts[0]).token_ids
        assert row["audio_positions"] == int((ids == ready.store.subject.audio_token_id).sum())
        assert row["tokens_before"][-1] == "<|audio_bos|>" and row["tokens_after"][0] == "<|audio_eos|>"
        assert row["tokens_in_span"] == ["<|AUDIO|>"]
        seconds = len(ready.store.samples(clip)) / 16_000
        assert abs(row["audio_seconds"] - seconds) <= 0.04


@pytest.mark.parametrize("site", ["attn_out", "mlp_out", "head_out", "head_out:3"])
def test_they_pass_at_every_site(engine, plain, site):
    report, _ = check(engine, replace(plain, site=site))
    assert report.self_patch["passed"]
    [compared] = [row for row in report.self_patch["checks"] if "= reference" in row["check"]]
    assert compared["check"] == "fast (wavefront) = reference" and len(compared["by_layer"]) == 5


def test_an_edit_that_does_nothing_is_caught_by_the_whole_donor(run, monkeypatch):
    monkeypatch.setattr(Patch, "mix", lambda self, own, *rest: own)
    with pytest.raises(CheckFailed) as caught:
        run()
    assert failures(caught.value) == {(WHOLE, "reference"), (WHOLE, "wavefront"), (SAME, None)}, (
        "a self-patch that does nothing is right, and the shortcut does not mix"
    )
    message = str(caught.value)
    assert message.startswith("the pre-run checks failed, so nothing was swept: whole donor (reference) is off by ")
    off, allowed = (float(re.search(rf"{words} ([\d.e+-]+\d)", message)[1]) for words in ("off by", "allowed"))
    [row] = [row for row in caught.value.report["self_patch"]["checks"] if row.get("method") == "reference"][1:]
    assert off == pytest.approx(row["max_difference"], rel=0.1) and allowed < 0.01 < off


def test_an_edit_that_shifts_what_it_replaces_is_caught_by_the_self_patch(run, monkeypatch):
    right = Patch.mix
    monkeypatch.setattr(Patch, "mix", lambda self, *rest: right(self, *rest) + 0.05)
    with pytest.raises(CheckFailed) as caught:
        run()
    assert {(SELF, "reference"), (SELF, "wavefront"), (WHOLE, "reference")} <= failures(caught.value)


def test_states_of_another_layer_are_caught(run, monkeypatch):
    monkeypatch.setattr(CleanRun, "at", lambda self, kind, layer: self.resid[min(layer + 2, len(self.resid) - 1)])
    with pytest.raises(CheckFailed) as caught:
        run()
    found = failures(caught.value)
    assert (WHOLE, "wavefront") in found and (WHOLE, "reference") not in found, "only the fast route reads clean runs"


def test_a_shortcut_that_reads_the_recipients_keys_is_caught_by_the_reference(run, monkeypatch):
    right = sweep_module._runner

    def wrong(subject, patches, route, rows):
        return right(subject, [replace(p, donor=p.recipient) for p in patches], route, rows)

    monkeypatch.setattr(sweep_module, "_runner", wrong)
    with pytest.raises(CheckFailed) as caught:
        run()
    assert failures(caught.value) == {(SAME, None)}
    rows = {row["check"]: row for row in caught.value.report["self_patch"]["checks"]}
    assert rows[SAME]["max_difference"] > 100 * rows[SAME]["allowed"]


def test_numbers_that_are_none_do_not_pass(run, monkeypatch):
    monkeypatch.setattr(Patch, "mix", lambda self, own, *rest: own * float("nan"))
    with pytest.raises(InterpError, match="edited becomes NaN or infinite in float32 .* from layer 0 on"):
        run()


def test_half_precision_is_allowed_more():
    assert checks.TOLERANCE[torch.float32] < checks.TOLERANCE[torch.float16] < checks.TOLERANCE[torch.bfloat16]


@pytest.fixture
def command(tiny_folder, tmp_path):
    manifest = write_corpus(tmp_path / "clips", texts=2)
    shared = ["--model", str(tiny_folder), "--manifest", str(manifest), "--device", "cpu", "--max-pairs", "2"]
    return [
        *shared,
        "--kinds",
        "prosody",
        "--controls",
        "none",
        "--flow",
        "none",
    ]  # of the last two check knows nothing


def test_a_broken_edit_ends_the_command_with_code_1_its_numbers_and_its_report(command, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    monkeypatch.setattr(Patch, "mix", lambda self, own, *rest: own)
    assert main(["patch", *command, "--out", str(out)]) == CHECK_FAILED == 1
    said = capsys.readouterr().err
    assert re.search(r"check failed: .*whole donor \(reference\) is off by \d", said) and "Traceback" not in said
    assert not list(out.glob("*records*")) and not list(out.glob("*metrics*")), "nothing was swept"
    assert '"passed": false' in (out / "sanity_check_self_patch.json").read_text()
    assert main(["check", *command[:-4]]) == 1
    assert "whole donor" in capsys.readouterr().err
    assert main(["patch", *command, "--out", str(tmp_path / "all the same"), "--no-checks"]) == DONE


def test_the_check_command_prints_spans_and_numbers(command, capsys):
    assert main(["check", *command[:-4]]) == DONE
    lines = capsys.readouterr().out.splitlines()
    spans = [line for line in lines if re.match(r"t\d-\w+: \d+ positions, audio \d+-\d+ \(\d\.\d+ s\), after ", line)]
    assert len(spans) >= 3 and all("<|audio_bos|>" in line for line in spans)
    passed = [line for line in lines if re.match(r"passed  .*: [\d.e-]+, allowed [\d.e-]+$", line)]
    assert len(spans) + len(passed) == len(lines) and len(passed) >= 6
