"""What it costs to run on workers of this machine: two or more against one process that has the same cores.

Both compute the same patching run, in turns. One process uses all cores by threads; the workers share them, one model
each. Of the cluster's time the start (Ray, and in each worker the imports and the model) is told apart from the shards
and the merge, because it does not grow with the run. The opening of the model of the one process is not counted.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from interp_core.engine import Engine
from interp_core.experiments import experiment_of
from interp_core.experiments.cluster.run import Cluster, run_on
from interp_core.experiments.experiment import run
from interp_core.experiments.patching.request import PatchRequest

WANTED = 1.15
"""Shards and merge over the one process, at most."""


class Phases:
    """Progress that notes when the shards and the merge began."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.shards = self.merge = 0.0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if note.startswith("merging"):
            self.merge = self.merge or now
        elif note.endswith("workers") and total:
            self.shards = self.shards or now

    def ended(self) -> tuple[float, float, float]:
        """Seconds of the start, the shards and the merge."""
        merge = self.merge or time.monotonic()
        return self.shards - self.started, merge - self.shards, time.monotonic() - merge


def one_process(request: PatchRequest, out: Path) -> float:
    """Seconds of the run in this process, with its model open and nothing in its cache."""
    engine, experiment = Engine(), experiment_of("patch")
    ready = experiment.prepare(engine, request)
    started = time.monotonic()
    run(experiment, engine, request, out=out, ready=ready)
    return time.monotonic() - started


def on_workers(request: PatchRequest, out: Path, workers: int) -> tuple[float, float, float]:
    """Seconds of start, shards and merge."""
    phases = Phases()
    run_on(Cluster("local", workers), experiment_of("patch"), Engine(), request, out=out, progress=phases)
    return phases.ended()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)  # each worker gets its share of the cores
    torch.set_num_threads(os.cpu_count() or 1)
    request = PatchRequest(
        "demo-emotion",
        kinds="prosody",
        max_pairs=asked.pairs,
        checks=False,
        flow=(),
        controls=(),
        device="cpu",
        dtype="float32",
    )
    ratios, walls = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(asked.rounds):
            alone = one_process(request, Path(folder) / f"one-{number}")
            start, shards, merge = on_workers(request, Path(folder) / f"cluster-{number}", asked.workers)
            ratios.append((shards + merge) / alone)
            walls.append((start + shards + merge) / alone)
            print(
                f"round {number + 1}: one process {alone:.1f} s; {asked.workers} workers: start {start:.1f} s, shards "
                f"{shards:.1f} s, merge {merge:.1f} s; shards and merge / one process {ratios[-1]:.2f}",
                flush=True,
            )
    middle = statistics.median(ratios)
    print(f"shards and merge / one process: median {middle:.2f}; with the start {statistics.median(walls):.2f}")
    return int(middle > WANTED)


if __name__ == "__main__":
    raise SystemExit(main())
