"""What the wavefront costs beside its count of block-positions, at a site that no shortcut serves.

    python -m benchmarks.wavefront                   # 120, 400 and 700 audio positions; some minutes
    python -m benchmarks.wavefront --audio 120 --threads 2

One pair, `attn_out` at every layer, on the random decoder of `sweep.py`. Rounds of the way and of clean passes in
turn; a figure is the median over rounds of (CPU time of both clean runs and the sweep / that of a clean pass). The
count is what the linear layers compute, in clean passes, and the two clean runs. More than 1.08 of it, or label logits
that are off from the model's own forward by more than 1e-4, end in exit code 1.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from statistics import median
from typing import TypeVar

os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks.scene import LABELS, Size, clips, random_subject
from benchmarks.ways import clean_pass, patch
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.sites import Kind
from interp_core.trace.clean import clean_runs
from interp_core.trace.patch import Patch, SiteSpec, sweep_layers
from interp_core.trace.sweep import Sweep, cost, sweep

ALLOWED = 1.08
TOLERANCE = 1e-4
T = TypeVar("T")


def cpu_seconds(function: Callable[[], T]) -> tuple[float, T]:
    """Process CPU time of one call, and what it returned."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def measured(subject: AudioLLM, n_audio: int, rounds: int, kind: Kind) -> tuple[float, float, float, float]:
    """Clean passes that one pair costs, as counted and as measured, seconds of a pass, and the largest difference."""
    made = clips(subject, [n_audio, n_audio], 0)
    spec = SiteSpec(kind, layers=sweep_layers(kind, subject.n_layers))

    def whole() -> tuple[Patch, Sweep]:
        a, b = (clean_runs(subject, [clip], [kind])[0] for clip in made)
        return patch(a, b), sweep(subject, [patch(a, b)], LABELS, spec)

    clean_pass(subject, made[0])  # warm-up
    ratios, passes = [], []
    for _ in range(rounds):
        around = [cpu_seconds(lambda: clean_pass(subject, made[0]))[0] for _ in range(3)]
        took, (one, found) = cpu_seconds(whole)
        around += [cpu_seconds(lambda: clean_pass(subject, made[0]))[0] for _ in range(3)]
        ratios.append(took / median(around))
        passes += around
    some = SiteSpec(kind, layers=(0, subject.n_layers // 2, subject.n_layers - 1))
    right = sweep(subject, [one], LABELS, some, method="reference").label_logits
    off = float((found.label_logits[:, list(some.layers)] - right).abs().max()) / max(1.0, float(right.abs().max()))
    return 2 + cost(subject, one, spec), median(ratios), median(passes), off


def main() -> int:
    """Print the table; 1 where the wavefront costs more than is allowed, or gives other numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=int, nargs="+", default=[120, 400, 700], help="audio positions of both clips")
    parser.add_argument("--d-model", type=int, default=512)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", default="attn_out", help="kind of site")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    subject = random_subject(Size(args.d_model, args.layers), "cpu", 0)
    print(
        f"{date.today()}, {os.cpu_count()} cores, {args.threads} threads, torch {torch.__version__}, float32, "
        f"{args.layers} layers of width {args.d_model}, {args.kind} at every layer\n"
    )
    print("| audio positions | counted passes | measured passes | measured / counted | CPU s a pass | max rel. diff |")
    print("| --- | --- | --- | --- | --- | --- |")
    faults = False
    for n_audio in args.audio:
        counted, ratio, seconds, off = measured(subject, n_audio, args.rounds, args.kind)
        beside = f"{counted:.2f} | {ratio:.2f} | {ratio / counted:.3f}"
        print(f"| {n_audio} | {beside} | {seconds:.3f} | {off:.1e} |", flush=True)
        faults |= ratio > ALLOWED * counted or not off <= TOLERANCE
    return int(faults)


if __name__ == "__main__":
    sys.exit(main())
