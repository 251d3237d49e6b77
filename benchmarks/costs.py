"""What every command says that it will take against what it takes, on bundled demos.

Each request is prepared, estimated and run in memory, as the command and the pages do it; the estimate comes first and
knows nothing of the run. That passes are those that hooks count is a test (tests/experiments/test_costs.py).

    python -m benchmarks.costs                 # all; a few minutes
    python -m benchmarks.costs steer probes    # some
"""

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

from interp_core.engine import Engine
from interp_core.experiments import EXPERIMENTS, cost, experiment_of
from interp_core.experiments.experiment import run
from interp_core.request import Request

ALLOWED = 0.3
"""By how much a measured time may differ from the predicted one, as a share of the measured one."""


def requests() -> Mapping[str, Request]:
    """One a command, as somebody would ask for a first look."""

    def asked(command: str, model: str, **settings: Any) -> Request:
        return EXPERIMENTS[command].request(model, device="cpu", dtype="float32", **settings)

    encoder = "demo-emotion-wavlm"
    return {
        "patch": asked("patch", "demo-emotion", kinds="prosody", max_pairs=12),
        "patch, time map": asked("patch", "demo-emotion", kinds="prosody", max_pairs=4, maps=("time",), controls=()),
        "compare": asked("compare", "demo-spoof-erm", pilot=40),
        "ablate": asked("ablate", encoder, at="resid_post:4", pilot=16),
        "ablate, pooled": asked("ablate", encoder),
        "signflip": asked("signflip", encoder, pilot=24),
        "heads": asked("heads", "demo-events", per_class=6),
        "probes": asked("probes", encoder, pilot=40, columns=("prosody_label",), layers=(-1, 2, 5)),
        "steer": asked("steer", encoder, pilot=16),
    }


def main() -> int:
    asked = requests()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of: {'; '.join(asked)}")
    parser.add_argument("--wall", action="store_true", help="wall time, on a machine that does nothing else")
    args = parser.parse_args()
    if wrong := [name for name in args.names if name not in asked]:
        parser.error(f"no run {', '.join(wrong)}; choose of {'; '.join(asked)}")
    cost.CLOCK = clock = time.perf_counter if args.wall else time.process_time
    print("| command | passes | predicted, s | taken, s | predicted / taken | the estimate itself, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    off = []
    for name in args.names or asked:
        made, engine = experiment_of(asked[name].command), Engine()
        ready = made.prepare(engine, asked[name])
        started = clock()
        said = made.cost(ready)
        estimated = clock()
        run(made, engine, ready.request, ready=ready)
        taken = clock() - estimated
        ratio = said.seconds / taken
        print(
            f"| `{name}` | {said.forwards:.0f} | {said.seconds:.1f} | {taken:.1f} | {ratio:.2f} | "
            f"{estimated - started:.1f} |",
            flush=True,
        )
        if abs(ratio - 1) > ALLOWED:
            off.append(f"{name}: {said.seconds:.1f} s predicted, {taken:.1f} s taken")
    print(f"beyond {ALLOWED:.0%}: {'; '.join(off) or 'none'}")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
