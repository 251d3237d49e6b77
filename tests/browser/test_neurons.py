"""Neurons and Sign flip in a real browser: click a dose, click a cell, hear a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.drive import PlayerDriver, click_point, wait_for, wait_idle, wait_plot
from tests.pages.tiny_neurons import NAME, write_demo

HERE = Path(__file__).resolve().parent
TEXT = "() => document.querySelector('[data-testid=\"stMain\"]').innerText"
CURVE = """name => document.querySelector('.st-key-' + name[0] + ' .js-plotly-plot')._fullData
  .findIndex(trace => (trace.name || '').startsWith(name[1]))"""


@pytest.fixture(scope="module")
def address(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    assets = write_demo(tmp_path_factory.mktemp("assets"))
    return serve(HERE / "app_launcher.py", env={"DEMO_ASSETS": str(assets), "PATCHBAY_RUNS": str(assets / "runs")})


def click(page: Any, key: str, trace: str, i: int) -> None:
    wait_idle(page, timeout=60)
    wait_for(page, f"() => document.querySelectorAll('.st-key-{key} .js-plotly-plot').length === 1", timeout=60)
    wait_plot(page, key)
    click_point(page, key, page.evaluate(CURVE, [key, trace]), i)


def says(page: Any, text: str) -> None:
    wait_for(page, f"() => ({TEXT})().includes({text!r})")


def no_faults(page: Any) -> None:
    # Streamlit looks for its server below the page's own path first.
    assert page.console_errors == []


@pytest.mark.slow
def test_a_click_on_a_dose_lists_its_clips_and_one_of_them_plays(open_page: Any, address: str) -> None:
    page = open_page(f"{address}/neurons?model={NAME}&neu_clips=all")
    wait_idle(page, timeout=60)
    click(page, "neu_curve", "best for the domain", 3)
    says(page, "K = 8: ")
    says(page, "answers change")
    wait_idle(page)
    assert "neu_k=8" in page.evaluate("location.href")
    player = PlayerDriver(page, "neu_player")
    player.focus()
    player.press("Space")
    player.wait("duo.playing && p.position > 0.05")
    no_faults(page)


@pytest.mark.slow
def test_a_click_on_a_cell_selects_both_layers_and_a_zero_says_that_it_is_by_construction(
    open_page: Any, address: str
) -> None:
    page = open_page(f"{address}/signflip?model={NAME}&sf_only=all")
    wait_idle(page, timeout=60)
    click(page, "sf_matrix", "cells", 4 * 1 + 1)  # edited 1, measured 1
    says(page, "at layer 1: 0 by construction")
    wait_idle(page)
    assert "sf_layer=1" in page.evaluate("location.href")
    click(page, "sf_matrix", "cells", 4 * 1 + 2)
    says(page, "at layer 2: changes by")
    player = PlayerDriver(page, "sf_player")
    player.focus()
    player.press("Space")
    player.wait("p.position > 0.05")
    no_faults(page)
