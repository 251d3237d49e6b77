"""A run on workers leaves the folder of one process, whoever is lost on the way: by a stand-in for Ray, and by Ray."""

import json
import os
import re
import signal
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from interp_core import engine as fitting
from interp_core.__main__ import main
from interp_core.api import run as run_from_python
from interp_core.cli import BAD_INPUT, DONE
from interp_core.engine import Engine
from interp_core.errors import CheckFailed, InterpError
from interp_core.experiments import EXPERIMENTS, experiment_of
from interp_core.experiments.cluster import machines
from interp_core.experiments.cluster import worker as at_work
from interp_core.experiments.cluster.run import TRIES, Cluster, _Crew, run_on, run_where_it_can
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.sharded import dealt_into, run_whole, shards_below
from interp_core.jobs import Cancelled
from interp_core.runs import read_config
from interp_core.shards import Shard
from interp_core.sinks import NoShards
from tests.stand_in_ray import StandIn
from tests.test_resume import same_files

QUICK = {"device": "cpu", "dtype": "float32"}
FLIPS = EXPERIMENTS["signflip"].request("demo-emotion-wavlm", pilot=6, draws=1, layers=(2,), **QUICK)
SIGNFLIP = experiment_of("signflip")
TIMES = ("created", "finished", "times")


OPENED = Engine()


def engine():
    """One of this process, without a clean run in its cache; workers open their own model, as they do elsewhere."""
    made = Engine()
    made.models = OPENED.models
    return made


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As a worker with a core has it: the last digits of a number depend on how many threads added it up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def ray(monkeypatch):
    made = StandIn()
    threads = torch.get_num_threads()
    monkeypatch.setattr(machines, "library", lambda address="local": made)
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    yield made
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    run(SIGNFLIP, engine(), FLIPS, out=out)
    return out


def on(out, request=FLIPS, **more):
    said = []
    result = run_on(Cluster(), experiment_of(request.command), engine(), request, out=out, say=said.append, **more)
    return result, said


def plain_config(folder):
    (file,) = folder.glob("*_config.json")
    return {name: value for name, value in json.loads(file.read_text()).items() if name not in TIMES}


def is_the_same(out, whole):
    same_files(whole, out)
    assert plain_config(out) == plain_config(whole)
    assert not shards_below(out), "what was merged is removed"


def test_two_workers_leave_the_files_and_the_config_of_one_process(ray, whole, tmp_path):
    steps, costs = [], []
    result, said = on(tmp_path / "run", progress=lambda *step: steps.append(step), announce=costs.append)
    is_the_same(tmp_path / "run", whole)
    assert ray.started == 2 == ray.killed and result.config["finished"]
    assert len(costs) == 1 and "all shards" in costs[0]
    notes = {note for *_, note in steps}
    assert "starting 2 workers" in notes and any(note.startswith("merging") for note in notes)
    assert all(done < total or total == 0 for done, total, _ in steps)
    again, _ = on(tmp_path / "run", resume=True)  # a finished one is read back
    assert again.config["finished"] == result.config["finished"]


def test_progress_is_the_sum_over_the_shards_at_work_and_says_how_many_workers_are():
    shards = [Shard(number, 3) for number in (1, 2, 3)]
    crew = SimpleNamespace(
        looks={shards[0]: at_work.Look(done=4, total=4), shards[1]: at_work.Look(True, 1, 4, "edited copies")},
        seats=[SimpleNamespace(step=shards[1]), SimpleNamespace(step=shards[2])],
    )
    assert _Crew._steps(crew) == (5, 8, "edited copies, 2 workers")
    crew.looks["merge"] = at_work.Look(note="tables")
    assert _Crew._steps(crew) == (0, 0, "merging: tables")


def test_the_shard_of_a_lost_worker_is_run_again_where_it_was_left_and_so_is_the_merge(ray, whole, tmp_path):
    out, lost = tmp_path / "run", []

    def loses(name, args):
        if name == "shard" and str(args[0]) == "2/2" and "shard" not in lost:
            lost.append("begun")
        if name == "look" and lost == ["begun"]:  # of whichever worker: wait until the second shard has something
            end = time.monotonic() + 30
            while not list((out / "shard-2-of-2").glob("chunk_*")) and time.monotonic() < end:
                time.sleep(0.01)
            lost.append("shard")
            return True
        if name == "merge" and "merge" not in lost:
            lost.append("merge")
            return True
        return False

    ray.loses = loses
    _, said = on(out)
    assert lost == ["begun", "shard", "merge"] and ray.started == 4
    assert any("was lost at shard" in text and "another goes on (1 of 2)" in text for text in said)
    assert any("was lost at merging" in text for text in said)
    is_the_same(out, whole)


def test_what_one_worker_has_prepared_the_next_one_reads(ray, tmp_path, monkeypatch):
    request, fits, lost, ray.cores = replace(FLIPS, probe="prosody_label"), [], [], 1
    fit = fitting.fit_probe
    monkeypatch.setattr(fitting, "fit_probe", lambda *given, **more: fits.append(1) or fit(*given, **more))

    def loses(name, args):
        if name == "look" and not lost and list((tmp_path / "run").glob("shard-*/chunk_prepared_*")):
            lost.append(name)
            return True
        return False

    ray.loses = loses
    on(tmp_path / "run", request=request)
    assert lost and ray.started == 2 and len(fits) == 1


def test_a_worker_that_is_lost_again_and_again_ends_in_a_sentence_and_the_run_goes_on_later(ray, whole, tmp_path):
    out = tmp_path / "run"
    seen = []

    def loses(name, args):
        if name == "shard":
            seen.append(str(args[0]))
        return name == "shard" and str(args[0]) == "2/2"

    ray.loses = loses
    with pytest.raises(InterpError, match=rf"shard 2/2 in {out}/shard-2-of-2 was lost 3 times.*--resume"):
        on(out)
    assert seen.count("2/2") == TRIES
    ray.loses = lambda name, args: False
    if out.exists():  # the other shard's worker had come to something
        assert not read_config(out)["finished"]
    on(out, resume=True)
    is_the_same(out, whole)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Cancelled])
def test_what_was_stopped_is_kept_and_goes_on_with_other_workers_or_with_none(ray, whole, tmp_path, stop):
    out = tmp_path / "run"

    def progress(done, total, note=""):
        if any(list(folder.glob("chunk_*")) for folder in shards_below(out)):
            raise stop

    with pytest.raises(stop):
        on(out, progress=progress)
    assert ray.killed == ray.started == 2
    assert not read_config(out)["finished"] and dealt_into(out) == 2
    assert any(list(folder.glob("chunk_*")) for folder in shards_below(out))
    if stop is Cancelled:
        run_whole(SIGNFLIP, engine(), FLIPS, out=out, resume=True)
    else:
        ray.cores = 1
        on(out, resume=True)
        assert ray.started == 3, "one worker computes both shards"
    is_the_same(out, whole)


def test_a_machine_with_other_versions_is_named_and_nothing_is_left(ray, monkeypatch, tmp_path):
    there = {**at_work.versions(), "torch": "0.1", "Patchbay": "code 0"}
    monkeypatch.setattr(at_work, "versions", lambda: there)
    with pytest.raises(
        InterpError, match=r"has torch 0\.1 \(here .*\), Patchbay code 0 \(here code .*install the same"
    ):
        on(tmp_path / "run")
    assert not (tmp_path / "run").exists() and ray.killed == 2


def test_a_machine_that_does_not_see_the_run_is_named_and_nothing_is_left(ray, monkeypatch, tmp_path):
    monkeypatch.setattr(at_work, "read_config", lambda folder: {"created": "another one"})
    with pytest.raises(InterpError, match="does not see the run in .*under the same names"):
        on(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_workers_that_came_to_another_config_are_refused(ray, monkeypatch, tmp_path):
    ready = SimpleNamespace(config={**run_config(), "device": "cuda:0"})
    with pytest.raises(InterpError, match="something else than this process: device was 'cuda:0', is 'cpu'"):
        on(tmp_path / "run", ready=ready)
    assert not (tmp_path / "run").exists()


def run_config():
    return SIGNFLIP.prepare(engine(), FLIPS).config


def test_checks_that_fail_end_the_run_and_their_reports_are_named(ray, monkeypatch, tmp_path):
    def fails(experiment, ready, shard, out, **more):
        raise CheckFailed("the checks failed.", {"checks": [shard.number]})

    monkeypatch.setattr(at_work, "run_shard", fails)
    with pytest.raises(CheckFailed, match="the checks failed. Its reports are in .*shard-[12]-of-2") as failed:
        on(tmp_path / "run")
    assert failed.value.report["checks"] in ([1], [2])


def test_a_run_that_cannot_be_dealt_runs_here_and_one_that_was_begun_here_goes_on_here(
    ray, whole, monkeypatch, tmp_path
):
    out = tmp_path / "run"

    def refuses(*given, **more):
        raise NoShards("no chunks.")

    monkeypatch.setattr(at_work, "run_shard", refuses)
    with pytest.raises(NoShards):
        on(out)
    assert not out.exists()
    run_where_it_can(Cluster(), SIGNFLIP, engine(), FLIPS, out=out, resume=True)
    is_the_same(out, whole)

    def stop(done, total, note=""):
        if list((tmp_path / "alone").glob("chunk_*")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SIGNFLIP, engine(), FLIPS, out=tmp_path / "alone", progress=stop)
    with pytest.raises(InterpError, match="begun by one process; go on with it without --cluster"):
        on(tmp_path / "alone", resume=True)
    started = ray.started
    run_where_it_can(Cluster(), SIGNFLIP, engine(), FLIPS, out=tmp_path / "alone", resume=True)
    assert ray.started == started
    is_the_same(tmp_path / "alone", whole)


def test_from_python_a_run_goes_to_workers_too(ray, whole, tmp_path):
    result = run_from_python(FLIPS, out=tmp_path / "run", engine=engine(), cluster="local", workers=1)
    assert ray.started == 1 and result.config["finished"]
    is_the_same(tmp_path / "run", whole)
    with pytest.raises(InterpError, match="a cluster needs a run folder"):
        run_from_python(FLIPS, engine=engine(), cluster="local")


def test_shards_of_somebody_else_are_left_alone(ray, tmp_path):
    (tmp_path / "run" / "shard-1-of-3").mkdir(parents=True)
    with pytest.raises(InterpError, match="lies shard-1-of-3 already; merge its shards, or choose another --out"):
        on(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["shard-1-of-3"]


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "expected"),
    [
        ([(2, 0)], "auto", None, (2, 1, 0)),
        ([(1, 0)], "auto", None, (1, 1, 0)),
        ([(8, 0)], "cpu", None, (2, 4, 0)),
        ([(64, 0), (4, 0)], "auto", None, (17, 4, 0)),
        ([(8, 0)], "cpu", 1, (1, 8, 0)),
        ([(8, 0), (3, 0)], "cpu", 4, (4, 2, 0)),
        ([(96, 8)], "auto", None, (8, 4, 1)),
        ([(16, 8), (96, 8), (64, 0)], "cuda", None, (16, 2, 1)),
        ([(4, 8)], "cuda", 2, (2, 0, 1)),
        ([(8, 2)], "cuda:0", None, (2, 4, 1)),
        ([(16, 8)], "cpu", None, (4, 4, 0)),
    ],
)
def test_room_for_workers_is_a_gpu_or_some_cores_each(nodes, device, workers, expected):
    made = machines.room([{"CPU": cores, "GPU": gpus} for cores, gpus in nodes], device, workers)
    assert made == machines.Room(*expected)
    assert sum(cores // max(1, made.cpus) if not made.gpus else gpus for cores, gpus in nodes) >= made.workers


@pytest.mark.parametrize(
    ("nodes", "device", "workers", "said"),
    [
        ([(8, 2)], "cuda:1", None, "one GPU of one machine"),
        ([(8, 0)], "cuda", None, "has no GPU"),
        ([(8, 2)], "auto", 3, "has 2 GPUs"),
        ([(2, 0)], "cpu", 3, "has 2 cores"),
        ([(0, 0)], "auto", None, "no cores"),
    ],
)
def test_room_that_is_not_there_is_refused(nodes, device, workers, said):
    with pytest.raises(InterpError, match=said):
        machines.room([{"CPU": cores, "GPU": gpus} for cores, gpus in nodes], device, workers)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers=2"], "--workers is of --cluster"),
        (["--cluster=local", "--shard=1/2"], "exclude each other"),
        (["--cluster=local", "--workers=0"], "--workers 0 must be 1"),
        (["--cluster="], "--cluster is empty"),
        (["--cluster=nonsense"], "is no cluster; write local, HOST:PORT"),
        (["--cluster=127.0.0.1:99999"], "is no cluster"),
        (["--cluster=127.0.0.1:1"], "nobody answers there .*start Ray on its head node"),
    ],
)
def test_the_command_says_what_is_wrong_before_anything_is_begun(words, said, capsys, tmp_path):
    code = main(["signflip", "--model=demo-emotion-wavlm", f"--out={tmp_path / 'run'}", *words])
    told = capsys.readouterr()
    assert code == BAD_INPUT and told.out == ""
    assert re.search(said, told.err), told.err
    assert not (tmp_path / "run").exists()


def test_without_ray_the_command_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InterpError, match="pip install -r requirements-cluster.txt"), machines.joined("local"):
        pass


# ---- Ray itself ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local_ray():
    """One cluster of this machine for the tests below, which they find joined."""
    before, folder = signal.getsignal(signal.SIGTERM), set(os.listdir("/tmp")) if os.path.isdir("/tmp") else set()
    with machines.joined("local") as ray:
        assert signal.getsignal(signal.SIGTERM) is before, "Ray's own would end the program at once"
        assert os.environ["RAY_AUTH_MODE"] == "token" and os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        yield ray
    assert not ray.is_initialized()
    assert not {name for name in set(os.listdir("/tmp")) - folder if name.startswith("ray")}


@pytest.mark.slow
def test_ray_runs_the_shard_of_a_killed_worker_again_and_patch_has_the_files_of_one_process(local_ray, tmp_path):
    request = PatchRequest("demo-emotion", kinds="prosody", max_pairs=6, batch_size=1, checks=False, flow=(),
                           controls=(), **QUICK)  # fmt: skip
    out, killed = tmp_path / "run", []

    def progress(done, total, note=""):
        begun = [one for one in shards_below(out) if list(one.glob("*_records*.jsonl")) and (one / ".lock").exists()]
        if begun and not killed:
            killed.append(int((begun[0] / ".lock").read_text()))
            os.kill(killed[0], signal.SIGKILL)

    result = run_on(Cluster("local", 2), experiment_of("patch"), engine(), request, out=out, progress=progress,
                    say=(said := []).append)  # fmt: skip
    assert killed and killed[0] != os.getpid()
    assert any("was lost at shard" in text for text in said)
    run(experiment_of("patch"), engine(), request, out=tmp_path / "whole")
    is_the_same(out, tmp_path / "whole")
    assert len(result.metrics)


@pytest.mark.slow
def test_ray_from_the_command_line_leaves_the_files_of_one_process(local_ray, whole, tmp_path, capsys):
    words = ["signflip", "--model=demo-emotion-wavlm", "--pilot=6", "--draws=1", "--layers=2", "--device=cpu"]
    words += ["--dtype=float32", "--cluster=local", "--workers=2", f"--out={tmp_path / 'run'}"]
    assert main(words) == DONE
    told = capsys.readouterr()
    assert told.out == f"{tmp_path / 'run'}\n" and "all shards: 1 clips to attribute on" in told.err
    is_the_same(tmp_path / "run", whole)
