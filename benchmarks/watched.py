"""How much slower a run gets while somebody watches it on its page, and how long Cancel takes.

One run of the dashboard, with its page open and closed in turn: the records that it writes in each stretch of time are
counted, so that both speeds come from the same run on the same machine. The browser runs beside it and takes its share
of the cores, which a presenter's does not.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.serving import serving

QUERY = (
    "patching?patch_max_pairs=2000&patch_kinds=prosody,semantic&patch_alphas=1.0,0.9,0.8,0.7,0.6,0.5,0.4,0.3"
    "&patch_flow=last"
)
"""More than is done in some minutes."""
FLOOR = 0.8
LONGEST_CANCEL_S = 2.0


def records(runs: Path) -> int:
    """Lines of records that runs have written by now."""
    return sum(path.read_bytes().count(b"\n") for path in runs.glob("*/patching_records_*"))


def rate(runs: Path, seconds: float) -> float:
    """Records a second over a stretch of time."""
    before, started = records(runs), time.monotonic()
    time.sleep(seconds)
    return (records(runs) - before) / (time.monotonic() - started)


def measure(page: Page, address: str, runs: Path, rounds: int, seconds: float) -> tuple[list[float], float]:
    """Watched over unwatched speed of each round, and the seconds from a press on Cancel to a page that says so."""
    page.goto(f"{address}/{QUERY}")
    page.get_by_role("button", name="Settings and run").click(timeout=120_000)
    page.get_by_role("button", name="Run on all pairs").click()
    page.get_by_text("So far, of n").wait_for(timeout=120_000)
    ratios = []
    for number in range(rounds):
        speeds = {}
        for watched in (True, False) if number % 2 == 0 else (False, True):
            page.goto(f"{address}/{QUERY}" if watched else "about:blank")
            if watched:
                page.get_by_text("So far, of n").wait_for(timeout=120_000)
            time.sleep(3)  # what opening or leaving the page costs is not watching
            speeds[watched] = rate(runs, seconds)
        ratios.append(speeds[True] / speeds[False])
        print(f"round {number + 1}: {speeds[True]:.1f} records/s watched, {speeds[False]:.1f} unwatched")
    page.goto(f"{address}/{QUERY}")
    cancel = page.get_by_role("button", name="Cancel").first
    cancel.wait_for(timeout=120_000)
    started = time.monotonic()
    cancel.click()
    page.get_by_text("was stopped").first.wait_for(timeout=120_000)
    return ratios, time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each stretch")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(runs := Path(folder) / "runs") as address:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=asked.chromium)
            ratios, cancel_s = measure(browser.new_page(), address, runs, asked.rounds, asked.seconds)
            browser.close()
    middle = statistics.median(ratios)
    print(f"watched / unwatched: median {middle:.2f} of {', '.join(f'{one:.2f}' for one in ratios)}")
    print(f"Cancel: {cancel_s:.1f} s")
    return int(middle < FLOOR or cancel_s > LONGEST_CANCEL_S)


if __name__ == "__main__":
    sys.exit(main())
