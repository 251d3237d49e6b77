"""What is on the first screen of Patching, before anybody scrolls: verdict, curve and both halves of the player."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.drive import PlayerDriver, wait_idle, wait_plot

ROOT = Path(__file__).resolve().parents[2]
TOO_WIDE = "() => (main => main.scrollWidth - main.clientWidth)(document.querySelector('[data-testid=stMain]'))"
VERDICT = "[data-testid='stMarkdown']:has-text('with B at')"


@pytest.mark.parametrize(
    ("query", "width", "height", "parts"),
    [
        ("", 1280, 800, {"verdict", "curve", "player"}),
        ("?present=true", 1280, 800, {"verdict", "curve", "player"}),
        ("?present=true", 1024, 800, {"verdict", "curve", "player"}),
        ("", 1024, 800, {"verdict"}),  # columns stand below each other: the curve begins there, the player follows
    ],
)
def test_the_first_screen_holds_what_the_page_is_about(
    serve: Any, open_page: Any, tmp_path_factory: Any, query: str, width: int, height: int, parts: set[str]
):
    runs = tmp_path_factory.getbasetemp() / "axe-runs"
    address = serve(ROOT / "app.py", env={"PATCHBAY_RUNS": str(runs)})
    page = open_page(f"{address}/patching{query}", width=width, height=height)
    wait_idle(page, timeout=120)
    wait_plot(page, "curve", timeout=60)
    player = PlayerDriver(page, "player")
    assert player.root.locator(".overlay").count() == 1 and player.get("p.clips.length") == 2
    page.wait_for_timeout(500)
    boxes = {
        "verdict": page.locator(VERDICT).first.bounding_box(),
        "curve": page.locator(".st-key-curve .js-plotly-plot").bounding_box(),
        "player": player.root.locator(".overlay").bounding_box(),  # the pictures of A and of B below it
    }
    ends = {name: (round(box["y"]), round(box["y"] + box["height"])) for name, box in boxes.items()}
    assert {name for name, (top, end) in ends.items() if top >= 0 and end <= height} >= parts, ends
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes.values())
    assert boxes["curve"]["y"] < height and boxes["curve"]["height"] >= 300
    assert page.evaluate(TOO_WIDE) <= 0, "nothing is wider than the page"
    assert page.console_errors == []
