"""Long work in background threads: one job a key, with progress, a remaining time, cancelling, and a kept result.

The key names what is computed, so a second session that asks for the same sweep gets the job that already runs.
"""

import itertools
import logging
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

from interp_core.errors import InterpError

T = TypeVar("T")
Status = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED: tuple[Status, ...] = ("done", "failed", "cancelled")
RATE_WINDOW_S = 60.0  # the speed is that of the last minute: a warm-up or a slow first phase is forgotten
SETTLED_STEPS, SETTLED_S = 3, 2.0  # of a phase: before these its speed may be that of a warm-up
SAMPLE_EVERY_S = 0.2
YIELD_S = 0.001

log = logging.getLogger(__name__)


class Progress(Protocol):
    """What work calls between its steps: how many of how many are done, and what is being done."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def silent(done: int, total: int, note: str = "") -> None:
    """Progress, for those who do not watch."""


class Cancelled(BaseException):
    """Raised inside cancelled work; not an Exception, so that `except Exception` lets it pass."""


_of_thread = threading.local()


def stop_if_cancelled() -> None:
    """Between two steps of work, however small: raise `Cancelled` if this thread works for a job that is to stop."""
    job = getattr(_of_thread, "job", None)
    if job is not None and job.to_stop:
        raise Cancelled


class PassLock:
    """The reentrant lock that each pass of a model holds; no pass of a job that is to stop begins."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        stop_if_cancelled()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Job(Generic[T]):
    """One piece of work. Made by `JobManager.submit`; every method and attribute may be used from any thread.

    Attributes:
        key, title: what it computes; what a person is told that it does.
        submitted_at: seconds since the epoch.
        result: what the work returned, once `status` is "done"; nbytes: the memory that it takes.
        error: one sentence for a person, once `status` is "failed".
        traceback: for the log, where the failure is not one that the caller can fix; never shown.
        so_far: what it has come to by now, while it is active; None where it tells nothing.
        place: the folder in which its result lies, if anywhere.
        asked_by: those who asked for it, by whatever name they have to whoever submits.
    """

    def __init__(
        self,
        key: str,
        title: str,
        work: Callable[[Progress], T],
        number: int = 0,
        so_far: Callable[[], Any] | None = None,
        place: Path | None = None,
    ) -> None:
        self.key = key
        self.title = title
        self.number = number
        self.submitted_at = time.time()
        self.result: T | None = None
        self.error: str | None = None
        self.traceback: str | None = None
        self.asked_by: set[str] = set()
        self.so_far = so_far
        self.place = place
        self.nbytes = 0
        self._work: Callable[[Progress], T] | None = work
        self._lock = threading.Lock()
        self._status: Status = "queued"
        self._finished = threading.Event()
        self._cancel = threading.Event()
        self._done, self._total, self._note = 0, 0, ""
        self._samples: deque[tuple[float, int]] = deque()  # (monotonic seconds, done), the newest last
        self._started: float | None = None
        self._ended: float | None = None

    @property
    def status(self) -> Status:
        """ "queued", "running", "done", "failed" or "cancelled"; a job asked to cancel runs until its next step."""
        return self._status

    @property
    def active(self) -> bool:
        """Whether it is queued or running."""
        return self._status not in FINISHED

    @property
    def done(self) -> int:
        """Steps done."""
        return self._done

    @property
    def total(self) -> int:
        """Steps in all; 0 = not known yet."""
        return self._total

    @property
    def note(self) -> str:
        """What is being done."""
        return self._note

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._cancel.is_set()

    @property
    def to_stop(self) -> bool:
        """Whether its work has to end: somebody asked for it, or the program is ending."""
        return self._cancel.is_set() or not threading.main_thread().is_alive()

    def elapsed_seconds(self) -> float:
        """Seconds of running, so far or in all; 0 while it is queued."""
        if self._started is None:
            return 0.0
        return (self._ended if self._ended is not None else time.monotonic()) - self._started

    def remaining_seconds(self) -> float | None:
        """Estimate from the speed of the last minute; None while there is none: queued, or too few steps yet."""
        with self._lock:
            if self._status != "running" or len(self._samples) < 2:
                return None
            (first_time, first_done), (last_time, last_done) = self._samples[0], self._samples[-1]
            steps = last_done - first_done
            if steps <= 0 or steps < min(SETTLED_STEPS, self._total - first_done) or last_time <= first_time:
                return None
            if last_time - first_time < SETTLED_S and last_done < self._total:
                return None
            seconds_a_step = (last_time - first_time) / (last_done - first_done)
            since = time.monotonic() - last_time
            return max(0.0, (self._total - last_done) * seconds_a_step - since)

    def cancel(self) -> None:
        """Ask it to stop: at once if it is queued, before its next pass of a model if it runs, else not."""
        self._cancel.set()
        with self._lock:
            if self._status == "queued":
                self._finish("cancelled")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is finished, at most `timeout` seconds; whether it is."""
        return self._finished.wait(timeout)

    def _progress(self, done: int, total: int, note: str = "") -> None:
        """Record a step, stop cancelled work, and let other threads have the locks that work has just released."""
        if self.to_stop:
            raise Cancelled
        now = time.monotonic()
        with self._lock:
            if total != self._total or done < self._done:  # another phase, with a speed of its own
                self._samples.clear()
            self._done, self._total, self._note = done, total, note
            if len(self._samples) > 1 and now - self._samples[-2][0] < SAMPLE_EVERY_S:
                self._samples.pop()
            self._samples.append((now, done))
            while len(self._samples) > 2 and now - self._samples[0][0] > RATE_WINDOW_S:
                self._samples.popleft()
        # A lock goes to whoever asks next, which without a pause is the thread that has just released it.
        time.sleep(YIELD_S)

    def _run(self) -> None:
        with self._lock:
            if self._status != "queued":
                return
            self._status = "running"
            self._started = time.monotonic()
            work = self._work
        assert work is not None  # dropped only when a job is finished
        _of_thread.job = self
        try:
            stop_if_cancelled()
            result = work(self._progress)
        except Cancelled:
            self._end("cancelled")
        except InterpError as error:
            self._end("failed", error=str(error))
        except BaseException as error:  # a thread has no caller who could handle it
            # Text only: a kept traceback object would keep the frames' tensors alive.
            text = "".join(traceback.format_exception(error))
            log.error("%s failed\n%s", self.title, text)
            said = (str(error).strip().splitlines() or ["no message"])[0].rstrip(".")
            sentence = f"{self.title} failed unexpectedly ({type(error).__name__}: {said}); the log has the details."
            self._end("failed", error=sentence, details=text)
        else:
            self._end("done", result=result)
        finally:
            _of_thread.job = None

    def _end(
        self, status: Status, result: T | None = None, error: str | None = None, details: str | None = None
    ) -> None:
        with self._lock:
            self.result, self.error, self.traceback = result, error, details
            self._finish(status)

    def _finish(self, status: Status) -> None:
        """Set the final status; the caller holds the lock."""
        self._ended = time.monotonic()
        self._work = self.so_far = None  # what they close over can be large
        self._status = status
        self._finished.set()


class JobManager:
    """Runs jobs in a fair order, `max_workers` at a time, and keeps the `max_finished` last results.

    Fair: who asked for one job does not wait behind the ten of somebody else; those of one person go in their order.
    Of the results it lets go of the oldest, but for the last one, while together they take more than `max_bytes` as
    `measure` counts them.

    Its threads live only while there is work. They are no daemons, because those die inside native code when the
    program ends; instead a job notices at its next step that the main thread is gone, and stops.
    """

    def __init__(
        self,
        max_workers: int = 1,
        max_finished: int = 50,
        *,
        max_bytes: int = 0,
        measure: Callable[[Any], int] = lambda result: 0,
    ) -> None:
        if max_workers < 1 or max_finished < 0:
            raise InterpError(f"max_workers={max_workers}, max_finished={max_finished}: give at least 1 and 0.")
        self._max_workers = max_workers
        self._max_finished = max_finished
        self._max_bytes = max_bytes
        self._measure = measure
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._jobs: OrderedDict[str, Job[Any]] = OrderedDict()  # the least recently asked for or finished comes first
        self._queue: deque[Job[Any]] = deque()
        self._workers = 0
        self._numbers = itertools.count()
        self._turns = itertools.count()
        self._served: dict[str, int] = {}  # of who waits: the turn in which a job of theirs last began

    def submit(
        self,
        key: str,
        title: str,
        work: Callable[[Progress], T],
        *,
        so_far: Callable[[], Any] | None = None,
        place: Path | None = None,
    ) -> Job[T]:
        """The job for `key`: the one that is queued, running or done, otherwise a new one.

        Args:
            key: names the work and all that its result depends on.
            title: what a person is told that it does.
            work: called in a worker thread with `progress(done, total, note="")`, which it calls between its steps and
                lets raise; no model's lock is held during that call. A `PassLock` taken in that thread raises too.
            so_far: called from any thread while it runs: what it has come to by now.
            place: the folder in which its result will lie, if anywhere.
        """
        with self._lock:
            known = self._jobs.get(key)
            if known is not None and (known.status == "done" or (known.active and not known.cancel_requested)):
                self._jobs.move_to_end(key)
                return cast(Job[T], known)
            job = Job(key, title, work, next(self._numbers), so_far, place)
            self._jobs[key] = job
            self._jobs.move_to_end(key)
            self._queue.append(job)
            if self._workers < self._max_workers:
                self._workers += 1
                threading.Thread(target=self._serve, name=f"jobs-{self._workers}").start()
            return job

    def get(self, key: str) -> Job[Any] | None:
        """The job for `key`, in whatever state, or None if there is none (any more)."""
        with self._lock:
            if key in self._jobs:
                self._jobs.move_to_end(key)
            return self._jobs.get(key)

    def jobs(self) -> tuple[Job[Any], ...]:
        """All jobs there are now, the last submitted first."""
        with self._lock:
            return tuple(sorted(self._jobs.values(), key=lambda job: -job.number))

    def forget(self, key: str) -> None:
        """Let go of a finished job and its result; one that is active stays."""
        with self._lock:
            if key in self._jobs and not self._jobs[key].active:
                del self._jobs[key]

    def close(self, timeout: float | None = None) -> bool:
        """Cancel every job and wait until nothing runs any more; whether that was so within `timeout` seconds."""
        for job in self.jobs():
            job.cancel()
        with self._idle:
            return self._idle.wait_for(lambda: self._workers == 0, timeout)

    def _serve(self) -> None:
        """A worker: run queued jobs until there is none."""
        while True:
            with self._lock:
                if not self._queue:
                    self._workers -= 1
                    self._idle.notify_all()
                    return
                job = self._next()
            job._run()
            job.nbytes = self._measure(job.result)
            with self._lock:
                if self._jobs.get(job.key) is job:
                    self._jobs.move_to_end(job.key)
                self._let_go()
            del job

    def _next(self) -> Job[Any]:
        """Take from the queue the job of whoever has waited longest since a job of theirs began; the caller holds the
        lock.
        """
        asked = {job: tuple(job.asked_by) or ("",) for job in self._queue}
        job = min(asked, key=lambda one: (min(self._served.get(name, -1) for name in asked[one]), one.number))
        self._queue.remove(job)
        waiting = {name for names in asked.values() for name in names}
        self._served = {name: at for name, at in self._served.items() if name in waiting}
        self._served |= dict.fromkeys(asked[job], next(self._turns))
        return job

    def _let_go(self) -> None:
        """Forget the oldest finished jobs that are too many or too large; the caller holds the lock."""
        finished = [job for job in self._jobs.values() if not job.active]
        held = sum(job.nbytes for job in finished)
        for at, job in enumerate(finished):
            left = len(finished) - at
            if left <= self._max_finished and (left == 1 or held <= self._max_bytes):
                return
            held -= job.nbytes
            del self._jobs[job.key]
