"""One worker: a process with one model, which computes shards as jobs and tells how far it is."""

import hashlib
import itertools
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from interp_core.engine import Engine
from interp_core.errors import CheckFailed, InterpError
from interp_core.experiments import experiment_of
from interp_core.experiments.experiment import VERSIONS, Ready, prepare
from interp_core.experiments.sharded import merge, run_shard
from interp_core.jobs import Cancelled, Job, Progress
from interp_core.request import Request
from interp_core.runs import read_config
from interp_core.shards import Shard
from interp_core.sinks import NoShards

LOOK_S = 0.3
"""How long a worker waits with its answer for the end of what it does."""


@dataclass(frozen=True)
class Assignment:
    """What every worker is told.

    Attributes:
        out: the run folder; relative ones are meant from `folder`, in which the run was started.
        threads: of each worker. engine: the arguments of its engine.
    """

    request: Request
    out: Path
    folder: str
    threads: int
    engine: Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """Why a worker has given up; `report` is that of checks which failed, `details` a traceback for the log."""

    text: str
    report: dict[str, Any] | None = None
    no_shards: bool = False
    details: str = ""


@dataclass(frozen=True)
class Look:
    """How far a worker is: `value` is what it has made, `said` what a person is to be told, once each."""

    active: bool = False
    done: int = 0
    total: int = 0
    note: str = ""
    said: tuple[str, ...] = ()
    value: Any = None
    fault: Fault | None = None


class Worker:
    """Made on a machine of the cluster; every method returns soon, because the work goes on in a thread of a job."""

    def __init__(self, task: Assignment) -> None:
        self._task = task
        torch.set_num_threads(task.threads)
        self._engine = Engine(**task.engine)
        self._experiment = experiment_of(task.request.command)
        self._ready: Ready[Any, Any] | None = None
        self._job: Job[Any] | None = None
        self._numbers = itertools.count()
        self._said: list[str] = []
        self._stop = False

    def hello(self) -> Look:
        """Which machine it is and which versions it has."""
        folder = self._task.folder
        try:
            os.chdir(folder)
        except OSError as error:
            said = f"{socket.gethostname()} has no {folder} ({error.strerror}); {SHARED}"
            return Look(fault=Fault(said))
        return Look(value={"host": socket.gethostname(), "pid": os.getpid(), "versions": versions()})

    def prepare(self) -> Look:
        """Open the model; ends in the run's config, its notes and the model's name."""

        def work(progress: Progress) -> dict[str, Any]:
            task = self._task
            ready = self._ready = prepare(self._experiment, self._engine, task.request, task.out, progress)
            left_out = [f"left out: {row}" for row in ready.manifest.skipped]
            notes = [*left_out, *ready.manifest.notes, *ready.notes]
            return {"config": ready.config, "notes": notes, "subject": ready.store.subject.name}

        return self._begin(work)

    def shard(self, shard: Shard, created: str, weigh: bool) -> Look:
        """Compute a shard of the run that was begun at a time; with `weigh` it says what the run will take."""

        def work(progress: Progress) -> None:
            out, announce = self._seen(created), self._said.append if weigh else None
            assert self._ready is not None
            run_shard(self._experiment, self._ready, shard, out, resume=True, progress=progress, announce=announce)

        return self._begin(work)

    def merge(self, count: int, created: str) -> Look:
        """Make the run of all its shards."""

        def work(progress: Progress) -> None:
            out = self._seen(created)
            folders = [out / Shard(number, count).folder for number in range(1, count + 1)]
            merge(folders, out, engine=self._engine, progress=progress, ready=self._ready)

        return self._begin(work)

    def look(self) -> Look:
        """How far it is, after a moment in which it may come to an end."""
        job = self._job
        assert job is not None
        job.wait(LOOK_S)
        said, self._said[:] = tuple(self._said), []
        at = Look(done=job.done, total=job.total, note=job.note, said=said)
        if job.active:
            return replace(at, active=True)
        if job.status != "done":
            return replace(at, fault=Fault(job.error or "it was stopped", details=job.traceback or ""))
        if isinstance(job.result, Fault):
            return replace(at, fault=job.result)
        return replace(at, value=job.result)

    def stop(self, at_once: bool) -> None:
        """End behind the chunk that it is at, or before its next pass of the model."""
        self._stop = True
        if at_once and self._job is not None:
            self._job.cancel()

    def _begin(self, work: Callable[[Progress], Any]) -> Look:
        def watched(progress: Progress) -> Any:
            def step(done: int, total: int, note: str = "") -> None:
                progress(done, total, note)
                if self._stop:
                    raise Cancelled

            try:
                return work(step)
            except CheckFailed as error:  # of a class that does not travel
                return Fault(str(error), report=error.report)
            except InterpError as error:
                return Fault(str(error), no_shards=isinstance(error, NoShards))

        self._job = self._engine.jobs.submit(str(next(self._numbers)), self._task.request.title, watched)
        return Look(active=True)

    def _seen(self, created: str) -> Path:
        """The run folder, as this machine sees it."""
        out = self._task.out
        try:
            same = read_config(out).get("created") == created
        except InterpError:
            same = False
        if not same:
            raise InterpError(f"{socket.gethostname()} does not see the run in {out}; {SHARED}")
        return out


SHARED = "all machines of a cluster need the folders of the run, the model and the clips under the same names."


def versions() -> dict[str, str]:
    """What has to be the same on every machine, so that the digits are."""
    return {**VERSIONS, "Patchbay": code_digest()}


@cache
def code_digest() -> str:
    """The first digits of a digest of this package's code."""
    whole, root = hashlib.sha256(), Path(__file__).resolve().parents[2]
    for path in sorted(root.rglob("*.py")):
        whole.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return f"code {whole.hexdigest()[:8]}"
