"""Runs of every kind for a stretch of time in one process: memory flat, bounds kept, nothing left behind.

python -m benchmarks.soak --minutes 10

Tiny random models, so that minutes hold what a laboratory's models take hours for: sweeps at every site and strength,
over clips that do not all fit into the cache and two models of which one fits, in memory and into folders, some of them
cancelled, refused or gone on with. A line every fifty runs says what the process holds. It ends in exit code 1 where

- the last fifth takes over 3 % and 20 MB more resident memory (median) than the fifth behind the warm-up,
- the cache of clean runs or the models took more than their bound at any time,
- a thread, a hook on a model, an open file, a lock, a draft or an entry of the temporary folder is left at the end.
"""

import argparse
import gc
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from interp_core.cache import nbytes_of
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.experiment import run, start
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.request import PatchRequest
from interp_core.jobs import Cancelled, JobManager
from interp_core.models.shelf import weight_bytes
from tests.corpus import full_request, quick_request, write_corpus
from tests.tiny import save_qwen2_audio

CACHE_BYTES, RESULT_BYTES = 3 << 20, 2 << 20
"""Less than the clean runs of one model take; and a few results of finished jobs, so that both are full soon."""
SITES = ("resid_post", "resid_pre", "attn_out", "mlp_out")
GROWTH, SLACK_MB = 1.03, 20.0
HOOKS = "interp_core.trace.hooks"


def asked(models: list[Path], manifest: Path, rng: random.Random, number: int) -> PatchRequest:
    """The next run."""
    request = replace(
        (full_request if number % 20 == 0 else quick_request)(rng.choice(models), manifest), seed=number,
        alphas=(rng.choice((1.0, 0.5)),), site=rng.choice(SITES), checks=number % 20 == 0,
    )  # fmt: skip
    return replace(request, max_seconds=0.2) if number % 17 == 0 else request  # refused: every clip is longer


def one_run(engine: Engine, request: PatchRequest, place: Path, number: int) -> str:
    """Run it, in one of four ways; how it ended."""
    if number % 2:
        job = start(PATCHING, engine, request, place / "runs" if number % 8 == 1 else None)
        if number % 6 == 1:
            time.sleep(0.05)
            job.cancel()
        job.wait()
        return job.status
    if number % 16 == 0:
        stops = iter(range(3))

        def progress(done: int, total: int, note: str = "") -> None:
            if next(stops, None) is None:
                raise Cancelled

        try:
            run(PATCHING, engine, request, out=place / "runs" / f"two {number}", progress=progress)
        except Cancelled:
            run(PATCHING, engine, request, out=place / "runs" / f"two {number}", resume=True)
            return "gone on with"
    run(PATCHING, engine, request)
    return "done"


def left(engine: Engine, place: Path, threads: set[int], files: set[str]) -> Iterator[str]:
    """What should not be there any more, once everything is over."""
    yield from (f"thread {one.name}" for one in threading.enumerate() if one.ident not in threads or "jobs" in one.name)
    for key, subject, _ in engine.models._models.held():
        for name, module in subject.hf.named_modules():
            hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
            yield from (f"hook on {name} of {key}" for hook in hooks if hook.__module__ == HOOKS)
    yield from (f"open file {path}" for path in open_files() - files)
    temporary = Path(tempfile.gettempdir())
    yield from (f"temporary {path}" for path in temporary.iterdir())
    yield from (f"{path}" for path in (place / "runs").rglob(".*"))


def open_files() -> set[str]:
    """Paths that this process has open."""
    return {one.path for one in psutil.Process().open_files()}


def resident_mb() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        place, rng = Path(folder), random.Random(said.seed)
        for name in ("runs", "temporary"):
            (place / name).mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(place / "temporary")
        models = [save_qwen2_audio(place / name, seed=at) for at, name in enumerate(("one", "other"))]
        manifest = write_corpus(place / "corpus", texts=6)
        probe = Engine()
        of_one = weight_bytes(probe.open(str(models[0]), "cpu", "float32"))
        probe.jobs.close()
        probe.openings.close()
        engine = Engine(cache_bytes=CACHE_BYTES, model_bytes=int(1.5 * of_one))
        engine.jobs = JobManager(max_bytes=RESULT_BYTES, measure=nbytes_of)
        ended: Counter[str] = Counter()
        memory: list[tuple[float, float]] = []
        most_cache = most_models = number = 0
        threads, files, started = set[int](), set[str](), time.monotonic()
        while (passed := (time.monotonic() - started) / 60) < said.minutes:
            number += 1
            request = asked(models, manifest, rng, number)
            try:
                ended[one_run(engine, request, place, number)] += 1
            except InterpError:
                ended["refused"] += 1
            most_cache = max(most_cache, engine.cache.stats().nbytes)
            most_models = max(most_models, sum(one.nbytes for one in engine.models.opened()))
            if not threads and passed > said.minutes / 5:  # what the libraries start once is there by now
                threads = {one.ident for one in threading.enumerate() if one.ident is not None}
                files = open_files()
            if number % 5 == 0:
                memory.append((passed, resident_mb()))
            if number % 50 == 0:
                held = f"{threading.active_count()} threads, {psutil.Process().num_fds()} descriptors"
                print(f"{passed:5.1f} min {number:5d} runs {memory[-1][1]:7.1f} MB, {held}")
                sys.stdout.flush()
        asked_for = engine.cache.stats().hits + engine.cache.stats().misses
        engine.jobs.close()
        engine.openings.close()
        faults += left(engine, place, threads, files)
    fifth = max(1, len(memory) // 5)
    before = statistics.median(one for _, one in memory[fifth : 2 * fifth])
    after = statistics.median(one for _, one in memory[-fifth:])
    if after > GROWTH * before + SLACK_MB:
        faults.append(f"resident memory grew from {before:.0f} to {after:.0f} MB")
    if most_cache > CACHE_BYTES or most_models > 1.5 * of_one:
        faults.append(f"the cache took {most_cache} of {CACHE_BYTES} bytes, models {most_models} of {1.5 * of_one:.0f}")
    print(f"{number} runs in {said.minutes:g} minutes: {dict(ended)}; clean runs were asked for {asked_for} times")
    print(f"resident: {before:.1f} MB behind the warm-up, {after:.1f} MB at the end, medians of a fifth of the time")
    print(f"at most: cache {most_cache} of {CACHE_BYTES} bytes, models {most_models} of {1.5 * of_one:.0f} bytes")
    print(f"{len(faults)} faults")
    print("\n".join(Counter(faults)))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
