"""A run that somebody watches on its page goes on about as fast as one that nobody does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.watched import LONGEST_CANCEL_S, measure

ROOT = Path(__file__).resolve().parents[2]
SLOWEST, SECONDS = 0.5, 5.0
"""What is wanted is 0.8, which `benchmarks/watched.py` measures over longer stretches on a machine that does nothing
else."""


def test_a_watched_run_keeps_its_speed_and_stops_when_it_is_asked_to(serve: Any, open_page: Any, tmp_path: Path):
    runs = tmp_path / "runs"
    address = serve(ROOT / "app.py", env={"PATCHBAY_RUNS": str(runs)})
    page = open_page(address)
    tries = []
    for _ in range(2):  # a machine that others use may be slow in one stretch and not in the next
        (ratio,), cancel_s = measure(page, address, runs, rounds=1, seconds=SECONDS)
        tries.append(ratio)
        if ratio >= SLOWEST:
            break
    assert tries[-1] >= SLOWEST, f"watched over unwatched speed: {tries}"
    assert cancel_s < 10 * LONGEST_CANCEL_S
