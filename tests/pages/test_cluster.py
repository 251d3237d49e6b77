"""A server that computes its runs on a cluster: the page starts, watches and stops them like any other."""

import pytest
import torch

from components import server as running
from interp_core.errors import InterpError
from interp_core.experiments.cluster import machines
from interp_core.experiments.sharded import shards_below
from interp_core.runs import read_config
from tests.pages.conftest import faults, words
from tests.stand_in_ray import StandIn

PAGE = {"patch_kinds": "prosody", "patch_flow": "none", "patch_controls": "none"}


@pytest.fixture
def ray(monkeypatch):
    made, threads = StandIn(), torch.get_num_threads()
    monkeypatch.setattr(machines, "library", lambda address="local": made)
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    monkeypatch.setenv("PATCHBAY_CLUSTER", "local")
    monkeypatch.setenv("PATCHBAY_WORKERS", "2")
    yield made
    torch.set_num_threads(threads)


def press_run(at):
    next(button for button in at.button if button.label == "Run on all pairs").click()
    at = at.run()
    (job,) = running.engine().jobs.jobs()
    return at, job


def test_run_goes_to_the_workers_and_the_sidebar_says_so(ray, open_app):
    at = open_app(**PAGE)
    assert "Runs are computed on this machine: 2 workers" in words(at)
    at, job = press_run(at)
    assert job.wait(90) and job.status == "done", job.error
    assert ray.started == 2 == ray.killed
    assert read_config(job.place)["finished"] and not shards_below(job.place)
    at = at.run()
    assert faults(at) == [] and len(at.get("plotly_chart")) > 0


def test_a_job_on_workers_is_cancelled_and_goes_on(ray, open_app, monkeypatch):
    at = open_app(**PAGE)
    jobs = running.engine().jobs
    ray.loses = lambda name, args: [job.cancel() for job in jobs.jobs()] == [] if name == "shard" else False
    at, job = press_run(at)
    assert job.wait(90) and job.status == "cancelled", job.error
    assert ray.killed == 2 and not read_config(job.place)["finished"]
    ray.loses = lambda name, args: False
    at = at.run()
    assert "A run with these settings was stopped" in words(at)
    next(button for button in at.button if button.label == "Go on with it").click()
    at = at.run()
    again = running.engine().jobs.jobs()[0]
    assert again.place == job.place and again.wait(90) and again.status == "done", again.error
    assert not shards_below(job.place)


def test_without_the_setting_runs_stay_in_the_server_and_a_wrong_one_is_a_sentence(open_app, monkeypatch):
    monkeypatch.delenv("PATCHBAY_CLUSTER", raising=False)
    assert running.cluster() is None and "Runs are computed on" not in words(open_app(**PAGE))
    monkeypatch.setenv("PATCHBAY_CLUSTER", "head:6379")
    assert str(running.cluster()) == "the Ray cluster at head:6379" and running.cluster().workers is None
    monkeypatch.setenv("PATCHBAY_WORKERS", "none")
    with pytest.raises(InterpError, match="PATCHBAY_WORKERS='none' is no number"):
        running.cluster()
