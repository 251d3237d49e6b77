"""Ten browsers that click at random for two minutes while a run goes on: nothing lost, wrong, hung, or in the console.

python -m benchmarks.sessions                        some minutes
python -m benchmarks.sessions --visitors 3 --seconds 30

Each visitor opens the page of a run that ships and steps through it (layers, pairs, doses, rows of a map): after each
step the numbers of every chart are noted beside the page's address, which holds all that is selected. Then it presses
what else there is on the page but what starts, stops or removes something, and goes to another page. A run that one of
them started goes on meanwhile, and edits the model that the steps ask.

Afterwards one visitor alone opens every address that was noted, and has to see the same numbers; those of Patching's
curve have to stand in the run's own table; and the run that went on meanwhile has to leave the files that its config
leaves on the command line. An error on a page, an error in a console, a page that is not at rest within a minute, or
numbers that differ end in exit code 1.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright
from playwright.async_api import TimeoutError as PlaywrightTimeout

from benchmarks.kills import ROOT, contents
from benchmarks.serving import serving
from interp_core.models.bundled import demos
from interp_core.resuming import CONFIG_ENDING

VIEWS = {
    "patching?model=demo-emotion&layer=2": "curve",
    "neurons?model=demo-emotion-wavlm": "neu_curve",
    "heads?model=demo-emotion-wavlm": "heads_map",
    "signflip?model=demo-emotion-wavlm": "",
    "compare?model=demo-spoof-erm": "",
    "probes?model=demo-emotion": "",
    "steering?model=demo-emotion": "",
    "pairs?model=demo-emotion": "",
    "runs": "",
    "models": "",
    "": "",
}
"""Pages, and a chart that is waited for."""
BEGUN = "patching?model=demo-emotion&patch_max_pairs={pairs}&patch_kinds=prosody,semantic&patch_flow=last"
STEPS = ("-up", "-down", "-next", "-prev")
"""How the names of buttons end that select something which the address then says."""
NOT_PRESSED = re.compile(
    r"run|cancel|stop|delete|remove|download|export|record|keep|upload|resume|open|go on|start|share|save|settings",
    re.I,
)
NOT_OURS = re.compile(r"Executing inline script violates|Refused to execute inline script", re.I)
"""Streamlit's own inline script, which the content security policy refuses."""
LONGEST_S = 60.0
HEARD_S = 20.0
"""A step whose address is the same after so long was not heard, or had nothing to step to; it is counted."""
REST = """async longest => {
  const until = performance.now() + longest, app = () => document.querySelector('[data-testid="stApp"]');
  let since = null;
  while (performance.now() < until) {
    const rests = app() && app().dataset.testScriptState === 'notRunning' && document.querySelector('h1');
    since = rests ? since ?? performance.now() : null;
    if (since !== null && performance.now() - since > 250) return true;
    await new Promise(done => setTimeout(done, 20));
  }
  return false;
}"""
DRAWN = """() => Object.fromEntries([...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => {
  const named = plot.closest('[class*="st-key-"]');
  if (!named || !plot.offsetParent || !plot.calcdata) return [];
  const key = [...named.classList].find(one => one.startsWith('st-key-')), number = v => +Number(v).toPrecision(6);
  const of = trace => trace.z ? [...trace.z].map(row => [...row].map(number))
    : [[...(trace.x || [])].map(v => typeof v === 'number' ? number(v) : v),
       [...(trace.y || [])].map(v => typeof v === 'number' ? number(v) : v)];
  return [[key, plot.calcdata.map(one => [one[0].trace.name || '', of(one[0].trace)])]];
}))"""
WRONG = """() => [...document.querySelectorAll('[data-testid="stException"], [data-testid="stAlertContentError"]')]
  .filter(one => one.offsetParent).map(one => one.textContent.slice(0, 200))"""
NAMED = """ends => [...document.querySelectorAll('[class*="st-key-"]')].filter(one => one.offsetParent)
  .flatMap(one => [...one.classList]).filter(one => ends.some(end => one.endsWith(end)))
  .filter(one => !document.querySelector(`.${CSS.escape(one)} button`)?.disabled)"""
PRESS = """name => document.querySelector(`.${CSS.escape(name)} button`)?.click()"""
ANYTHING = """() => { window.pressable = [...document.querySelectorAll('[data-testid="stMain"] button, '
  + '[data-testid="stMain"] summary, [data-testid="stMain"] [role=tab]')].filter(one => one.offsetParent
    && !one.disabled && one.dataset.testid !== 'stBaseButton-elementToolbar');
  return window.pressable.map(one => `${one.textContent} ${one.ariaLabel || ''}`.trim()); }"""


@dataclass
class Seen:
    """What all visitors saw: charts by address, seconds of steps, pages by count, and whatever was wrong."""

    drawn: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    pages: Counter[str] = field(default_factory=Counter)
    pressed: int = 0
    compared: int = 0
    unheard: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def note(self, address: str, drawn: Any) -> None:
        """Keep the numbers of an address; those of an earlier visit have to be the same."""
        self.compared += 1
        text = json.dumps(drawn, sort_keys=True)
        if self.drawn.setdefault(address, text) != text:
            self.faults.append(f"{address} was drawn in two ways: {_apart(self.drawn[address], text)}")


def _apart(one: str, other: str) -> str:
    before, after = json.loads(one), json.loads(other)
    apart = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    return "; ".join(f"{key}: {_first_apart(before.get(key), after.get(key))}" for key in apart)


def _first_apart(one: Any, other: Any) -> str:
    """Where two charts differ first, and what they have there."""
    here, there = json.dumps(one), json.dumps(other)
    at = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), min(len(here), len(there)))
    return f"{here[max(at - 60, 0) : at + 60]} | {there[max(at - 60, 0) : at + 60]}"


async def visitor(browser: Browser, seen: Seen) -> Page:
    """A page in a session of its own, whose console is listened to."""
    page = await (await browser.new_context(viewport={"width": 1280, "height": 900})).new_page()

    def said(message: ConsoleMessage) -> None:
        # Streamlit looks for its own addresses below a page's at first, and finds them one level up.
        ours = not NOT_OURS.search(message.text) and "/_stcore/" not in str(message.location.get("url", ""))
        if message.type == "error" and ours:
            seen.faults.append(f"console of {page.url}: {message.text[:200]}")

    page.on("console", said)
    page.on("pageerror", lambda error: seen.faults.append(f"{page.url}: {str(error)[:200]}"))
    return page


async def at_rest(page: Page, seen: Seen, what: str) -> bool:
    """Wait until a page is at rest, and look for errors on it."""
    fine: bool = await page.evaluate(REST, LONGEST_S * 1000)
    if not fine:
        seen.faults.append(f"{page.url}, {what}: not at rest within {LONGEST_S:g} s")
    seen.faults += [f"{page.url}, {what}: {words}" for words in await page.evaluate(WRONG)]
    return fine


async def opened(page: Page, address: str, seen: Seen, chart: str = "") -> bool:
    """Go to an address and wait for its chart."""
    await page.goto(address)
    if chart:
        try:
            await page.wait_for_selector(f".st-key-{chart} .js-plotly-plot .nsewdrag", timeout=LONGEST_S * 1000)
        except PlaywrightTimeout:
            seen.faults.append(f"{address}: no chart within {LONGEST_S:g} s")
            return False
    return await at_rest(page, seen, "opened")


async def drawn_on(page: Page) -> Any:
    """The numbers of all charts, as soon as two looks see the same: a browser draws after the page is at rest."""
    now = await page.evaluate(DRAWN)
    for _ in range(20):
        before = now
        await asyncio.sleep(0.25)
        now = await page.evaluate(DRAWN)
        if now == before:
            break
    return now


async def wander(page: Page, address: str, seen: Seen, rng: random.Random, until: float) -> None:
    """Visit pages until the time is over."""
    while time.monotonic() < until:
        view = rng.choices(list(VIEWS), [4 if chart else 1 for chart in VIEWS.values()])[0]
        seen.pages[view.partition("?")[0] or "start"] += 1
        if not await opened(page, f"{address}/{view}", seen, VIEWS[view]):
            return
        for _ in range(6):
            names = await page.evaluate(NAMED, list(STEPS))
            if not names or time.monotonic() > until:
                break
            started, before = time.monotonic(), page.url
            name = rng.choice(names)
            await page.evaluate(PRESS, name)
            # A busy server begins late, and until then the page still rests with what it showed before.
            while page.url == before and time.monotonic() < started + HEARD_S:
                await asyncio.sleep(0.02)
            if page.url == before:
                seen.unheard[f"{name.removeprefix('st-key-')} on {page.url.removeprefix(address)}"] += 1
                continue
            if not await at_rest(page, seen, "a step"):
                return
            seen.seconds.append(time.monotonic() - started)
            seen.pressed += 1
            drawn = await drawn_on(page)
            seen.note(page.url.removeprefix(address), drawn)
            await asyncio.sleep(rng.uniform(0.1, 1))
        for _ in range(3):
            words = await page.evaluate(ANYTHING)
            fine = [at for at, text in enumerate(words) if text and not NOT_PRESSED.search(text)]
            if not fine or time.monotonic() > until:
                break
            at = rng.choice(fine)
            await page.evaluate("at => window.pressable[at].click()", at)
            seen.pressed += 1
            if not await at_rest(page, seen, f"pressed {words[at][:40]!r}"):
                return


async def begin(page: Page, address: str, pairs: int) -> None:
    """Start the run that goes on meanwhile."""
    await page.goto(f"{address}/{BEGUN.format(pairs=pairs)}")
    await page.get_by_role("button", name="Settings and run").click(timeout=120_000)
    await page.get_by_role("button", name="Run on all pairs").click()


async def measure(address: str, asked: argparse.Namespace, seen: Seen) -> None:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=asked.chromium)
        pages = [await visitor(browser, seen) for _ in range(asked.visitors)]
        # In turn, as people come: ten browsers that begin at once on two cores take three quarters of a minute.
        for page in pages:
            view, chart = next(iter(VIEWS.items()))
            await opened(page, f"{address}/{view}", seen, chart)
        await begin(pages[0], address, asked.pairs)
        until = time.monotonic() + asked.seconds
        chance = [random.Random(f"{asked.seed} {number}") for number in range(asked.visitors)]
        await asyncio.gather(
            *(wander(page, address, seen, rng, until) for page, rng in zip(pages, chance, strict=True))
        )
        for page in pages:
            await page.context.close()
        print(f"{seen.pressed} presses, {len(seen.drawn)} addresses; now one visitor alone", flush=True)
        alone = await visitor(browser, seen)
        for where in list(seen.drawn)[: asked.reopened]:
            if await opened(alone, address + where, seen, VIEWS.get(where.lstrip("/").partition("&layer")[0], "")):
                seen.note(where, await drawn_on(alone))
        await browser.close()


def in_the_table(drawn: dict[str, str]) -> tuple[int, list[str]]:
    """How many points of Patching's curve were drawn, and those that are not in the run's own table."""
    points, faults = 0, []
    folder = demos()["demo-emotion"].folder / "run"
    tables = {kind: pd.read_csv(folder / f"patching_metrics_{kind}.csv") for kind in ("prosody", "semantic")}
    for where, text in drawn.items():
        kind = "semantic" if "semantic" in where else "prosody"
        for name, value in json.loads(text).get("st-key-curve", []):
            if not where.startswith("/patching") or not name.startswith("patched from B"):
                continue
            rows = tables[kind][tables[kind]["condition"] == "matched"]
            rates = rows[[one for one in rows if str(one).startswith(("flip_", "delta_", "recovered"))]].round(4)
            for layer, y in zip(*value, strict=True):
                points += 1
                if not (rates[rows["layer"] == layer] == round(y, 4)).any(axis=None):
                    faults.append(f"{where}: {name} at layer {layer} is {y}, which the table does not hold")
    return points, faults


def same_as_alone(runs: Path, place: Path) -> list[str]:
    """Wait for the run that went on meanwhile; in what it differs from the run of its config by the command line."""
    until = time.monotonic() + 900
    found: list[Path] = []
    while time.monotonic() < until:
        configs = [path for path in runs.glob(f"*/*{CONFIG_ENDING}") if json.loads(path.read_text()).get("finished")]
        found = [path.parent for path in configs]
        if found:
            break
        time.sleep(1)
    if len(found) != 1:
        return [f"{len(found)} runs came to their end, and one was started"]
    (config,) = found[0].glob(f"*{CONFIG_ENDING}")
    line = [sys.executable, "-m", "interp_core", "patch", "--config", str(config), "--out", str(place / "alone")]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    here, alone = contents(found[0]), contents(place / "alone")
    for one in (here, alone):
        one.pop(config.name)  # says who asked
    return sorted(f"{name} of the run differs" for name in {*here, *alone} if here.get(name) != alone.get(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--pairs", type=int, default=100, help="of the run that goes on meanwhile")
    parser.add_argument("--reopened", type=int, default=60, help="addresses that are opened again by one visitor alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    asked, seen = parser.parse_args(), Seen()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        with serving(runs) as address:
            asyncio.run(measure(address, asked, seen))
            points, wrong = in_the_table(seen.drawn)
            seen.faults += wrong + same_as_alone(runs, Path(folder))
    half = statistics.median(seen.seconds) if seen.seconds else float("nan")
    print(f"{asked.visitors} visitors, {asked.seconds:g} s: {seen.pressed} presses on {dict(seen.pages)}")
    print(
        f"{len(seen.seconds)} steps, half of them within {half:.2f} s, the longest {max(seen.seconds, default=0):.1f} s"
    )
    print(f"{seen.unheard.total()} more steps left the address as it was for {HEARD_S:g} s: {[*seen.unheard]}")
    print(f"{seen.compared} times charts were compared, of {len(seen.drawn)} addresses; {points} points in the table")
    print(f"{len(seen.faults)} faults")
    print("\n".join(Counter(seen.faults)))
    return int(bool(seen.faults) or not seen.seconds or not points)


if __name__ == "__main__":
    sys.exit(main())
