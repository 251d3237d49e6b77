"""Takes the README's pictures of the running dashboard: `python assets/make/screenshots.py`.

Needs what requirements-dev.txt installs and a Chromium (Debian's `chromium`, or the one named in $CHROMIUM). With
`--all` every page is taken in light and dark at 1280 and 1920 pixels, into the folder given with `--out`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.serving import serving  # noqa: E402
from tests.browser.conftest import CHROMIUM, CHROMIUM_FLAGS  # noqa: E402
from tests.browser.drive import wait_idle, wait_plot  # noqa: E402

VIEWS = {
    "start": "/",
    "patching": "/patching?kind=prosody&layer=5",
    "flow": "/patching?kind=semantic&prompt=words&view=Information+flow&layer=8",
    "pairs": "/pairs?kind=prosody",
    "by-hand": "/pairs?pairs=two+clips+by+hand&a=s01-f3-angry&b=s01-f3-happy",
    "compare": "/compare?model=demo-spoof-erm",
    "neurons": "/neurons?model=demo-shortcut",
    "signflip": "/signflip?model=demo-emotion-wavlm",
    "heads": "/heads?model=demo-emotion-wavlm",
    "steering": "/steering?model=demo-emotion",
    "probes": "/probes?model=demo-emotion",
    "recordings": "/recordings",
    "models": "/models?models_type=whisper+%28decoder%29",
    "runs": "/runs",
}
README_SHOTS = [(view, "light", 1440) for view in VIEWS if view != "flow"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "screenshots")
    parser.add_argument("--all", action="store_true", help="every page, light and dark, 1280 and 1920 pixels wide")
    parser.add_argument("--only", choices=VIEWS, nargs="*", default=list(VIEWS), help="these views")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    shots = [shot for shot in README_SHOTS if shot[0] in arguments.only]
    if arguments.all:
        shots = [
            (view, scheme, width) for view in arguments.only for scheme in ("light", "dark") for width in (1280, 1920)
        ]
    with serving() as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS, headless=True)
        for view, scheme, width in shots:
            name = f"{view}-{scheme}-{width}.png" if arguments.all else f"{view}-{scheme}.png"
            shoot(browser, address + VIEWS[view], scheme, width, arguments.out / name, whole=arguments.all)
            print(arguments.out / name, flush=True)
        browser.close()


def shoot(browser: Any, address: str, scheme: str, width: int, file: Path, *, whole: bool) -> None:
    """Open one view, wait until its charts are drawn, and take it: the window, or the whole page."""
    page = browser.new_page(viewport={"width": width, "height": round(width * 0.72)}, color_scheme=scheme)
    page.goto(address)
    wait_idle(page, timeout=120)
    if "/patching" in address:
        wait_plot(page, "curve", timeout=60)
    page.wait_for_timeout(2500)  # the player draws its spectrograms after the script has ended
    if whole:
        height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": width, "height": min(height + 20, 4000)})
        page.wait_for_timeout(1500)
    page.screenshot(path=str(file))
    page.close()


if __name__ == "__main__":
    main()
