"""What a server keeps of many jobs: runs a tiny model's sweep again and again, every second one cancelled, and prints

    jobs, resident memory, bytes of the cache of clean runs and of kept results, live Python objects

at a few points. Everything that is kept is bounded, so that the lines stop rising once the bounds are reached:

    python -m benchmarks.memory --jobs 200
"""

import argparse
import gc
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from interp_core.cache import nbytes_of
from interp_core.engine import Engine
from interp_core.experiments.experiment import start
from interp_core.experiments.patching.experiment import PATCHING
from tests.corpus import quick_request, write_corpus
from tests.tiny import save_qwen2_audio

CACHE_BYTES = 20 << 20


def main() -> None:
    """Run the jobs, and print a line now and then."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--every", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        request = quick_request(save_qwen2_audio(place / "model"), write_corpus(place / "corpus"))
        engine = Engine(cache_bytes=CACHE_BYTES)
        for number in range(1, asked.jobs + 1):
            job = start(PATCHING, engine, replace(request, seed=number), place / "runs")
            if number % 2:
                time.sleep(0.1)
                job.cancel()
            job.wait()
            if number in (1, 10) or number % asked.every == 0:
                sys.stdout.write(f"{number:4d} jobs  {_state(engine)}\n")
                sys.stdout.flush()


def _state(engine: Engine) -> str:
    gc.collect()
    resident = psutil.Process().memory_info().rss / 2**20
    results = sum(nbytes_of(job.result) for job in engine.jobs.jobs()) / 2**20
    cache = engine.cache.stats().nbytes / 2**20
    objects = len(gc.get_objects()) / 1000
    return f"{resident:7.1f} MB resident  cache {cache:5.1f} MB  results {results:5.1f} MB  {objects:6.1f} k objects"


if __name__ == "__main__":
    main()
