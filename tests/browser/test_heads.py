"""The heads page in a real browser: click a head on the map, a clip in the plane, and read what changed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.browser.drive import TIMEOUT_S, click_point, wait_for, wait_idle, wait_plot
from tests.pages.test_heads import NAME, assets  # noqa: F401 - the same tiny demo

HERE = Path(__file__).resolve().parent
CELL = """name => {
  const data = document.querySelector('.st-key-heads_map .js-plotly-plot')._fullData;
  const curve = data.findIndex(trace => trace.name === 'cells');
  return [curve, data[curve].text.findIndex(text => text.includes(name))];
}"""


@pytest.fixture(scope="module")
def address(serve: Any, assets: Path) -> str:  # noqa: F811
    return serve(HERE / "app_launcher.py", env={"DEMO_ASSETS": str(assets), "PATCHBAY_RUNS": str(assets / "runs")})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_click_on_a_head_shows_its_clips_and_its_effect(address: str, open_page: Any, scheme: str) -> None:
    page = open_page(f"{address}/heads", scheme=scheme)
    wait_idle(page, timeout=90)
    wait_plot(page, "heads_map", timeout=60)
    curve, i = page.evaluate(CELL, "S3 B0 × 4")
    click_point(page, "heads_map", curve, i)
    wait_for(page, "() => document.body.innerText.includes('Head S3 B0 H4 separates')")
    wait_idle(page)
    wait_plot(page, "heads_plane")
    player = page.locator(".st-key-player .ab-player")
    before = player.inner_text()
    click_point(page, "heads_plane", 2, 3)  # another class's clip becomes A
    deadline = time.monotonic() + TIMEOUT_S
    while player.inner_text() == before:
        assert time.monotonic() < deadline, "the player still holds the clip of before"
        page.wait_for_timeout(50)
    wait_idle(page)
    assert "heads_at=S3" in page.evaluate("location.href")
    assert "Something went wrong" not in page.evaluate("() => document.body.innerText")
    # Streamlit looks for its own addresses below a page's at first, and finds them one level up.
    assert page.console_errors == []
