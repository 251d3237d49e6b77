"""What a map of heads costs beside patching every head, and how far its estimates follow those patches.

    python benchmarks/head_map.py            # 24 prosody pairs of demo-emotion, all 48 heads; some minutes
    python benchmarks/head_map.py --pairs 4

Estimate: one pass of B, one of A forward and back, with the attention weights read on the way, for all heads at once.
Truth: every head patched by itself, by the model's own forward with one hook (`reference`: a pass a head), and by the
fast route, whose numbers are compared with the reference's. Clean runs are not cached; seconds are of process CPU time,
summed over pairs. Exit code 1: Spearman's correlation of the mean estimates with the mean true effects of all heads
under 0.9, an estimate less than 10 times cheaper than the reference, or routes apart by more than 1e-4.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from interp_core.choices import Method
from interp_core.engine import Engine
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.head_map import parts_of, true_changes
from interp_core.experiments.patching.head_table import spearman_rows
from interp_core.experiments.patching.positions import align_positions
from interp_core.experiments.patching.request import PatchRequest
from interp_core.sites import Site
from interp_core.trace.attribution import attribute
from interp_core.trace.clean import clean_runs
from interp_core.trace.patch import Patch

LEAST_SPEARMAN, LEAST_CHEAPER, TOLERANCE = 0.9, 10.0, 1e-4
TOP = 5
METHODS: tuple[Method, ...] = ("reference", "fast")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=24)
    args = parser.parse_args()
    torch.set_num_threads(1)
    request = PatchRequest("demo-emotion", kinds="prosody", max_pairs=args.pairs, device="cpu", dtype="float32")
    ready = PATCHING.prepare(Engine(), request)
    plan, store = ready.plan, ready.store
    subject, labels = store.subject, plan.labels[0]
    seconds: dict[str, float] = dict.fromkeys(("estimate", *METHODS), 0.0)
    estimates: list[list[float]] = []
    truth: dict[Method, list[np.ndarray]] = {method: [] for method in METHODS}
    for pair in plan.pairs.pairs:
        stems = [store.prompted(clip, ready.request.prompts[0]) for clip in (pair.recipient, pair.donor)]
        target = labels.labels.index(pair.target)
        a = clean_runs(subject, stems[:1], ("head_out",))[0]
        started = time.process_time()
        b = clean_runs(subject, stems[1:], ("head_out",))[0]
        aligned = align_positions(a.prompted, b.prompted)
        patch = Patch(a, b, aligned.positions, aligned.source)
        (slopes,), _ = attribute(subject, [patch], labels, target, ("head_out",), attention=True)
        seconds["estimate"] += time.process_time() - started
        heads = parts_of(subject, b, ("head_out",))
        estimates.append([float(slopes[Site(h.site, h.layer)][h.first : h.stop].sum()) for h in heads])
        for method in METHODS:
            started = time.process_time()
            truth[method].append(true_changes(plan, store, [patch], [target], 0, heads, method)[0])
            seconds[method] += time.process_time() - started
    found, true, fast = np.array(estimates), np.array(truth["reference"]), np.array(truth["fast"])
    rho = float(spearman_rows(found.mean(0)[None], true.mean(0)[None])[0])
    within = spearman_rows(found, true)
    shared = [
        len(set(np.argsort(-abs(x))[:TOP]) & set(np.argsort(-abs(y))[:TOP])) for x, y in zip(found, true, strict=True)
    ]
    both = (found != 0) & (abs(true) > 1e-6)
    apart = float(abs(true - fast).max())
    cheaper: dict[str, float] = {method: seconds[method] / seconds["estimate"] for method in METHODS}
    print(f"{len(found)} pairs, {found.shape[1]} heads, CPU seconds a pair:")
    for name, spent in seconds.items():
        ratio = "" if name == "estimate" else f"   the estimate is {cheaper[name]:.1f} times cheaper"
        print(f"  {name:<10} {spent / len(found):.3f}{ratio}")
    print(
        f"  Spearman of mean estimate and mean truth over all heads {rho:.3f}; a pair: median {np.median(within):.3f}"
    )
    print(
        f"  of the {TOP} largest true heads of a pair, {np.median(shared):g} are among its largest estimates (median)"
    )
    print(
        f"  wrong sign in {100 * (np.sign(found) != np.sign(true))[both].mean():.1f} % of {both.sum()} pairs and heads"
    )
    print(f"  fast and reference differ by {apart:.1e} nats at most")
    return int(rho < LEAST_SPEARMAN or cheaper["reference"] < LEAST_CHEAPER or apart > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
