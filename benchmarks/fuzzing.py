"""What the fuzzers share: bytes that are changed at random, and a count of what comes of them.

Only InterpError may come out, in under 30 s a case, and the process stays below 2 GB.
"""

import faulthandler
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from interp_core.errors import InterpError

SECONDS, BYTES = 30.0, 2 << 30
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four changes: cut off, cut out, doubled, or noise, a bit, an extreme number instead."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1) if rng.random() < 0.5 else rng.randrange(min(len(data), 64) + 1)
        size = rng.choice((1, 2, 4, 8, 64, len(data) // 4))
        number = rng.choice(EXTREMES).to_bytes(4, rng.choice(("little", "big")))
        data = rng.choice((
            data[:at],
            data[:at] + data[at + size :],
            data[: at + size] + data[at:],
            data[:at] + rng.randbytes(size) + data[at + size :],
            data[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :],
            data[:at] + number + data[at + 4 :],
        ))  # fmt: skip
    return data


@dataclass
class Tally:
    """How many cases were `fine`, `refused` by an InterpError, or are among `faults`: other exceptions, slow ones."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        peak = _peak() / 2**20
        return "\n".join([f"{dict(self.counts)}, {len(self.faults)} faults, {peak:.0f} MB at most", *self.faults])


def run(cases: Iterable[tuple[str, Callable[[], object]]]) -> Tally:
    """Run named cases; one that hangs for twice the limit ends the process with its traceback."""
    tally, before = Tally(), _peak()
    for name, case in cases:
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
        started = time.monotonic()
        try:
            case()
            tally.counts["fine"] += 1
        except InterpError:
            tally.counts["refused"] += 1
        except (Exception, RecursionError) as error:
            tally.faults.append(f"{name}: {error!r}")
        if (took := time.monotonic() - started) > SECONDS:
            tally.faults.append(f"{name}: {took:.0f} s")
    faulthandler.cancel_dump_traceback_later()
    if (peak := _peak()) > max(BYTES, before + BYTES // 4):  # a process that held more before is given a quarter
        tally.faults.append(f"{peak / 1e9:.1f} GB of memory, {before / 1e9:.1f} before")
    return tally


def _peak() -> int:
    """Bytes that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(cases: Callable[[Path, int, int], Iterable[tuple[str, Callable[[], object]]]], count: int) -> NoReturn:
    """Run the cases of a fuzzer in a folder of their own, `count` of seed 0 unless the command says [CASES] [SEED]."""
    given = [int(text) for text in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as made:
        tally = run(cases(Path(made), *(given + [count, 0][len(given) :])))
    print(tally)
    sys.exit(bool(tally.faults))
