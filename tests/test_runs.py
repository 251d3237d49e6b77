"""Run folders: what a kill, a second writer, other settings and broken files do to them."""

import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from interp_core.errors import InterpError
from interp_core.experiments.patching import files
from interp_core.runs import RunWriter, delete_run, find_runs, read_config
from interp_core.storage import claim, plain, release

NAME = "patching_config.json"
CONFIG = {"command": "patch", "model": {"id": "demo-emotion"}, "seed": 42, "alpha": [1.0]}
CONFIG |= {"kinds": ["prosody"], "sizes": {"pairs": 4, "layers": 3}}
CHUNKS = {0: 3, 1: 6, 2: 3}  # chunk -> lines
RECORDS = "patching_records_prosody.jsonl"


def chunk(number):
    """The records of one chunk, numbers that only survive an exact round trip."""
    rng = np.random.default_rng(number)
    return [
        dict(
            chunk=number, pair_id=f"ä{number}", layer=i - 1, base_logits=rng.normal(size=3).astype(np.float32), mass=nan
        )
        for i, nan in enumerate([float("nan")] * CHUNKS[number])
    ]


def opened(folder):
    """What a reader sees of a run of patching, finished or not."""
    return files.read(folder, read_config(folder))


def create(folder, config=CONFIG, name=NAME, **how):
    return RunWriter.create(folder, config, name, **how)


def sweep(folder, resume=False, stop_after=None):
    """A run of three chunks as an experiment makes it; `stop_after` chunks it is left unfinished."""
    with create(folder, resume=resume) as writer:
        writer.write_jsonl("pair_list_prosody.jsonl", [{"pair_id": f"p{i}"} for i in range(4)])
        writer.write_json("pair_construction_report.json", {"skipped": 0})
        done, rows = writer.resume_records(RECORDS, CHUNKS)
        for number in CHUNKS:
            if number not in done:
                if stop_after == number:
                    return
                rows += writer.append(RECORDS, chunk(number))
        means = pd.DataFrame(
            [
                {"kind": "prosody", "condition": "matched", "layer": r["layer"], "mean": np.mean(r["base_logits"])}
                for r in rows
            ]
        )
        writer.write_csv("patching_metrics_prosody.csv", means)
        writer.finish()


def contents(folder):
    """Every file's bytes, the config without its times."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    config = json.loads(found["patching_config.json"])
    assert config.pop("created") and config.pop("finished")
    return found | {"patching_config.json": config}


def test_a_run_writes_its_config_first_and_reads_back_as_it_was(tmp_path):
    folder = tmp_path / "missing" / "parent" / "run"
    sweep(folder)
    run = opened(folder)
    assert (
        run.config["command"] == "patch" and run.config["finished"] and run.config["sizes"] == {"pairs": 4, "layers": 3}
    )
    assert len(run.records) == 12 and len(run.metrics) == 12 and len(run.pairs) == 4
    assert "chunk" not in run.records and run.records["mass"].isna().all()
    expected = [row["base_logits"].tolist() for number in CHUNKS for row in chunk(number)]
    assert run.records["base_logits"].tolist() == expected
    assert run.metrics["mean"].tolist() == [float(np.mean(row)) for row in expected]  # exact, not close
    assert run.reports == {"pair_construction_report": {"skipped": 0}}
    assert run.lens.empty and run.knockout.empty
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize("cut", ["between chunks", "half a chunk", "half a line", "zeros", "half a letter"])
def test_a_killed_run_that_is_resumed_ends_with_the_same_bytes(tmp_path, cut):
    sweep(tmp_path / "whole")
    sweep(tmp_path / "killed", stop_after=2)
    assert not read_config(tmp_path / "killed")["finished"]
    path = tmp_path / "killed" / RECORDS
    line = json.dumps(plain(chunk(2)[0]), ensure_ascii=False).encode()
    debris = {
        "between chunks": b"",
        "half a chunk": line + b"\n" + line + b"\n",
        "half a line": line + b"\n" + line[:40],
        "zeros": b"\0" * 64,
        "half a letter": line[: line.index("ä".encode()) + 1],
    }[cut]
    with open(path, "ab") as file:
        file.write(debris)
    (tmp_path / "killed" / ".control_metrics_prosody.csv.tmp").write_text("half a fi")
    assert path.read_bytes() != (tmp_path / "whole" / RECORDS).read_bytes()  # control: something is to be repaired
    sweep(tmp_path / "killed", resume=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_resuming_a_finished_run_computes_nothing_and_changes_nothing(tmp_path):
    sweep(tmp_path / "run")
    before = contents(tmp_path / "run")
    config = tmp_path / "run" / "patching_config.json"
    created = "2024-01-01T00:00:00+00:00"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"created": created}))
    written = config.read_bytes()
    with create(tmp_path / "run", resume=True) as writer:
        assert writer.was_finished and writer.config["created"] == created
        done, rows = writer.resume_records(RECORDS, CHUNKS)
        assert done == {0, 1, 2} and len(rows) == 12
    assert config.read_bytes() == written, "it stays finished"
    assert contents(tmp_path / "run") == before
    config.write_text(json.dumps(json.loads(written) | {"finished": None}))
    sweep(tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before
    assert read_config(tmp_path / "run")["created"] == created


def test_an_unfinished_run_is_read_without_its_torn_last_line_and_a_torn_middle_is_an_error(tmp_path):
    sweep(tmp_path / "run", stop_after=1)
    path = tmp_path / "run" / RECORDS
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"chunk": 1, "pai')
    assert len(opened(tmp_path / "run").records) == 3
    path.write_bytes(b'{"chunk": 1, "pai\n' + whole)
    with pytest.raises(InterpError, match=r"patching_records_prosody.jsonl line 1 is no JSON object"):
        opened(tmp_path / "run")


def test_records_of_another_plan_are_refused_and_left_alone(tmp_path):
    sweep(tmp_path / "run", stop_after=2)
    before = (tmp_path / "run" / RECORDS).read_bytes()
    with create(tmp_path / "run", resume=True) as writer:
        with pytest.raises(InterpError, match="chunk 1, which these settings do not make"):
            writer.resume_records(RECORDS, {0: 3, 7: 6})
        with pytest.raises(InterpError, match="chunk 0 too often"):
            writer.resume_records(RECORDS, {0: 2, 1: 6})
        assert writer.resume_records("control_records_prosody.jsonl", {0: 3, 1: 0}) == ({1}, [])
    assert (tmp_path / "run" / RECORDS).read_bytes() == before


def test_an_append_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    with create(tmp_path / "run") as writer:
        writer.append(RECORDS, chunk(0))
        before = (tmp_path / "run" / RECORDS).read_bytes()

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InterpError, match=f"{RECORDS} cannot be written .No space left"):
            writer.append(RECORDS, chunk(1))
        assert (tmp_path / "run" / RECORDS).read_bytes() == before
        with pytest.raises(InterpError, match="report.json cannot be written .No space left"):
            writer.write_json("report.json", {"a": 1})
    assert not (tmp_path / "run" / "report.json").exists() and not list((tmp_path / "run").glob("*.tmp"))


def test_rows_of_one_append_belong_to_one_chunk(tmp_path):
    with create(tmp_path / "run") as writer:
        with pytest.raises(InterpError, match="expected one whole number"):
            writer.append(RECORDS, [{"chunk": 0}, {"chunk": 1}])
        with pytest.raises(InterpError, match="expected one whole number"):
            writer.append(RECORDS, [{"layer": 0}])
        with pytest.raises(InterpError, match="plain file name"):
            writer.write_json("../elsewhere.json", {})
    assert not (tmp_path / "run" / RECORDS).exists()


@pytest.mark.parametrize(("now", "goes_on"), [("", True), ([], True), (None, True), ("other", False)])
def test_a_run_from_before_there_was_a_setting_goes_on_unless_the_setting_is_used(tmp_path, now, goes_on):
    before = {**CONFIG, "settings": {"site": "mlp_out"}}
    create(tmp_path / "run", before).close()
    after = {**before, "settings": {"site": "mlp_out", "adapter": now}}
    if goes_on:
        create(tmp_path / "run", after, resume=True).close()
    else:
        with pytest.raises(InterpError, match="settings.adapter was 'absent', is 'other'"):
            create(tmp_path / "run", after, resume=True)


def test_a_run_without_resume_and_resume_with_other_settings_are_refused(tmp_path):
    folder = tmp_path / "run"
    sweep(folder, stop_after=1)
    before = (folder / "patching_config.json").read_bytes()
    with pytest.raises(InterpError, match="already holds a run .*--resume"):
        create(folder)
    other = CONFIG | {"seed": 7, "sizes": {"pairs": 9, "layers": 3}, "site": "attn_out"}
    with pytest.raises(InterpError) as refused:
        create(folder, other, resume=True)
    message = str(refused.value)
    for part in ("seed was 42, is 7", "sizes.pairs was 4, is 9", "site was 'absent', is 'attn_out'", str(folder)):
        assert part in message
    assert "layers" not in message
    with pytest.raises(InterpError, match="holds a run of patching_config.json, which 'compare' cannot resume"):
        create(folder, CONFIG | {"command": "compare"}, "compare_config.json", resume=True)
    assert (folder / "patching_config.json").read_bytes() == before
    create(folder, CONFIG | {"versions": {"torch": "9"}, "times": {"sweep": 3}}, resume=True).close()


def test_records_whose_config_is_gone_are_not_written_over(tmp_path):
    sweep(tmp_path / "run")
    (tmp_path / "run" / "patching_config.json").unlink()
    with pytest.raises(InterpError, match="already holds a run"):
        create(tmp_path / "run")
    with pytest.raises(InterpError, match="records without their config"):
        create(tmp_path / "run", resume=True)


def test_folders_that_cannot_be_made_or_written_are_named_before_anything_is_done(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InterpError, match=f"{file} is a file"):
        create(file)
    with pytest.raises(InterpError, match="cannot be made or written .Not a directory"):
        create(file / "run")
    assert file.read_text() == "mine"


@pytest.fixture
def closed():
    """A folder that may be read but not written, below folders that anybody may enter (tmp_path's may not)."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folder = Path(parent) / "closed"
        folder.mkdir(mode=0o555)
        yield folder


def test_a_folder_without_permission_is_named(closed):
    script = f"""
import os, sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from interp_core.errors import InterpError
from interp_core.runs import RunWriter
if os.geteuid() == 0:
    os.seteuid(65534)  # root may write anywhere
for folder in (Path({str(closed)!r}), Path({str(closed)!r}) / "run"):
    try:
        RunWriter.create(folder, {{}}, "patching_config.json")
    except InterpError as error:
        sys.stdout.write(f"{{error}}\\n")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert str(closed) in line and "cannot be made or written (Permission denied); choose another --out" in line
    assert list(closed.iterdir()) == []


HOLDER = """
import os, signal, sys, time
from pathlib import Path
from interp_core.runs import RunWriter
writer = RunWriter.create(Path(sys.argv[1]), {"seed": 1}, "patching_config.json")
writer.append("patching_records_x.jsonl", [{"chunk": 0, "value": 1}])
sys.stdout.write("holding\\n")
sys.stdout.flush()
time.sleep(60)
"""


def test_a_second_writer_is_refused_until_the_first_is_gone_even_by_a_kill(tmp_path):
    folder = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert holder.stdout.readline() == "holding\n"
        with pytest.raises(InterpError, match=f"process {holder.pid} is writing into {folder}"):
            create(folder, {"seed": 1}, resume=True)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert (folder / ".lock").exists()  # a killed process removes nothing
    with create(folder, {"seed": 1}, resume=True) as writer:
        assert writer.resume_records("patching_records_x.jsonl", {0: 1})[0] == {0}
        with pytest.raises(InterpError, match=f"process {os.getpid()} is writing"):  # another thread of ours
            create(folder, {"seed": 1}, resume=True)
    assert not (folder / ".lock").exists()
    create(folder, {"seed": 1}, resume=True).close()


@pytest.mark.parametrize("answer", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL"])
def test_a_file_system_without_locks_is_written_unguarded_and_left_clean(tmp_path, monkeypatch, answer):
    def refuse(descriptor, how):
        raise OSError(getattr(errno, answer), "no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    with create(tmp_path / "run", {"seed": 1}) as writer:
        writer.append("patching_records_x.jsonl", [{"chunk": 0}])
        create(tmp_path / "run", {"seed": 1}, resume=True).close()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "patching_config.json", "patching_records_x.jsonl",
    ]  # fmt: skip


def test_a_lock_may_be_let_go_of_by_another_thread_than_took_it(tmp_path):
    lock = claim(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(release, tmp_path, lock).result()
    assert not lock.is_locked and not (tmp_path / ".lock").exists()


def test_the_process_that_holds_a_lock_stands_behind_the_byte_that_windows_locks(tmp_path):
    with create(tmp_path / "run", {"seed": 1}):
        assert (tmp_path / "run" / ".lock").read_bytes() == f" {os.getpid()}\n".encode()


@dataclasses.dataclass
class Point:
    x: float
    where: Path


def test_json_holds_numbers_exactly_and_nan_as_null():
    values = {"nan": float("nan"), "inf": -math.inf, "third": 1 / 3, "single": np.float32(0.1), "int": np.int64(7)}
    values |= {"tensor": torch.tensor([0.5, float("nan")], dtype=torch.bfloat16), "flag": np.bool_(True), 3: (1, 2)}
    values |= {"point": Point(np.float64(2.5), Path("a/b")), "set": {"b", "a"}, "array": np.eye(2), "text": "日本"}
    values["frame"] = pd.DataFrame({"n": [1, 2], "accuracy": [0.5, np.nan]})
    found = json.loads(json.dumps(plain(values), allow_nan=False))
    assert found == {
        **{"nan": None, "inf": None, "third": 1 / 3, "single": float(np.float32(0.1)), "int": 7},
        **{"tensor": [0.5, None], "flag": True, "3": [1, 2], "point": {"x": 2.5, "where": "a/b"}},
        **{"set": ["a", "b"], "array": [[1.0, 0.0], [0.0, 1.0]], "text": "日本"},
        "frame": [{"n": 1, "accuracy": 0.5}, {"n": 2, "accuracy": None}],
    }
    assert found["flag"] is True
    with pytest.raises(TypeError, match="object has no place"):
        plain({"a": object()})


def test_numbers_in_csv_files_read_back_exactly(tmp_path):
    values = np.random.default_rng(0).normal(size=3000) * 10.0 ** np.arange(-100, 200, 0.1)
    with create(tmp_path / "run") as writer:
        writer.write_csv("logit_lens.csv", pd.DataFrame({"value": [*values, np.nan]}))
    found = opened(tmp_path / "run").lens["value"]
    np.testing.assert_array_equal(found, [*values, np.nan])


def test_keys_keep_their_order_and_letters_stay_readable(tmp_path):
    with create(tmp_path / "run", {"zeta": 1, "alpha": "é"}) as writer:
        writer.write_jsonl("pair_list_x.jsonl", [{"b": 1, "a": "ü"}])
    assert (tmp_path / "run" / "pair_list_x.jsonl").read_text(encoding="utf-8") == '{"b": 1, "a": "ü"}\n'
    text = (tmp_path / "run" / "patching_config.json").read_text(encoding="utf-8")
    assert text.index("zeta") < text.index("alpha") and "é" in text


def test_controls_reports_and_flow_are_read_where_they_are_there(tmp_path):
    folder = tmp_path / "run"
    sweep(folder)
    with create(folder, resume=True) as writer:
        writer.append("control_records_prosody.jsonl", [{"chunk": 0, "pair_id": "p0", "condition": "random"}])
        metrics = pd.DataFrame([{"kind": "NA", "condition": "random", "layer": -1, "p_adjusted": np.nan}])
        writer.write_csv("control_metrics_prosody.csv", metrics)
        writer.write_json("sanity_check_self_patch.json", {"passed": True})
        writer.write_csv("logit_lens.csv", pd.DataFrame({"layer": [0], "margin": [0.1]}))
        writer.write_csv("knockout.csv", pd.DataFrame({"layer": [0], "drop": [0.2]}))
        writer.finish(times={"sweep": 1.5})
    run = opened(folder)
    assert len(run.records) == 13 and run.records["condition"].iloc[-1] == "random"
    assert run.metrics["kind"].iloc[-1] == "NA" and math.isnan(run.metrics["p_adjusted"].iloc[-1])
    assert run.reports["sanity_check_self_patch"] == {"passed": True}
    assert run.lens["margin"].tolist() == [0.1] and run.knockout["drop"].tolist() == [0.2]
    assert run.config["times"] == {"sweep": 1.5}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda folder: (folder / "patching_config.json").unlink(),
            "is no run folder: no file that ends in _config.json",
        ),
        (
            lambda folder: (folder / "patching_config.json").write_text("{"),
            "patching_config.json cannot be read as JSON",
        ),
        (lambda folder: (folder / "patching_config.json").write_text("[]"), "does not hold an object"),
        (lambda folder: (folder / RECORDS).unlink(), "lacks patching_records_prosody.jsonl"),
        (lambda folder: (folder / "pair_list_prosody.jsonl").unlink(), r"lacks pair_list_\*.jsonl"),
        (lambda folder: (folder / RECORDS).write_text('{"a": 1'), "patching_records_prosody.jsonl line 1"),
        (lambda folder: (folder / "patching_metrics_prosody.csv").write_text(""), "cannot be read as CSV"),
        (
            lambda folder: (folder / "patching_metrics_prosody.csv").write_text("a,b\n1,2\n"),
            "lacks the columns condition",
        ),
    ],
)
def test_a_folder_that_is_no_run_or_is_broken_says_what_is_wrong(tmp_path, harm, message):
    sweep(tmp_path / "run")
    harm(tmp_path / "run")
    with pytest.raises(InterpError, match=message):
        opened(tmp_path / "run")


def test_runs_are_found_newest_first_the_broken_with_their_fault_and_foreign_folders_are_passed_over(tmp_path):
    sweep(tmp_path / "deep" / "er" / "old")
    sweep(tmp_path / "new", stop_after=1)
    for name, created in [("deep/er/old", "2024-01-01T00:00:00+00:00"), ("new", "2025-01-01T00:00:00+00:00")]:
        path = tmp_path / name / "patching_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"created": created}))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "preprocessor_config.json").write_text("{}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "patching_config.json").write_text("{")
    sweep(tmp_path / ".hidden")
    found = find_runs(tmp_path)
    assert [run.path for run in found] == [tmp_path / "new", tmp_path / "deep" / "er" / "old", tmp_path / "broken"]
    new, old, broken = found
    assert (new.command, new.model, new.finished, new.fault) == ("patch", "demo-emotion", False, "")
    assert "cannot be read as JSON" in broken.fault and not broken.finished
    with pytest.raises(InterpError, match="is no run folder, so it is left alone"):
        delete_run(tmp_path / "model")
    assert (tmp_path / "model" / "preprocessor_config.json").exists()
    delete_run(tmp_path / "broken")
    assert not (tmp_path / "broken").exists()
    assert old.finished and old.created == "2024-01-01T00:00:00+00:00"
    assert find_runs(tmp_path / "new")[0].path == tmp_path / "new"
    assert find_runs(tmp_path / "nowhere") == []
