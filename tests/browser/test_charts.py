"""The charts in a real browser, under the app's content security policy: a click on a point selects its layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.drive import click_point, wait_for, wait_idle, wait_plot

HERE = Path(__file__).parent
pytestmark = pytest.mark.browser

CURVE = """name => document.querySelector('.st-key-flip .js-plotly-plot')
  ._fullData.findIndex(trace => trace.meta && trace.meta.name === name)"""
RING = """() => [...document.querySelectorAll('.st-key-flip .patchbay-mark path')]
  .map(ring => Number(ring.dataset.x)).at(-1)"""
PLACES = """() => {
  const plot = document.querySelector('.st-key-flip .js-plotly-plot'), at = one => one.getBoundingClientRect();
  const series = plot._fullData.findIndex(trace => trace.meta && trace.meta.name === 'patched from B');
  const mark = name => plot.querySelector(`.patchbay-mark ${name}`), middle = box => box.left + box.width / 2;
  const layer = Number(mark('path').dataset.x), i = plot._fullData[series].x.indexOf(layer);
  const points = plot.querySelectorAll('.scatterlayer .trace')[series].querySelectorAll('.point');
  const [ring, point, line, name] = [at(mark('path')), at(points[i]), at(mark('line')), at(mark('text'))];
  const plotted = at(plot.querySelector('.nsewdrag'));
  return {
    across: [middle(ring), middle(line), middle(name)].map(x => x - middle(point)),
    up: (ring.top + ring.bottom - point.top - point.bottom) / 2,
    line: [line.top - plotted.top, line.bottom - plotted.bottom], above: name.bottom <= plotted.top + 1,
  };
}"""


@pytest.fixture
def page(serve: Callable[..., str], open_page: Callable[..., Any]) -> Any:
    address = serve(HERE / "csp_launcher.py", env={"SCRIPT": str(HERE / "charts_app.py")})
    opened = open_page(address, width=1500, height=1000)
    wait_idle(opened)
    wait_plot(opened, "flip")
    return opened


def wait_layer(page: Any, layer: int) -> None:
    wait_for(page, "text => document.body.innerText.includes(text)", f"layer={layer}", timeout=10)
    wait_for(page, f"() => ({RING})() === {layer}", timeout=10)


@pytest.mark.parametrize("series", ["patched from B", "random donor", "last position"])
def test_a_click_on_a_point_selects_its_layer_and_the_ring_moves_there(page, series):
    wait_layer(page, 3)
    click_point(page, "flip", page.evaluate(CURVE, series), 8)  # point 8 is layer 7: the embeddings come first
    wait_layer(page, 7)
    assert page.console_errors == []


def test_a_second_click_on_the_same_point_keeps_the_layer_and_fades_nothing(page):
    for _ in range(2):
        click_point(page, "flip", page.evaluate(CURVE, "patched from B"), 8)
        wait_layer(page, 7)
        wait_idle(page)
    faded = """() => [...document.querySelectorAll('.st-key-flip .js-plotly-plot .point')]
      .filter(point => getComputedStyle(point).opacity < 0.9).length"""
    assert page.evaluate(faded) == 0
    wait_layer(page, 7)


def test_a_point_that_was_clicked_before_takes_the_next_click_too_and_no_step_redraws_the_chart(page):
    page.evaluate("() => { document.querySelector('.st-key-flip .js-plotly-plot').seen = true; }")
    click_point(page, "flip", page.evaluate(CURVE, "patched from B"), 8)
    wait_layer(page, 7)
    page.get_by_role("button", name="next").click()
    wait_layer(page, 8)
    wait_idle(page)
    click_point(page, "flip", page.evaluate(CURVE, "patched from B"), 8)
    wait_layer(page, 7)
    assert page.evaluate("() => document.querySelector('.st-key-flip .js-plotly-plot').seen")
    assert page.console_errors == []


@pytest.mark.parametrize("width", [1500, 900])
def test_the_mark_stands_on_its_point_also_when_the_page_has_another_width(page, width):
    page.set_viewport_size({"width": width, "height": 1000})
    page.wait_for_timeout(600)
    wait_layer(page, 3)
    places = page.evaluate(PLACES)
    assert all(abs(apart) < 0.6 for apart in [*places["across"], places["up"], *places["line"]]), places
    assert places["above"], "its name stands above the plot"
    assert page.evaluate("() => document.querySelectorAll('.st-key-flip .patchbay-mark line').length") == 1


def test_a_chart_that_takes_the_place_of_another_has_the_mark_and_its_clicks_too(page):
    """As in another theme, or when a page's width comes and goes: the browser makes the chart anew."""
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(600)
    wait_layer(page, 3)
    click_point(page, "flip", page.evaluate(CURVE, "patched from B"), 6)
    wait_layer(page, 5)
    assert page.console_errors == []
