"""kill -9 at random points of every command, gone on with by --resume until done; then every file as without a kill.

python -m benchmarks.kills                  50 kills, some 40 minutes
python -m benchmarks.kills 10 --only heads
python -m benchmarks.kills 10 --only heads --shards 3

A command runs once without a kill. Then it is begun, killed, resumed, killed again, up to five times, and let run to
its end; that is repeated until each command has had its share of the kills. Moments are drawn from a seed: any time
since the process was started, any time since its folder was made, or the n-th time that a file is on its way to the
disk, which is where a kill could tear one. What a kill leaves must be a folder that lists of runs can read, or none.
What differs then from the run without a kill, apart from times, ends in exit code 1.

With --shards each shard of a command is killed and gone on with in turn, the merge of them all is killed, too, and what
is merged in the end must be the files of one process.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp_core.cli import DONE
from interp_core.request import Request
from interp_core.resuming import CONFIG_ENDING
from interp_core.runs import find_runs
from tests.test_resume import REQUESTS

ROOT = Path(__file__).resolve().parents[1]
TIMES = ("created", "finished", "times")
IN_A_ROW = (3, 5)
"""Kills at least and at most before a run may come to its end."""
LONGEST_S = 300.0
MOMENTS = ("any time", "in the run", "while a file is written")


@dataclass
class Tally:
    """Of one command: kills by moment, runs that went to their end after kills, and what was wrong."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    too_late: int = 0
    faults: list[str] = field(default_factory=list)


def begun(request: Request, out: Path, *, resume: bool, shard: str = "") -> "subprocess.Popen[bytes]":
    """A request as a process of its own, its words on stderr."""
    more = (f" --shard {shard}" if shard else "") + (" --resume" if resume else "")
    return started_as(f"{request.command_line(str(out)).split(' ', 1)[1]}{more}", out)


def started_as(words: str, out: Path) -> "subprocess.Popen[bytes]":
    """What stands behind `python` in a line, as a process of its own."""
    line = f"exec {sys.executable} {words}"
    out.parent.mkdir(exist_ok=True)
    with open(out.parent / "stderr", "wb") as errors:
        return subprocess.Popen(["bash", "-c", line], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)


def said(out: Path) -> str:
    """What the last process of a folder said at its end."""
    return ["nothing", *(out.parent / "stderr").read_text(errors="replace").strip().splitlines()][-1]


def came(process: "subprocess.Popen[bytes]", there: Callable[[], bool]) -> bool:
    """Wait for something; whether it came before the process ended."""
    until = time.monotonic() + LONGEST_S
    while process.poll() is None and time.monotonic() < until:
        if there():
            return True
        time.sleep(0.0005)
    return False


def wait_for(moment: str, process: "subprocess.Popen[bytes]", out: Path, seconds: float, rng: random.Random) -> None:
    """Until the moment of a kill, or the end of the process. `seconds`: what a whole run takes."""
    if moment == "any time":
        ends = time.monotonic() + rng.uniform(0, seconds)
        came(process, lambda: time.monotonic() > ends)
        return
    if not came(process, lambda: (out / ".lock").exists()):
        return
    if moment == "in the run":
        ends = time.monotonic() + rng.uniform(0, seconds / 2)
        came(process, lambda: time.monotonic() > ends)
        return
    for _ in range(rng.randint(1, 12)):
        if not came(process, lambda: any(out.glob(".*.tmp"))):
            return
        name = next(iter(out.glob(".*.tmp")), None)
        if name is not None and not came(process, lambda name=name: not name.exists()):  # type: ignore[misc]
            return


def contents(folder: Path) -> dict[str, Any]:
    """Every file of a finished run as bytes; its config as an object, without times."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    for name in [name for name in found if name.endswith(CONFIG_ENDING)]:
        found[name] = {key: entry for key, entry in json.loads(found[name]).items() if key not in TIMES}
    return found


def killed(name: str, kills: int, place: Path, rng: random.Random) -> Tally:
    """Kill one command so many times."""
    request, tally = REQUESTS[name], Tally()
    whole = place / "whole" / "run"  # every folder of the same name, which some files say
    started = time.monotonic()
    if begun(request, whole, resume=False).wait(LONGEST_S) != DONE:
        tally.faults.append(f"without a kill: {said(whole)}")
        return tally
    seconds, right = time.monotonic() - started, contents(whole)
    while tally.kills.total() < kills and not tally.faults:
        out = place / str(tally.runs) / "run"
        left = min(rng.randint(*IN_A_ROW), kills - tally.kills.total())
        in_a_row = 0
        while left:
            moment = rng.choice(MOMENTS)
            process = begun(request, out, resume=in_a_row > 0)
            wait_for(moment, process, out, seconds, rng)
            if (code := process.poll()) is not None:
                tally.too_late += 1
                if code != DONE:
                    tally.faults.append(f"after {in_a_row} kills, exit code {code}: {said(out)}")
                break
            process.kill()
            process.wait()
            tally.kills[moment] += 1
            in_a_row, left = in_a_row + 1, left - 1
            tally.faults += [f"after a kill {moment}: {one.fault}" for one in find_runs(place) if one.fault]
        if not tally.faults and begun(request, out, resume=True).wait(LONGEST_S) != DONE:
            tally.faults.append(f"after {in_a_row} kills: {said(out)}")
        if not tally.faults:
            found = contents(out)
            other = sorted(one for one in {*right, *found} if right.get(one) != found.get(one))
            tally.faults += [f"after {in_a_row} kills {', '.join(other)} differ"] if other else []
        tally.runs += 1
    return tally


def killed_shards(name: str, kills: int, n: int, place: Path, rng: random.Random) -> Tally:
    """Kill so many times among the shards of one command and their merge; the same number a shard, the rest at last."""
    request, tally = REQUESTS[name], Tally()
    whole, out, merged = (place / part / "run" for part in ("whole", "shards", "merged"))
    begins = time.monotonic()
    if begun(request, whole, resume=False).wait(LONGEST_S) != DONE:
        tally.faults.append(f"without a kill: {said(whole)}")
        return tally
    seconds = time.monotonic() - begins
    folders = [out / f"shard-{i}-of-{n}" for i in range(1, n + 1)]
    merging = f"-m interp_core merge {' '.join(map(str, folders))} --out {merged}"
    shares = [kills // (n + 1)] * n
    shares.append(kills - sum(shares))
    for number, share in enumerate(shares):
        last = number == n
        folder = merged if last else folders[number]
        for attempt in range(share + 1):

            def process(attempt: int = attempt, last: bool = last, number: int = number) -> "subprocess.Popen[bytes]":
                if last:
                    return started_as(merging, merged)
                return begun(request, out, resume=attempt > 0, shard=f"{number + 1}/{n}")

            one, what = process(), "the merge" if last else f"shard {number + 1}"
            if attempt < share:
                moment = rng.choice(MOMENTS)
                wait_for(moment, one, folder, seconds / (1 if last else n), rng)
                if one.poll() is None:
                    one.kill()
                    one.wait()
                    tally.kills[moment] += 1
                    continue
                tally.too_late += 1
            if one.wait(LONGEST_S) != DONE:
                tally.faults.append(f"{what} after {attempt} kills: {said(folder if last else out)}")
                return tally
            if attempt < share:  # it came to its end before the moment: nothing is left to kill
                break
    tally.runs += 1
    right, found = contents(whole), contents(merged)
    other = sorted(one for one in {*right, *found} if right.get(one) != found.get(one))
    tally.faults += [f"merged after kills, {', '.join(other)} differ"] if other else []
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=50, help="of all commands together")
    parser.add_argument("--only", action="append", choices=sorted(REQUESTS), help="this command alone; may be repeated")
    parser.add_argument("--shards", type=int, default=0, help="deal each command into so many shards, and merge them")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # sums over several threads differ in their last digits
    names, all_kills, all_runs, faults = asked.only or list(REQUESTS), Counter[str](), 0, []
    for number, name in enumerate(names):
        share = asked.kills // len(names) + (number < asked.kills % len(names))
        with tempfile.TemporaryDirectory() as folder:
            rng = random.Random(f"{asked.seed} {name}")
            if asked.shards:
                tally = killed_shards(name, share, asked.shards, Path(folder), rng)
            else:
                tally = killed(name, share, Path(folder), rng)
        print(f"{name}: {dict(tally.kills)}, {tally.runs} runs to their end, {tally.too_late} ended before a kill")
        sys.stdout.flush()
        all_kills, all_runs = all_kills + tally.kills, all_runs + tally.runs
        faults += [f"{name}: {fault}" for fault in tally.faults]
    print(f"{all_kills.total()} kills ({dict(all_kills)}), {all_runs} runs to their end, {len(faults)} faults")
    print("\n".join(faults))
    return int(bool(faults) or (not asked.shards and all_kills.total() < asked.kills))


if __name__ == "__main__":
    sys.exit(main())
