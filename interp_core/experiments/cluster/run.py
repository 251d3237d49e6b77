"""Deals the shards of a run to workers, again where a worker is lost, and has them merged to the run of one process."""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from interp_core.engine import Engine
from interp_core.errors import CheckFailed, InterpError
from interp_core.experiments.cluster import machines
from interp_core.experiments.cluster.worker import Assignment, Fault, Look, Worker, versions
from interp_core.experiments.experiment import Experiment, Ready, open_result
from interp_core.experiments.sharded import apart, dealt_into, drop_shards, run_whole, shards_below
from interp_core.jobs import Cancelled, Progress, silent
from interp_core.runs import RunWriter, delete_run
from interp_core.shards import MOST, Shard
from interp_core.sinks import NoShards, Watched, holds_chunks

TRIES = 3
"""How often a worker may be lost at the same piece of work."""
WAIT_S = 0.5

Step = Literal["hello", "prepare", "merge"] | Shard
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """Where a run is computed: `local` or the address of a Ray head node; how many workers, None for as many as fit."""

    address: str = machines.LOCAL
    workers: int | None = None

    def check(self) -> None:
        """Refuse what could never be. Errors: InterpError."""
        if not self.address.strip():
            raise InterpError("--cluster is empty; write local, HOST:PORT of a Ray head node, or auto.")
        if self.workers is not None and not 1 <= self.workers <= MOST:
            raise InterpError(f"--workers {self.workers} must be 1 to {MOST}.")

    def __str__(self) -> str:
        return "this machine" if self.address == machines.LOCAL else f"the Ray cluster at {self.address}"


def run_on(
    cluster: Cluster,
    experiment: Experiment[Any, Any, Any],
    engine: Engine,
    request: Any,
    *,
    out: Path | None,
    resume: bool = False,
    progress: Progress = silent,
    announce: Callable[[str], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
    ready: Ready[Any, Any] | None = None,
) -> Any:
    """Run a request on a cluster. The workers open the model; this process reads what they have written.

    Args:
        engine: whose limits hold for the workers too.
        out: the run folder, which all machines see under this name; shards lie below it until they are merged.
        announce: told what the run will take. say: told the notes on its clips and settings, and of lost workers.
        ready: of the same request; the workers must have come to the same config.
    Returns:
        The result, as `run` gives it. Stopped by what `progress` raises, its shards are kept, to be gone on with.
    Raises:
        InterpError: as `run`, no cluster, machines that differ or do not see the files, a worker that is lost at the
            same shard again and again; NoShards for a run that cannot be dealt.
    """
    cluster.check()
    request.check()
    if out is None:
        raise InterpError("a cluster needs a run folder (--out) in which its workers leave their shards.")
    out = Path(out).expanduser()
    with machines.joined(cluster.address) as ray:
        place = machines.room(machines.nodes_of(ray), request.device, cluster.workers)
        task = Assignment(request, out, os.getcwd(), _threads(cluster, place), engine.terms)
        crew = _Crew(ray, task, place, experiment, resume, progress, announce, say, ready)
        try:
            crew.work()
        except BaseException as error:
            crew.halt(at_once=isinstance(error, Cancelled))
            if isinstance(error, InterpError) and not isinstance(error, CheckFailed):
                crew.take_back()
            raise
        finally:
            crew.dismiss()
    result = open_result(experiment, out)
    drop_shards(out)
    return result


def run_where_it_can(
    cluster: Cluster,
    experiment: Experiment[Any, Any, Any],
    engine: Engine,
    request: Any,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
    announce: Callable[[str], None] | None = None,
    ready: Ready[Any, Any] | None = None,
    watched: Watched | None = None,
) -> Any:
    """As `run_on`, but here where a run cannot be dealt, is kept in memory alone, or was begun in one process."""
    if out is not None and not _begun_alone(out):
        try:
            return run_on(cluster, experiment, engine, request, out=out, resume=resume, progress=progress, ready=ready)
        except NoShards:
            pass
    return run_whole(
        experiment, engine, request, out=out, resume=resume, progress=progress, announce=announce, ready=ready,
        watched=watched,
    )  # fmt: skip


def _begun_alone(out: Path) -> bool:
    """Whether one process has left chunks in a run folder."""
    return Path(out).is_dir() and not dealt_into(out) and holds_chunks(Path(out))


def _threads(cluster: Cluster, place: machines.Room) -> int:
    """As the environment says for a process of this machine; elsewhere, and otherwise, as many as a worker's cores."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if cluster.address == machines.LOCAL and said.isdecimal() and int(said) else max(1, place.cpus)


@dataclass(eq=False)
class _Seat:
    """Room for one worker: who has it now, the call that it has not answered yet, what it is at (None: nothing).

    `losses` counts those that were lost one after the other before they had anything to compute.
    """

    actor: Any
    call: Any
    step: Step | None = "hello"
    host: str = "a machine of the cluster"
    losses: int = 0


@dataclass(eq=False)
class _Crew:
    """The workers of a run, and what is left to do."""

    ray: Any
    task: Assignment
    place: machines.Room
    experiment: Experiment[Any, Any, Any]
    resume: bool
    progress: Progress
    announce: Callable[[str], None] | None
    say: Callable[[str], None]
    ready: Ready[Any, Any] | None
    seats: list[_Seat] = field(default_factory=list)
    todo: deque[Step] = field(default_factory=deque)
    looks: dict[Step, Look] = field(default_factory=dict)
    done: set[Step] = field(default_factory=set)
    losses: Counter[Step] = field(default_factory=Counter)
    config: dict[str, Any] | None = None
    subject: str = ""
    writer: RunWriter | None = None
    created: str = ""
    count: int = 0
    finished: bool = False

    def work(self) -> None:
        """Until the run is merged."""
        start = self.ray.remote(num_cpus=self.place.cpus, num_gpus=self.place.gpus, max_restarts=0)(Worker)
        self._start: Callable[[], Any] = lambda: start.remote(self.task)
        for _ in range(self.place.workers):
            actor = self._start()
            self.seats.append(_Seat(actor, actor.hello.remote()))
        while not self.finished:
            self.progress(*self._steps())
            calls = {seat.call: seat for seat in self.seats if seat.call is not None}
            answered, _ = self.ray.wait(list(calls), num_returns=1, timeout=WAIT_S)
            for call in answered:
                self._hear(calls[call])

    def _steps(self) -> tuple[int, int, str]:
        """Done of all that the workers know of by now, and what they are at."""
        if "merge" in self.looks:
            return 0, 0, f"merging: {self.looks['merge'].note}"
        at = [look for step, look in self.looks.items() if isinstance(step, Shard)]
        if at:
            busy = [seat.step for seat in self.seats if isinstance(seat.step, Shard)]
            note = next((self.looks[step].note for step in busy if step in self.looks), "")
            done, total = sum(one.done for one in at), sum(one.total for one in at)
            return (done, total, f"{note}, {len(busy)} workers") if done < total else (0, 0, note)
        opening = self.looks.get("prepare", Look())
        return opening.done, opening.total, opening.note or f"starting {self.place.workers} workers"

    def _hear(self, seat: _Seat) -> None:
        """Take a worker's answer, and give it what is next."""
        try:
            look: Look = self.ray.get(seat.call)
        except self.ray.exceptions.RayActorError as error:
            self._replace(seat, machines.first_line(error.__cause__ or error))
            return
        except (self.ray.exceptions.RayError, ImportError, AttributeError) as error:
            raise InterpError(
                f"a worker failed unexpectedly ({machines.first_line(error)}); every machine needs this Patchbay and "
                "what it depends on."
            ) from error
        step = seat.step
        assert step is not None
        self.looks[step] = look
        for text in look.said:
            if self.announce is not None:
                self.announce(f"{self.subject}, all shards: {text}")
        if look.active:
            seat.call = seat.actor.look.remote()
            return
        if look.fault is not None:
            raise self._error(look.fault, step)
        if step == "hello":
            self._check_versions(seat, look.value)
            seat.step, seat.call = "prepare", seat.actor.prepare.remote()
            return
        if step == "prepare":
            seat.losses = 0
            self._take(seat, look.value)
        else:
            self.done.add(step)
            self.finished = step == "merge"
        self._give(seat)

    def _check_versions(self, seat: _Seat, about: dict[str, Any]) -> None:
        seat.host = about["host"]
        here, there = versions(), about["versions"]
        if other := [f"{name} {there.get(name)} (here {here[name]})" for name in here if there.get(name) != here[name]]:
            raise InterpError(f"the worker on {seat.host} has {', '.join(other)}; install the same on every machine.")

    def _take(self, seat: _Seat, made: dict[str, Any]) -> None:
        """The config that a worker came to: the first begins the run folder, the others must have the same."""
        if self.config is not None:
            if differ := apart(self.config, made["config"]):
                raise InterpError(f"the worker on {seat.host} has something else than another: {'; '.join(differ)}.")
            return
        self.config, self.subject = made["config"], made["subject"]
        if self.ready is not None and (differ := apart(self.ready.config, self.config)):
            raise InterpError(
                f"the worker on {seat.host} has something else than this process: {'; '.join(differ)}; set the device "
                "and the precision that the workers have."
            )
        for note in made["notes"]:
            self.say(note)
        out = self.task.out
        if _begun_alone(out) and self.resume:
            raise InterpError(f"the run in {out} was begun by one process; go on with it without --cluster.")
        self.count = dealt_into(out)
        if not self.count and (strays := shards_below(out)):
            raise InterpError(f"below {out} lies {strays[0].name} already; merge its shards, or choose another --out.")
        writer = RunWriter.create(out, self.config, self.task.request.config_file, resume=self.resume)
        self.writer, self.created = writer, writer.config["created"]
        if writer.was_finished:
            self.finished = True
            return
        self.count = self.count or self.place.workers
        self.todo.extend(Shard(number, self.count) for number in range(1, self.count + 1))

    def _give(self, seat: _Seat) -> None:
        """Hand the next piece of work to a worker that has none."""
        seat.step, seat.call = None, None
        if self.finished or self.count == 0:
            return
        if not self.todo and len(self.done) == self.count and not any(one.step == "merge" for one in self.seats):
            self.todo.append("merge")
            self._close()
        if not self.todo:
            return  # it waits, for a shard whose worker may be lost
        step = seat.step = self.todo.popleft()
        if isinstance(step, Shard):
            weigh = step.number == 1 and self.announce is not None and not self.losses[step]
            seat.call = seat.actor.shard.remote(step, self.created, weigh)
        else:
            seat.call = seat.actor.merge.remote(self.count, self.created)

    def _replace(self, seat: _Seat, why: str) -> None:
        """Another worker in the place of one that is lost, whose work is done again, or an error after `TRIES`."""
        step, seat.call = seat.step, None
        assert step is not None
        where = self._named(step)
        if isinstance(step, Shard) or step == "merge":
            self.todo.appendleft(step)
            self.losses[step] += 1
            times = self.losses[step]
        else:
            times = seat.losses = seat.losses + 1
        if times >= TRIES:
            raise InterpError(
                f"the worker at {where} was lost {TRIES} times, the last time on {seat.host} ({why}); look for what "
                "ends it (too little memory?), then go on with --resume."
            )
        log.warning("the worker on %s was lost at %s: %s", seat.host, where, why)
        self.say(f"the worker on {seat.host} was lost at {where}; another goes on ({times} of {TRIES - 1})")
        actor = self._start()
        seat.actor, seat.call, seat.step = actor, actor.hello.remote(), "hello"
        for idle in [one for one in self.seats if one.step is None]:
            self._give(idle)

    def _named(self, step: Step) -> str:
        if isinstance(step, Shard):
            return f"shard {step} in {self.task.out / step.folder}"
        return {"hello": "its start", "prepare": "the opening of the model", "merge": "merging"}[step]

    def _error(self, fault: Fault, step: Step) -> InterpError:
        if fault.no_shards:
            return NoShards(fault.text)
        if fault.report is not None:
            where = f" Its reports are in {self.task.out / step.folder}." if isinstance(step, Shard) else ""
            return CheckFailed(f"{fault.text}{where}", fault.report)
        if fault.details:
            log.error("%s failed\n%s", self._named(step), fault.details)
            return InterpError(f"{self._named(step)}: {fault.text}")
        return InterpError(fault.text)

    def halt(self, *, at_once: bool) -> None:
        """Let the workers end behind their chunks, or before their next passes, and wait until they have."""
        at_work = [seat for seat in self.seats if isinstance(seat.step, Shard) or seat.step == "merge"]
        for seat in at_work:
            seat.actor.stop.remote(at_once)
        while calls := {seat.call: seat for seat in at_work if seat.call is not None}:
            for call in self.ray.wait(list(calls), num_returns=1, timeout=WAIT_S)[0]:
                seat = calls[call]
                try:
                    seat.call = seat.actor.look.remote() if self.ray.get(call).active else None
                except self.ray.exceptions.RayError:
                    seat.call = None

    def take_back(self) -> None:
        """Remove what the run has begun, where nothing of it was computed."""
        shards = shards_below(self.task.out) if self.writer is not None else []
        if self.writer is None or any(holds_chunks(folder) for folder in shards):
            return
        for folder in shards:
            delete_run(folder)
        self.writer.abandon()

    def _close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def dismiss(self) -> None:
        """End the workers and let others write."""
        self._close()
        for seat in self.seats:
            self.ray.kill(seat.actor)
