"""Jobs: one a key, progress and remaining time, cancelling, kept results. Events order the threads, never sleeps."""

import gc
import logging
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from interp_core import jobs as jobs_module
from interp_core.errors import InterpError
from interp_core.jobs import Cancelled, Job, JobManager, PassLock, Progress

T = TypeVar("T")
SOON = 10.0  # seconds after which a test gives up


class Gate:
    """Work that says when it has begun and goes on, step by step, when it is let."""

    def __init__(self, result: object = "result") -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.calls = 0
        self.result = result

    def __call__(self, progress: Progress) -> object:
        self.calls += 1
        self.begun.set()
        assert self.go.wait(SOON)
        progress(1, 2, "half")
        return self.result


@pytest.fixture
def manager() -> Iterator[JobManager]:
    manager = JobManager()
    yield manager
    assert manager.close(SOON)


def finished(job: Job[T]) -> Job[T]:
    assert job.wait(SOON)
    return job


def test_a_job_goes_from_queued_over_running_to_done_with_its_result_and_progress(manager: JobManager) -> None:
    first, second = Gate("first"), Gate("second")
    one, two = manager.submit("a", "A", first), manager.submit("b", "B", second)
    assert first.begun.wait(SOON)
    assert (one.status, two.status, two.remaining_seconds(), two.elapsed_seconds()) == ("running", "queued", None, 0.0)
    assert one.active and not one.wait(0)
    first.go.set()
    finished(one)
    assert (one.status, one.result, one.error) == ("done", "first", None)
    assert (one.done, one.total, one.note) == (1, 2, "half")
    second.go.set()
    assert finished(two).result == "second"


def test_a_second_submit_of_a_key_gets_the_queued_running_or_done_job(manager: JobManager) -> None:
    gate = Gate()
    blocker = Gate()
    manager.submit("blocker", "B", blocker)
    job = manager.submit("a", "A", gate)
    assert manager.submit("a", "A", gate) is job and job.status == "queued"
    blocker.go.set()
    assert gate.begun.wait(SOON) and manager.submit("a", "A", gate) is job
    gate.go.set()
    assert manager.submit("a", "A", gate) is finished(job)
    assert gate.calls == 1


def test_many_threads_that_submit_one_key_share_one_run() -> None:
    manager = JobManager(max_workers=4)
    gate = Gate()
    gate.go.set()
    barrier = threading.Barrier(16)
    got: list[Job[object]] = []

    def ask() -> None:
        barrier.wait()
        got.append(manager.submit("a", "A", gate))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 1 and finished(got[0]).status == "done" and gate.calls == 1


def test_jobs_run_in_the_order_of_their_submission(manager: JobManager) -> None:
    order: list[int] = []
    gate = Gate()
    manager.submit("gate", "G", gate)

    def work(i: int, progress: Progress) -> None:
        order.append(i)

    jobs = [manager.submit(str(i), str(i), partial(work, i)) for i in range(20)]
    gate.go.set()
    for job in jobs:
        finished(job)
    assert order == list(range(20))


def test_as_many_jobs_run_at_once_as_there_are_workers_and_never_more() -> None:
    manager = JobManager(max_workers=2)
    running, most = [0], [0]
    lock = threading.Lock()
    meeting = threading.Barrier(2)

    def work(progress: Progress) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        meeting.wait(SOON)  # breaks unless two run side by side
        progress(1, 1)
        with lock:
            running[0] -= 1

    for job in [manager.submit(str(i), str(i), work) for i in range(20)]:
        assert finished(job).status == "done"
    assert most[0] == 2


def test_a_running_job_stops_at_its_next_step_and_a_queued_one_never_starts(manager: JobManager) -> None:
    gate, waiting = Gate(), Gate()
    running, queued = manager.submit("a", "A", gate), manager.submit("b", "B", waiting)
    assert gate.begun.wait(SOON)
    queued.cancel()
    assert queued.status == "cancelled" and queued.wait(0)
    running.cancel()
    assert running.status == "running" and running.cancel_requested
    gate.go.set()
    assert finished(running).status == "cancelled"
    assert (running.result, running.error, waiting.calls) == (None, None, 0)


def test_no_pass_of_a_job_begins_once_it_is_cancelled_and_those_of_others_go_on(manager: JobManager) -> None:
    lock, begun, go, passes = PassLock(), threading.Event(), threading.Event(), [0]

    def passing(progress: Progress) -> None:
        for _ in range(3):
            with lock, lock:  # as a hooked pass within a pass
                passes[0] += 1
            begun.set()
            assert go.wait(SOON)

    job = manager.submit("a", "A", passing)
    assert begun.wait(SOON)
    job.cancel()
    with lock:  # of a thread that works for no job
        pass
    go.set()
    assert finished(job).status == "cancelled" and passes == [1]
    with lock:
        pass
    again = manager.submit("a", "A", passing)  # the next job of the same thread is not meant
    assert finished(again).status == "done" and passes == [4]


def test_cancelling_passes_through_work_that_catches_exceptions(manager: JobManager) -> None:
    begun, go = threading.Event(), threading.Event()

    def stubborn(progress: Progress) -> str:
        begun.set()
        assert go.wait(SOON)
        try:
            progress(1, 2)
        except Exception:
            return "swallowed"
        return "never cancelled"

    job = manager.submit("a", "A", stubborn)
    assert begun.wait(SOON)
    job.cancel()
    go.set()
    assert finished(job).status == "cancelled"
    assert not issubclass(Cancelled, Exception)


def test_cancelling_a_finished_job_changes_nothing(manager: JobManager) -> None:
    job = finished(manager.submit("a", "A", lambda progress: 7))
    job.cancel()
    assert (job.status, job.result) == ("done", 7)
    assert manager.submit("a", "A", lambda progress: 8) is job


def test_failed_and_cancelled_jobs_can_be_submitted_again_even_while_the_old_one_still_stops() -> None:
    manager = JobManager(max_workers=2)

    def fail(progress: Progress) -> None:
        raise InterpError("no such layer.")

    failed = finished(manager.submit("a", "A", fail))
    assert failed.status == "failed"
    assert finished(manager.submit("a", "A", lambda progress: 1)).result == 1
    slow = Gate()
    stopping = manager.submit("b", "B", slow)
    assert slow.begun.wait(SOON)
    stopping.cancel()
    again = manager.submit("b", "B", lambda progress: 2)
    assert again is not stopping and finished(again).result == 2
    slow.go.set()
    assert finished(stopping).status == "cancelled" and manager.get("b") is again
    assert manager.close(SOON)


def test_what_the_caller_can_fix_is_kept_as_its_sentence_and_anything_else_with_its_traceback(
    manager: JobManager, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong_input(progress: Progress) -> None:
        raise InterpError("layer=12 is outside gpt2's 12 layers (valid: 0 to 11).")

    def bug(progress: Progress) -> None:
        raise KeyError("resid\nmore lines")

    job = finished(manager.submit("a", "Patch", wrong_input))
    assert job.error == "layer=12 is outside gpt2's 12 layers (valid: 0 to 11)." and job.traceback is None
    with caplog.at_level(logging.ERROR):
        job = finished(manager.submit("b", "Patch every layer", bug))
    assert job.status == "failed"
    assert (
        job.error == r"Patch every layer failed unexpectedly (KeyError: 'resid\nmore lines'); the log has the details."
    )
    assert job.traceback is not None and "in bug" in job.traceback
    assert "in bug" in caplog.text


def test_a_worker_survives_work_that_raises_system_exit(manager: JobManager) -> None:
    def leave(progress: Progress) -> None:
        sys.exit(3)

    assert finished(manager.submit("a", "A", leave)).status == "failed"
    assert finished(manager.submit("b", "B", lambda progress: 5)).result == 5


def test_a_finished_job_keeps_neither_its_work_nor_the_frames_of_its_failure(manager: JobManager) -> None:
    class Large:
        pass

    def submit(key: str, fails: bool) -> tuple[Job[object], "weakref.ref[Large]"]:
        large = Large()

        def work(progress: Progress) -> object:
            local = large
            if fails:
                raise RuntimeError(f"{local}")
            return None

        return manager.submit(key, key, work), weakref.ref(large)

    for fails in (False, True):
        job, reference = submit(str(fails), fails)
        finished(job)
        for _ in range(100):  # the worker may still be leaving the frame
            gc.collect()
            if reference() is None:
                break
            time.sleep(0.01)
        assert reference() is None


class Clock:
    """Stands in for the module's `time`: moves only when told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


def test_the_remaining_time_follows_the_recent_speed_and_counts_down_between_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(jobs_module, "time", clock)
    seen: list[float | None] = []

    def work(progress: Progress) -> None:
        def step(done: int, seconds: float, total: int = 200) -> None:
            clock.now += seconds
            progress(done, total)
            seen.append(job.remaining_seconds())

        step(0, 5.0)  # one point has no speed
        for done in range(1, 11):
            step(done, 2.0)  # 2 s a step
        clock.now += 1.5
        seen.append(job.remaining_seconds())
        for done in range(11, 100):
            step(done, 0.8)  # faster, for more than the window
        step(0, 1.0, total=10)  # another phase
        step(5, 2.0, total=10)

    job: Job[None] = Job("a", "A", work)
    job._run()
    assert job.status == "done" and job.error is None
    assert seen[:3] == [None] * 3 and seen[3] == pytest.approx(197 * 2.0), "a first step may be that of a warm-up"
    assert seen[10] == pytest.approx(190 * 2.0)
    assert seen[11] == pytest.approx(190 * 2.0 - 1.5)
    assert seen[100] == pytest.approx(101 * 0.8, rel=0.02)
    assert seen[101] is None and seen[102] == pytest.approx(2.0)
    assert job.remaining_seconds() is None and job.elapsed_seconds() == pytest.approx(5 + 20 + 1.5 + 89 * 0.8 + 3)
    assert clock.slept == pytest.approx(0.001 * 102)


def test_there_is_no_remaining_time_while_nothing_is_known_or_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(jobs_module, "time", clock)
    seen: list[float | None] = []

    def work(progress: Progress) -> None:
        for done, total in ((0, 0), (0, 0), (0, 0), (4, 4), (4, 4), (4, 4)):
            clock.now += 3.0
            progress(done, total, "waiting")
            seen.append(job.remaining_seconds())

    job: Job[None] = Job("a", "A", work)
    job._run()
    assert job.error is None and seen == [None] * 6


def test_thousands_of_quick_steps_are_kept_as_a_short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(jobs_module, "time", clock)
    remaining: list[float | None] = []

    def work(progress: Progress) -> None:
        for done in range(100_000):
            clock.now += 0.001
            progress(done, 100_000)
        remaining.append(job.remaining_seconds())
        assert len(job._samples) <= 60.0 / 0.1

    job: Job[None] = Job("a", "A", work)
    job._run()
    assert job.error is None and remaining == [pytest.approx(0.001)]


def test_progress_lets_another_thread_have_a_lock_that_the_work_takes_again_and_again(manager: JobManager) -> None:
    lock = threading.Lock()
    begun, stop = threading.Event(), threading.Event()

    def greedy(progress: Progress) -> None:
        done = 0
        while not stop.is_set():
            with lock:
                begun.set()
                end = time.perf_counter() + 0.005
                while time.perf_counter() < end:
                    pass
            done += 1
            progress(done, 0)

    manager.submit("a", "A", greedy)
    assert begun.wait(SOON)
    waits = []
    for _ in range(10):
        start = time.perf_counter()
        with lock:
            waits.append(time.perf_counter() - start)
        time.sleep(0.01)
    stop.set()
    assert sorted(waits)[5] < 0.1  # a few steps of 5 ms, never starved


def test_only_the_last_finished_jobs_are_kept_and_asking_for_one_keeps_it_longer() -> None:
    manager = JobManager(max_finished=3)
    for key in "abc":
        finished(manager.submit(key, key, lambda progress: 0))
    assert manager.close(SOON)
    assert manager.get("a") is not None
    finished(manager.submit("d", "d", lambda progress: 0))
    assert manager.close(SOON)  # the worker tidies up after the last job
    assert [job.key for job in manager.jobs()] == ["d", "c", "a"]
    assert manager.get("b") is None


def test_close_cancels_everything_and_waits_for_what_runs() -> None:
    manager = JobManager()
    gate = Gate()
    running, queued = manager.submit("a", "A", gate), manager.submit("b", "B", gate)
    assert gate.begun.wait(SOON)
    assert manager.close(timeout=0.05) is False  # it has not reached a step yet
    gate.go.set()
    assert manager.close(SOON) is True
    assert (running.status, queued.status, gate.calls) == ("cancelled", "cancelled", 1)


def test_a_program_that_ends_stops_its_jobs_instead_of_waiting_for_them() -> None:
    code = (
        "import sys, time; from interp_core.jobs import JobManager\n"
        "def work(progress):\n"
        "    try:\n"
        "        for i in range(3000): time.sleep(0.01); progress(i, 3000)\n"
        "    finally: sys.stdout.write('stopped'); sys.stdout.flush()\n"
        "manager = JobManager(); manager.submit('a', 'A', work); manager.submit('b', 'B', work); time.sleep(0.3)\n"
    )
    start = time.monotonic()
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=25)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped", "")
    assert time.monotonic() - start < 20


def test_a_manager_without_workers_is_refused() -> None:
    with pytest.raises(InterpError, match="max_workers=0"):
        JobManager(max_workers=0)


def test_who_asked_for_one_job_does_not_wait_behind_the_ten_of_somebody_else(manager: JobManager) -> None:
    gate, order = Gate(), []
    manager.submit("gate", "Gate", gate).asked_by.add("ann")

    def put(key: str, *who: str) -> Job[None]:
        job: Job[None] = manager.submit(key, key, lambda progress: order.append(key))
        job.asked_by.update(who)
        return job

    jobs = [put(f"ann {number}", "ann") for number in range(4)]
    jobs += [put("bob 0", "bob"), put("bob 1", "bob"), put("nobody's"), put("of both", "ann", "cleo")]
    gate.go.set()
    for job in jobs:
        finished(job)
    assert order == ["bob 0", "nobody's", "of both", "bob 1", "ann 0", "ann 1", "ann 2", "ann 3"]
