"""What a visitor does first on pages of runs that ship: click a cell, hear its clip; find a type; look at a run."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.drive import PlayerDriver, click_point, wait_for, wait_idle, wait_plot

SAYS = "text => document.querySelector('[data-testid=\"stMain\"]').innerText.includes(text)"
CELL = """([key, name]) => {
  const data = document.querySelector(`.st-key-${key} .js-plotly-plot`)._fullData;
  const curve = data.findIndex(trace => trace.name === 'cells');
  return [curve, data[curve].text.findIndex(text => text.includes(name))];
}"""

ALPHA = "() => new URL(location.href).searchParams.get('st_alpha')"


@pytest.fixture
def opened(app: str, open_page: Any) -> Any:
    def at(view: str) -> Any:
        page = open_page(f"{app}/{view}")
        wait_idle(page, timeout=120)
        return page

    return at


def click_cell(page: Any, key: str, name: str) -> None:
    wait_plot(page, key, timeout=60)
    wait_for(page, f"() => document.querySelectorAll('.st-key-{key} .js-plotly-plot').length === 1", timeout=60)
    curve, i = page.evaluate(CELL, [key, name])
    assert i >= 0, name
    click_point(page, key, curve, i)


def plays(page: Any, key: str) -> None:
    wait_idle(page, timeout=60)
    player = PlayerDriver(page, key)
    player.focus()
    player.press("Space")
    player.wait("p.position > 0.05")


def test_a_cell_of_steering_and_a_stronger_dose_change_what_is_said_and_its_clip_plays(opened: Any) -> None:
    page = opened("steering?model=demo-emotion")
    click_cell(page, "st_map", "<b>sad × 4<")
    wait_for(page, SAYS, "Behind layer 4, ", timeout=60)
    wait_for(page, SAYS, "the vector of sad moves", timeout=60)
    wait_idle(page, timeout=60)
    before = page.evaluate(ALPHA)
    page.locator(".st-key-st-up button").first.click()
    wait_for(page, f"before => ({ALPHA})() !== before", before, timeout=60)
    wait_for(page, SAYS, f"at alpha {page.evaluate(ALPHA)}", timeout=60)
    plays(page, "st_player")
    assert page.console_errors == []


def test_a_cell_of_probes_says_what_is_read_there_and_a_misread_clip_plays(opened: Any) -> None:
    page = opened("probes?model=demo-emotion")
    click_cell(page, "pb_map", "<b>level × 5<")
    wait_for(page, SAYS, "Layer 5: level is read", timeout=60)
    wait_idle(page, timeout=60)
    assert "pb_layer=5" in page.evaluate("location.href")
    plays(page, "pb_player")
    assert page.console_errors == []


def test_a_type_is_found_by_its_name_and_shows_its_command(opened: Any) -> None:
    page = opened("models")
    page.get_by_role("textbox", name="Search").fill("seamless")
    page.keyboard.press("Enter")
    wait_for(page, SAYS, "4 of ", timeout=60)
    wait_for(page, SAYS, "--model=/models/seamless_m4t", timeout=60)
    assert page.console_errors == []


def test_a_run_that_is_chosen_opens_on_its_page(opened: Any) -> None:
    page = opened("runs")
    table = page.get_by_test_id("stDataFrame").first
    table.wait_for()
    page.wait_for_timeout(500)
    table.click(position={"x": 17, "y": 52})  # the box of the first row
    link = page.get_by_role("link", name="Open on the page").first
    link.wait_for(timeout=60_000)
    link.click()
    wait_for(page, "() => !location.pathname.endsWith('/runs') && location.search.includes('run=')", timeout=60)
    wait_idle(page, timeout=120)
    wait_for(page, "() => !!document.querySelector('.js-plotly-plot .nsewdrag')", timeout=60)
    assert page.console_errors == []
