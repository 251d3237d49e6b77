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
RING = """() => document.querySelector('.st-key-flip .js-plotly-plot')
  ?._fullData?.find(trace => trace.name === 'selected')?.x[0]"""


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
