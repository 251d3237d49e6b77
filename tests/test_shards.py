"""Shards of a run, computed apart and merged, leave the folder that one process would have written."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import pytest

from interp_core.__main__ import main
from interp_core.cli import BAD_INPUT, DONE, INTERRUPTED
from interp_core.errors import InterpError
from interp_core.experiments import experiment_of
from interp_core.experiments.experiment import open_result
from interp_core.experiments.sharded import merge, run_shard
from interp_core.runs import read_config
from interp_core.shards import Shard
from tests.processes import Command, finished
from tests.test_resume import REQUESTS, fresh_engine, made_by, same_files, wait_for_a_chunk, whole_run, words_of

WHOLE = "heads, in words"
"""The request whose run has nothing to deal: which heads are taken out hangs on all clips."""
TIMES = ("created", "finished", "times")


def in_shards(command, out, count, request=None, *, broken_off=None, engine=None):
    """The folders of all shards, each computed by an engine of its own unless one is given; `broken_off` is given those
    that went on after what a kill behind their first chunk leaves behind.
    """
    made, one_for_all = [], engine
    for number in range(count, 0, -1):
        engine, experiment, shard = one_for_all or fresh_engine(), made_by(command), Shard(number, count)
        ready = experiment.prepare(engine, request or REQUESTS[command])
        if broken_off is not None:
            with suppress(KeyboardInterrupt):
                run_shard(experiment, ready, shard, out, progress=kill_behind_a_chunk(out / shard.folder))
            if not read_config(out / shard.folder).get("finished"):
                broken_off.append(shard)
                for records in (out / shard.folder).glob("*_records*.jsonl"):
                    with records.open("ab") as file:
                        file.write(b'{"chunk": 0, "kind": "pro')
        steps = [(0, 1)]
        made.append(
            run_shard(
                experiment,
                ready,
                shard,
                out,
                resume=broken_off is not None,
                progress=lambda done, total, note="", steps=steps: steps.append((done, total)),
            )  # fmt: skip
        )
        if broken_off is None or shard in broken_off:  # else it had come to its end, and is left as it is
            assert all(done <= total for done, total in steps) and steps[-1][0] >= 0.75 * steps[-1][1], steps[-1]
    return made


def kill_behind_a_chunk(folder):
    def progress(done, total, note=""):
        if list(folder.glob("chunk_*")) or any(path.stat().st_size for path in folder.glob("*_records*.jsonl")):
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def whole_of(tmp_path_factory):
    """The folder of a request's run in one process."""
    return lambda command: whole_run(tmp_path_factory, command)[0]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three shards of the signflip run, to be copied where a test breaks them."""
    out = tmp_path_factory.mktemp("three")
    return in_shards("signflip", out, 3)


def plain_config(folder):
    (file,) = folder.glob("*_config.json")
    return {name: value for name, value in json.loads(file.read_text()).items() if name not in TIMES}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("command", sorted(set(REQUESTS) - {WHOLE}))
def test_shards_merge_to_the_files_and_the_config_of_one_process(command, count, whole_of, tmp_path):
    broken_off = [] if count == 3 else None
    engine = fresh_engine() if count == 8 else None  # eight processes would make eight times the same clean runs
    whole, shards = whole_of(command), in_shards(command, tmp_path, count, broken_off=broken_off, engine=engine)
    assert broken_off is None or len(broken_off) > 1, "most shards were killed on their way, and went on"
    kept = [{path.name for path in shard.iterdir()} for shard in shards]
    for names in kept:
        tables = [name for name in names if name.endswith((".csv", ".png")) or name.startswith("pair_list")]
        assert not tables, "a part is not taken for the whole"
    if count > 1:
        lines = [{line for path in shard.glob("*_records*.jsonl") for line in path.open("rb")} for shard in shards]
        dealt = set.union(*kept) - set.intersection(*kept)
        if command in (
            "patch",
            "patch, class means",
            "steer",
            "steer, in words",
        ):  # their chunks are lines of few files
            dealt = set.union(*lines) - set.intersection(*lines)
        assert dealt, "the work is dealt, and not done by each"
    merge(shards, tmp_path / "merged", engine=fresh_engine())
    same_files(whole, tmp_path / "merged")
    one, other = plain_config(whole), plain_config(tmp_path / "merged")
    for config in (one, other):  # this file holds the folder's own name or times in some experiments
        config["written_sha256"] = {k: v for k, v in config["written_sha256"].items() if k != "neuron_ablation.json"}
    assert one == other


@pytest.mark.slow
def test_a_shard_that_was_killed_goes_on_and_a_merge_that_was_killed_is_repeated(whole_of, tmp_path):
    request, shards = REQUESTS["signflip"], tmp_path / "all of them"
    line = [*words_of(request, shards), "--shard"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(_threads())}
    process = Command([*line, "1/2"], env=environment)
    wait_for_a_chunk(process, shards / "shard-1-of-2")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(InterpError, match=r"shard-1-of-2 is not finished.*of 2 shards 2 is missing"):
        merge([shards / "shard-1-of-2"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    later = finished([*line, "1/2", "--resume"], env=environment)
    said = later.communicate()[1]
    assert later.returncode == DONE and "no results yet" in said and "merge" in said, said
    in_array = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_MAX": "7"}
    in_array |= {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_STEP": "2"}
    assert finished([*line, "env"], env={**environment, **in_array}).returncode == DONE
    both = [shards / f"shard-{number}-of-2" for number in (1, 2)]

    def stop(done, total, note=""):
        if note == "edited copies":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(both, tmp_path / "merged", engine=fresh_engine(), progress=stop)
    assert not read_config(tmp_path / "merged")["finished"]
    merge(both, tmp_path / "merged", engine=fresh_engine())
    same_files(whole_of("signflip"), tmp_path / "merged")


def _threads():
    import torch

    return torch.get_num_threads()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_a_run_behind_its_chunk(number, tmp_path):
    request = replace(REQUESTS["signflip"], pilot=40)
    process = Command(words_of(request, tmp_path / "run"))
    wait_for_a_chunk(process, tmp_path / "run")
    process.send_signal(number)
    said = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, said
    assert "--resume goes on with" in said[1] and "Traceback" not in said[1]
    assert list((tmp_path / "run").glob("chunk_*.npz")) and not list((tmp_path / "run").glob(".*.tmp"))


@pytest.mark.slow
def test_merge_refuses_what_is_not_all_of_one_run_and_names_all_of_it(three, tmp_path):
    def copy(at, name):
        return shutil.copytree(three[at], tmp_path / name)

    out, last, first = tmp_path / "out", *[three[i] for i in (0, 2)]
    other, torn = copy(1, "other"), copy(1, "torn")
    (config,) = other.glob("*_config.json")
    said = json.loads(config.read_text())
    said["settings"]["seed"], said["model"]["weights_sha256"] = 43, "0" * 64
    said["model"]["files_sha256"] = {name: "0" * 64 for name in said["model"]["files_sha256"]}
    config.write_text(json.dumps(said))
    chunk = sorted(torn.glob("chunk_*.npz"))[0]
    chunk.write_bytes(chunk.read_bytes()[:-1])
    lost = copy(1, "lost")
    gone = sorted(lost.glob("chunk_*.npz"))[0].name
    (lost / gone).unlink()
    for folders, words in (
        ([first, last], ["of 3 shards 2 is missing"]),
        ([first, copy(2, "again"), last], ["shard 1 is there 2 times", "of 3 shards 2 is missing"]),
        ([first, other, last], ["other is of another run", "seed was 42, is 43", "the model's files"]),
        ([first, torn, last], [f"{torn} is not as it was written: {chunk.name}"]),
        ([first, lost, last], [f"{lost} lacks {gone}"]),
        ([first, tmp_path / "nowhere"], ["nowhere cannot be read", "of 3 shards 2, 3 are missing"]),
        ([], ["there is no shard"]),
    ):
        with pytest.raises(InterpError) as refused:
            merge(folders, out)
        assert all(word in str(refused.value) for word in words), refused.value
        assert not out.exists()
    with pytest.raises(InterpError, match="is shard 3/3 of a run; open what `merge` makes"):
        open_result(experiment_of("signflip"), last)


@pytest.mark.slow
def test_shared_chunks_with_other_digits_are_refused(three, tmp_path):
    from interp_core.digests import digest_of

    shared = sorted(set.intersection(*({p.name for p in one.glob("chunk_*.npz")} for one in three)))[0]
    other = shutil.copytree(three[1], tmp_path / "other")
    (other / shared).write_bytes((other / shared).read_bytes() + b"\0")
    (config,) = other.glob("*_config.json")
    said = json.loads(config.read_text())
    said["written_sha256"][shared] = digest_of(other / shared)
    config.write_text(json.dumps(said))
    with pytest.raises(InterpError, match=rf"came out otherwise in some of them \({shared}\)"):
        merge([three[0], other, three[2]], tmp_path / "out")


@pytest.mark.slow
def test_a_run_without_chunks_to_deal_says_so_and_leaves_nothing(tmp_path):
    for request in (replace(REQUESTS["heads"], ablate=()), REQUESTS[WHOLE]):
        with pytest.raises(InterpError, match="needs all of them.*run it without --shard"):
            in_shards("heads", tmp_path, 2, request)
    assert not list(tmp_path.iterdir())


def test_shards_are_dealt_once_each():
    for count in (1, 3, 8):
        owners = [[n for n in range(1, count + 1) if Shard(n, count).has(group)] for group in range(50)]
        assert all(len(owner) == 1 for owner in owners)


@pytest.mark.parametrize(
    "text", ["", "0/3", "4/3", "1", "1/0", "-1/3", "1/3/4", "a/b", "1/3 ", "1/99999999", "²/3", "ENV"]
)
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(InterpError, match="write i/n"):
        Shard.read(text, {})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("1", "1", "8", "8", "1"), "1/8"),
        (("8", "1", "8", "8", "1"), "8/8"),
        (("0", "0", "7", "8", "1"), "1/8"),
        (("9", "3", "9", "4", "2"), "4/4"),
        (("3", "1", "8", "2", "1"), None),  # --array=3,8 or the like: gaps
        (("4", "3", "9", "4", "2"), None),
        (("", "", "", "", ""), None),
        (("x", "1", "8", "8", "1"), None),
    ],
)
def test_the_task_of_an_array_is_a_shard_whatever_its_start_and_step(values, expected):
    names = ("ID", "MIN", "MAX", "COUNT", "STEP")
    environ = {f"SLURM_ARRAY_TASK_{name}": value for name, value in zip(names, values, strict=True)}
    if expected is None:
        with pytest.raises(InterpError, match="--shard env"):
            Shard.read("env", environ)
    else:
        assert str(Shard.read("env", environ)) == expected


HOSTILE = "a b'c\"d $(touch hit) `touch hit` ü;#&{x}"


def printed(capsys, *words):
    capsys.readouterr()
    code = main(["slurm", *words])
    return code, capsys.readouterr()


def test_the_slurm_script_is_bash_and_hands_every_word_through(tmp_path, capsys, monkeypatch):
    (tmp_path / HOSTILE / "shard-1-of-2").mkdir(parents=True)
    (tmp_path / HOSTILE / "shard-2-of-2").mkdir()
    fake = tmp_path / "python"
    fake.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    command = ["signflip", "--model", "demo-emotion-wavlm", f"--manifest={HOSTILE}.csv", f"--out={HOSTILE}"]
    code, said = printed(capsys, "--shards", "2", "--sbatch=--gres=gpu:1", "--", *command)
    assert code == DONE, said.err
    for words in ("#SBATCH --array=1-2\n", "#SBATCH --requeue\n", "#SBATCH --signal=B:USR1@", "#SBATCH --gres=gpu:1\n"):
        assert words in said.out
    file = tmp_path / "job.sh"
    file.write_text(said.out)
    subprocess.run(["bash", "-n", file], check=True)

    def ran(*words):
        return subprocess.run(
            ["bash", file, *words], cwd=tmp_path, env={**os.environ, "SLURM_JOB_ID": "1"}, capture_output=True,
            text=True, check=True,
        ).stdout.splitlines()  # fmt: skip

    assert ran() == ["-m", "interp_core", *command, "--shard=env", "--resume"]
    both = [f"{HOSTILE}/shard-{number}-of-2" for number in (1, 2)]
    assert ran("merge") == ["-m", "interp_core", "merge", *both, f"--out={HOSTILE}/merged"]
    assert not (tmp_path / "hit").exists()


def test_the_slurm_script_submits_array_and_merge_and_requeues_what_was_stopped(tmp_path, capsys, monkeypatch):
    for name, text in {
        "sbatch": 'echo "sbatch $*" >>calls; echo 42',
        "scontrol": 'echo "scontrol $*" >>calls',
        "python": "trap 'sleep 0.2; exit 130' USR1; touch started; while :; do sleep 0.05; done",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    _, said = printed(capsys, "--", "signflip", "--model=demo-emotion-wavlm", "--out=x")
    (tmp_path / "job.sh").write_text(said.out)
    here = {"cwd": tmp_path, "env": {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}}
    subprocess.run(["bash", "job.sh"], check=True, stdout=subprocess.DEVNULL, **here)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["sbatch --parsable job.sh", "sbatch --array=1-1 --dependency=afterok:42 job.sh merge"]
    here["env"] |= {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "42", "SLURM_ARRAY_TASK_ID": "3"}
    task = subprocess.Popen(["bash", "job.sh"], **here)
    while not (tmp_path / "started").exists():
        assert task.poll() is None
    task.send_signal(signal.SIGUSR1)
    assert task.wait(timeout=30) == INTERRUPTED
    assert (tmp_path / "calls").read_text().splitlines()[2:] == ["scontrol requeue 42_3"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--"],
        ["--", "models"],
        ["--shards", "0", "--", "signflip", "--model=demo-events", "--out=x"],
        ["--time", "1; rm", "--", "signflip", "--model=demo-events", "--out=x"],
        ["--sbatch=--x=\nrm", "--", "signflip", "--model=demo-events", "--out=x"],
        ["--", "signflip", "--model=demo-events", "--out=x", "--shard=1/2"],
        ["--", "signflip", "--model=demo-events", "--out=x", "--resume"],
        ["--", "signflip", "--model=demo-events", "--out=x", "--cluster=local"],
        ["--", "signflip", "--out=x"],
        ["--", "signflip", "--model=demo-events", "--out="],
    ],
)
def test_slurm_refuses_what_no_cluster_could_run(words, capsys):
    code, said = printed(capsys, *words)
    assert code == BAD_INPUT and said.out == "" and said.err.startswith("error: ")
