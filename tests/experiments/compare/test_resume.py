"""A comparison that was killed goes on where it stood: no finished batch runs again, and the files end up the same."""

import json
import os
import signal
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_core.__main__ import main
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments import cost as costs
from interp_core.experiments.compare.experiment import COMPARE
from interp_core.experiments.compare.patch import RECORDS
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.compare.run import probed_transplants
from interp_core.experiments.experiment import run
from interp_core.jobs import Cancelled
from interp_core.models.countermeasure.subject import SpoofDetector
from interp_core.storage import sealed_bytes
from tests.processes import Command
from tests.spoof_pairs import save_pair, write_spoof_corpus

ROOT = Path(__file__).resolve().parents[3]
BATCHES = 4  # 16 clips by 5
CLEAN_EACH = 2  # forward passes of a batch of the first pass: one of each model
COST = 4  # of the estimate: a pass that warms up and one that is timed, of each model
CLEAN, TRANSPLANTS, PROBES = "both models as they are", "transplants", "domain probe"


@pytest.fixture(scope="module")
def engine():
    return Engine(cache_bytes=1 << 28)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return save_pair(tmp_path_factory.mktemp("pair"), "tuned")


@pytest.fixture(scope="module")
def request_(pair, tmp_path_factory):
    """Every kind of transplant; probes of 10 of 16 clips, so that representations are kept of some clips only; CKA
    that folds twice on the way."""
    manifest = write_spoof_corpus(tmp_path_factory.mktemp("corpus"), speakers=4, utterances=1, codecs=("NONE", "C01"))
    return CompareRequest(
        str(pair[0]), str(manifest), device="cpu", donor=str(pair[1]), batch_size=5, patch=("auto:1", "each"),
        maps=("mean", "ridge", "procrustes"), probe_draws=0, probe_clips=10, cka_bytes=3 * (1 << 16),
    )  # fmt: skip


@pytest.fixture(scope="module")
def transplants(engine, request_):
    return COMPARE.prepare(engine, request_).plan.transplants([0.0, 1.0, 2.0, 3.0])


@pytest.fixture(scope="module")
def patched_each(transplants):
    """Forward passes of a batch of the second pass: each model gives once, and each transplant runs once."""
    return 2 + len(transplants)


@pytest.fixture(scope="module")
def checks(transplants):
    """Forward passes of the checks, which are made again: the base as it is, with its own activation at every site,
    and for the logits' own check the donor as it is and its logits in the base."""
    return 1 + len({site for one in transplants if not one.reverse for site in one.sites}) + 2


@pytest.fixture
def passes(monkeypatch):
    """How many clips each forward pass of either model took, as they come."""
    seen: list[int] = []
    honest = SpoofDetector.forward

    def counted(self, inputs):
        seen.append(len(inputs["waveform"]))
        return honest(self, inputs)

    monkeypatch.setattr(SpoofDetector, "forward", counted)
    return seen


@pytest.fixture(scope="module")
def whole(engine, request_, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(COMPARE, engine, request_, out=out)
    return out


def files_of(folder):
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    config = json.loads(found.pop("compare_config.json"))
    assert config.pop("created") and config.pop("finished")
    return {**found, "config": config}


def killed(engine, request, out, what, at, resume=False):
    """Run until progress reports `what` for the `at`-th time."""
    count = 0

    def kill(done, total, note):
        nonlocal count
        count += note.startswith(what)
        if count == at:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(COMPARE, engine, request, out=out, resume=resume, progress=kill)


def resumed(engine, request, out, passes):
    """The forward passes that it takes to go on to the end."""
    passes.clear()
    run(COMPARE, engine, request, out=out, resume=True)
    return len(passes)


def chunks(folder):
    return sorted(path.name for path in folder.glob("chunk_*"))


def test_an_uninterrupted_run_takes_the_passes_counted_here_and_leaves_no_chunk(
    engine, request_, whole, passes, patched_each, checks, tmp_path
):
    run(COMPARE, engine, request_, out=tmp_path / "run")
    assert len(passes) == BATCHES * CLEAN_EACH + checks + BATCHES * patched_each
    assert files_of(tmp_path / "run") == files_of(whole)
    assert chunks(whole) == []
    cka = (whole / "cka.csv").read_text().splitlines()
    assert int(cka[1].split(",")[-1]) > 1  # minibatches: the limit on memory made it fold


def test_killed_in_the_first_pass_it_runs_the_batches_that_were_not_done(
    engine, request_, whole, passes, patched_each, checks, tmp_path
):
    out = tmp_path / "run"
    killed(engine, request_, out, CLEAN, 2)
    assert len(passes) == 2 * CLEAN_EACH
    assert chunks(out) == [
        "chunk_clean_000000.npz", "chunk_clean_000001.npz", "chunk_sums_000000.npz", "chunk_sums_000001.npz",
    ]  # fmt: skip
    killed(engine, request_, out, CLEAN, 3, resume=True)
    assert resumed(engine, request_, out, passes) == CLEAN_EACH + checks + BATCHES * patched_each
    assert passes[:CLEAN_EACH] == [1, 1]  # the last batch, of one clip
    assert files_of(out) == files_of(whole)


def test_killed_in_the_second_pass_it_runs_no_finished_batch_of_either(
    engine, request_, whole, passes, transplants, patched_each, checks, tmp_path
):
    out = tmp_path / "run"
    killed(engine, request_, out, TRANSPLANTS, 2 * len(transplants) + 3)  # in the third batch
    before = (out / RECORDS).read_bytes()
    assert before.count(b"\n") == 2 * 5 * len(transplants)
    assert resumed(engine, request_, out, passes) == checks + 2 * patched_each
    assert (out / RECORDS).read_bytes().startswith(before)
    assert files_of(out) == files_of(whole)


def test_killed_behind_both_passes_it_runs_the_cost_and_the_checks_alone(
    engine, request_, whole, passes, checks, tmp_path, monkeypatch
):
    monkeypatch.setattr(costs, "MOST_TIMES", 1)  # each model once to warm up and once on the clock
    out, said = tmp_path / "run", []
    killed(engine, request_, out, PROBES, 2)
    passes.clear()
    run(COMPARE, engine, request_, out=out, resume=True, announce=said.append)
    assert len(passes) == COST + checks and len(said) == 1
    assert files_of(out) == files_of(whole)


def test_a_chunk_that_is_cut_short_is_computed_again_and_nothing_else(
    engine, request_, whole, passes, transplants, checks, tmp_path
):
    ready = COMPARE.prepare(engine, request_)
    done, of_choice = tmp_path / "done", ready.plan.units.chosen_on
    killed(engine, request_, done, PROBES, 2)
    probed = len(probed_transplants(transplants))
    assert 0 < probed < len(transplants)
    mapped = [number for number, rows in enumerate(ready.plan.planned) if of_choice[list(rows)].any()]
    latest = f"sums_{(len(mapped) - 1) % 2:06}"
    for cut, expected in (
        (["clean_000001"], CLEAN_EACH),
        (["read_000000"], 1 + probed),  # the donor gives; what is probed goes into the base
        ([latest], CLEAN_EACH),  # the state before it is one batch behind
        (["sums_000000", "sums_000001"], len(mapped) * CLEAN_EACH),
        (["clean_000000", "read_000001"], CLEAN_EACH + 1 + probed),
    ):
        out = tmp_path / "-".join(cut)
        out.mkdir()
        for path in done.iterdir():
            (out / path.name).write_bytes(path.read_bytes())
        for name in cut:
            with open(out / f"chunk_{name}.npz", "r+b") as file:
                file.truncate(file.seek(0, os.SEEK_END) // 2)
        assert resumed(engine, request_, out, passes) == expected + checks, cut
        assert files_of(out) == files_of(whole), cut


def test_what_a_chunk_holds_is_what_the_result_is_made_of(engine, request_, tmp_path):
    out = tmp_path / "run"
    killed(engine, request_, out, PROBES, 2)
    file = out / "chunk_clean_000000.npz"
    with np.load(file) as kept:
        arrays = {name: kept[name] for name in kept.files}
    assert all(array.ndim == 2 and array.dtype == np.float32 for array in arrays.values())  # no map of positions
    arrays["base, logits"][0] = (7.0, -7.0)
    np.savez(changed := BytesIO(), **arrays)
    file.write_bytes(sealed_bytes(changed.getvalue()))
    made = run(COMPARE, engine, request_, out=out, resume=True)
    assert made.scores[made.scores["model"] == "base"]["score"].iloc[0] == 14.0


def test_other_settings_are_refused_by_name(engine, request_, tmp_path):
    out = tmp_path / "run"
    killed(engine, request_, out, CLEAN, 2)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for name, old, new in (("batch_size", 5, 4), ("cka_bytes", 3 * (1 << 16), 1 << 20), ("probe_clips", 10, 11)):
        with pytest.raises(InterpError, match=rf"other settings: settings\.{name} was {old}, is {new}\."):
            run(COMPARE, engine, replace(request_, **{name: new}), out=out, resume=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


# ---- a real kill -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command(pair, tmp_path_factory):
    """A run of 32 batches, without its --out."""
    manifest = write_spoof_corpus(tmp_path_factory.mktemp("many"), codecs=("NONE", "C01"))
    return [
        "compare", "--model", str(pair[0]), "--donor", str(pair[1]), "--manifest", str(manifest), "--device", "cpu",
        "--batch-size", "1", "--patch", "auto:1", "--stages", "mixed,logits", "--transplants", "ridge",
        "--probe-draws", "0",
    ]  # fmt: skip


def kill_when(arguments, out, ready):
    """Start a process and kill it as soon as `ready()`."""
    # As many threads as here: sums are split among them, which shows in the last digit.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = Command([*arguments, "--out", str(out)], env=environment)
    end = time.monotonic() + 240
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it never got that far"
        time.sleep(0.002)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL


def lines(out):
    return (out / RECORDS).read_bytes().count(b"\n") if (out / RECORDS).exists() else 0


@pytest.mark.slow
def test_a_process_killed_in_the_middle_of_each_pass_ends_with_the_files_of_one_that_was_not(
    command, tmp_path, passes, capsys
):
    out, whole = tmp_path / "broken off", tmp_path / "whole"
    assert main([*command, "--out", str(whole)]) == 0
    each = lines(whole) // 32  # transplants
    in_all = len(passes)

    kill_when(command, out, lambda: (out / "chunk_clean_000003.npz").exists())
    clean = len(list(out.glob("chunk_clean_*.npz")))
    assert 4 <= clean < 32 and lines(out) == 0
    kill_when([*command, "--resume"], out, lambda: lines(out) >= 4 * each)
    assert len(list(out.glob("chunk_clean_*.npz"))) == 32
    done = lines(out) // each
    assert 4 <= done < 32

    passes.clear()
    assert main([*command, "--out", str(out), "--resume"]) == 0
    # Cost and checks are made again; of the first pass nothing runs; a batch of the second is both givers and `each`.
    assert len(passes) == in_all - 32 * CLEAN_EACH - done * (2 + each)
    assert files_of(out) == files_of(whole)
    assert chunks(out) == []
