"""What is on the first screen of Patching, before anybody scrolls: verdict, curve and both halves of the player."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.drive import PlayerDriver, wait_idle, wait_plot

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
    app: str, open_page: Any, query: str, width: int, height: int, parts: set[str]
):
    page = open_page(f"{app}/patching{query}", width=width, height=height)
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


def test_a_click_anywhere_in_an_example_opens_it_and_its_note_closes_beside_it(app: str, open_page: Any):
    page = open_page(app)
    wait_idle(page, timeout=60)
    page.get_by_role("link", name="Open Patching").first.wait_for()
    title = page.get_by_text("Patch a voice's emotion").bounding_box()
    page.mouse.click(title["x"] + 10, title["y"] + 8)
    wait_plot(page, "curve", timeout=60)
    wait_idle(page)
    note, close = page.get_by_test_id("stAlert").bounding_box(), page.get_by_role("button", name="Close").bounding_box()
    assert close["x"] > note["x"] + note["width"] and note["y"] < close["y"] < note["y"] + note["height"]
    assert page.console_errors == []
