"""What goes wrong under a run of any experiment: it stops in a sentence and goes on to the files of a whole one."""

import csv
import errno
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from interp_core.errors import InterpError
from interp_core.experiments import EXPERIMENTS, experiment_of
from interp_core.experiments.experiment import open_result, run
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models.bundled import demos
from interp_core.runs import RunWriter, find_runs, read_config
from tests.test_resume import REQUESTS, fresh_engine, same_files

LIGHT = {
    **{name: REQUESTS[name] for name in EXPERIMENTS},
    "patch": PatchRequest("demo-emotion", kinds="prosody", max_pairs=4, batch_size=2, checks=False, layers=(1, 3),
                          controls=("random",), device="cpu", dtype="float32"),
}  # fmt: skip


def own_copy(request, folder):
    """The request over a copy of its demo's clips, which a test may break."""
    rows = list(csv.DictReader(demos()[request.model].manifest.open()))
    source = demos()[request.model].manifest.parent
    folder.mkdir()
    for number, row in enumerate(rows):
        name = f"{number}{Path(row['path']).suffix}"
        shutil.copy(source / row["path"], folder / name)
        row["path"] = name
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return replace(request, manifest=str(folder / "clips.csv"))


@contextmanager
def full_disk(monkeypatch, after):
    """A disk on which so many files, or parts of files, have room; gives the number of those that were written."""
    written = [0]

    def fsync(descriptor):
        if written[0] >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written[0] += 1

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        yield written


@contextmanager
def without_rights(folder):
    """A folder into which this process may not write, root or not."""
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def at_step(step, act):
    """Progress that acts once, at a step of the work."""
    seen = [0]

    def progress(done, total, note=""):
        seen[0] += 1
        if seen[0] == step:
            act()

    return progress


def spoil(folder):
    """Change a byte in the middle of every file of chunks, and leave half a line; how many files."""
    spoilt = [*folder.glob("chunk_*.npz"), *folder.glob("*_records*.jsonl")]
    for path in spoilt:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data) + (b'{"chunk": 0, "ki' if path.suffix == ".jsonl" else b""))
    return len(spoilt)


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(EXPERIMENTS))
def test_a_run_that_meets_every_fault_in_turn_ends_with_the_files_of_one_that_met_none(command, tmp_path, monkeypatch):
    made, engine = experiment_of(command), fresh_engine()
    request = own_copy(LIGHT[command], tmp_path / "clips")
    ready = made.prepare(engine, request)
    whole, out = tmp_path / "whole" / "run", tmp_path / "run"
    steps = [0]

    def counting(done, total, note=""):
        steps[0] += 1

    with full_disk(monkeypatch, 10**9) as written:
        run(made, engine, request, out=whole, progress=counting, ready=ready)

    def again(progress=lambda *_: None):
        engine.cache.clear()
        return run(made, engine, request, out=out, resume=True, progress=progress, ready=ready)

    for room in (written[0] // 3, written[0] // 3):  # the second comes further, by what the first has kept
        with full_disk(monkeypatch, room), pytest.raises(InterpError, match="No space left on device.; make room"):
            again()
        assert not list(out.glob(".*.tmp")) and not read_config(out)["finished"]
        with pytest.raises(InterpError, match="is not finished; go on with it"):
            open_result(made, out)

    clips, kept = Path(request.manifest).parent, tmp_path / "kept"

    def remove():
        engine.cache.clear()
        clips.rename(kept)

    def change():
        engine.cache.clear()
        shutil.copytree(clips, kept)
        for path in clips.iterdir():
            if path.suffix != ".csv":
                soundfile.write(path, np.full(16_000, 0.1), 16_000)

    def put_back():
        shutil.rmtree(clips, ignore_errors=True)
        kept.rename(clips)

    shutil.rmtree(out)
    for fault, said in ((remove, "was removed since the run was begun"), (change, "was changed .* the run was begun")):
        with pytest.raises(InterpError, match=said):
            again(at_step(max(1, steps[0] // 8), fault))
        put_back()

    def second_writer():
        with pytest.raises(InterpError, match=f"process {os.getpid()} is writing into {re.escape(str(out))}"):
            run(made, engine, request, out=out, resume=True, ready=ready)
        with full_disk(monkeypatch, 0), pytest.raises(InterpError, match="No space"):
            RunWriter.create(tmp_path / "other", {"command": command}, request.config_file)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(at_step(max(1, steps[0] // 2), second_writer))
    assert spoil(out) or command == "heads"
    with without_rights(out), pytest.raises(InterpError, match=r"cannot be (made or )?written \(Permission denied\)"):
        run(made, engine, request, out=out, resume=True, ready=ready)

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(again), pool.submit(again)]
    errors = [str(one.exception()) for one in both if one.exception() is not None]
    assert len(errors) < 2 and all("is writing into" in error for error in errors), errors
    same_files(whole, out)
    assert [one.fault for one in find_runs(out)] == [""]
