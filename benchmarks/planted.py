"""One effect that is there, in four methods, and none where labels are shuffled.

`tests/experiments/planted_encoder.py` writes a wav2vec 2.0 in which one head of one layer, in one half of the
recording, alone carries the label, another one for each seed. Whatever has an adjusted p under .05 is named: a cell of
the time map, a head of the map of heads, a layer of the layer curve, a layer of the probes. With shuffled labels the
same model and as many recordings are measured, whose labels have nothing to do with how they sound. A planted effect
that is not named, or more shuffled sets with something named than a rate of .05 gives in 99 of 100 such counts, end in
exit code 1.

    python -m benchmarks.planted                        # 20 seeds, 100 shuffled sets; about 6 minutes of a core
    python -m benchmarks.planted --seeds 3 --sets 0     # some
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from scipy.stats import beta, binom

from interp_core.engine import Engine
from interp_core.experiments.patching.head_table import named
from interp_core.maths.stats import SIGNIFICANT
from tests.experiments.planted_encoder import carrier, maps, probes, save_clips, save_encoder

METHODS = ("time map", "map of heads", "layer curve", "probes")
Named = Mapping[str, list[tuple[int, ...]]]


def found(model: Path, manifest: Path, seed: int) -> Named:
    """What each method names: (layer, window), (layer, head), (layer,), (layer,)."""
    engine = Engine()
    mapped = maps(engine, model, manifest, seed)
    read = probes(engine, model, manifest, seed)
    curve = mapped.metrics[mapped.metrics["condition"] == "matched"]
    return {
        "time map": _places(_sure(mapped.time_map), "layer", "window"),
        "map of heads": _places(named(mapped.head_map), "layer", "head"),
        "layer curve": _places(_sure(curve), "layer"),
        "probes": _places(_sure(read.table), "layer"),
    }


def wanted(seed: int) -> Named:
    """What was planted, as `found` says it."""
    layer, head, half = carrier(seed)
    return {"time map": [(layer, half)], "map of heads": [(layer, head)], "layer curve": [(layer,)],
            "probes": [(layer,)]}  # fmt: skip


def _sure(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["p_adjusted"] < SIGNIFICANT]


def _places(table: pd.DataFrame, *columns: str) -> list[tuple[int, ...]]:
    return sorted(tuple(map(int, row)) for row in table[list(columns)].itertuples(index=False))


def set_of(folder: Path, seed: int, *, shuffled: bool = False) -> Named:
    """One set: the model of a seed and clips of its own."""
    model = save_encoder(folder / f"model-{seed}", seed)
    return found(model, save_clips(folder / f"clips-{seed}", seed, shuffled=shuffled), seed)


def limits(count: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson 95 % limits of a rate."""
    low = float(beta.ppf(0.025, count, n - count + 1)) if count else 0.0
    return low, float(beta.ppf(0.975, count + 1, n - count)) if count < n else 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="planted effects")
    parser.add_argument("--sets", type=int, default=100, help="sets with shuffled labels")
    args = parser.parse_args()
    hit, alone, false = ({method: 0 for method in METHODS} for _ in range(3))
    with tempfile.TemporaryDirectory() as kept:
        for seed in range(args.seeds):
            made, planted = set_of(Path(kept), seed), wanted(seed)
            for method in METHODS:
                hit[method] += set(planted[method]) <= set(made[method])
                alone[method] += planted[method] == made[method]
            print(f"seed {seed}, planted {carrier(seed)}: {made}", file=sys.stderr, flush=True)
        for seed in range(1000, 1000 + args.sets):
            made = set_of(Path(kept), seed, shuffled=True)
            for method in METHODS:
                false[method] += bool(made[method])
            print(f"shuffled {seed}: {made}", file=sys.stderr, flush=True)
    most = int(binom.ppf(0.99, args.sets, SIGNIFICANT)) if args.sets else 0
    print("| method | names what was planted | and nothing else | names something where labels are shuffled (95 %) |")
    print("| --- | --- | --- | --- |")
    for method in METHODS:
        low, high = limits(false[method], args.sets) if args.sets else (0.0, 1.0)
        print(
            f"| {method} | {hit[method]} of {args.seeds} | {alone[method]} of {args.seeds} | "
            f"{false[method]} of {args.sets} ({low:.3f} to {high:.3f}) |"
        )
    print(f"of a rate of {SIGNIFICANT} at most {most} of {args.sets} sets are named in 99 of 100 counts")
    failed = any(hit[method] < args.seeds or false[method] > most for method in METHODS)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
