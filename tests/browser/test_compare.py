"""The Compare page in a real browser: a click on a cell, the transplant it leads to, and the link that repeats it."""

from pathlib import Path

import pytest

from tests.browser.drive import PlayerDriver, click_point, wait_for, wait_idle, wait_plot
from tests.pages.tiny_spoof import BASE, write_spoof_demo
from tests.spoof_pairs import N_LAYERS

HERE = Path(__file__).resolve().parent
SAID = """text => document.querySelector('[data-testid="stMain"]').innerText.includes(text)"""
ONE_MAP = "() => document.querySelectorAll('.st-key-cmp_map .js-plotly-plot').length === 1"


@pytest.fixture(scope="module")
def address(serve, tmp_path_factory):
    assets = write_spoof_demo(tmp_path_factory.mktemp("assets"))
    return serve(HERE / "app_launcher.py", env={"DEMO_ASSETS": str(assets), "PATCHBAY_RUNS": str(assets / "runs")})


def test_a_visitor_clicks_a_cell_patches_that_layer_hears_a_clip_and_shares_the_view(open_page, address):
    page = open_page(f"{address}/?model={BASE}", height=1400)
    wait_idle(page, timeout=60)
    page.get_by_test_id("stSidebarNavItems").get_by_role("link", name="Compare").click()
    wait_plot(page, "cmp_map", timeout=60)
    wait_idle(page, timeout=60)
    assert page.evaluate(SAID, "Identical in both models")
    for row, said in ((0, "Layer 0: unbiased CKA 1.000"), (3, "Layer 3: unbiased CKA 0.")):
        wait_for(page, ONE_MAP)
        click_point(page, "cmp_map", 1, row * (N_LAYERS + 4) + 1)
        wait_for(page, SAID, said)
        wait_idle(page)
    page.get_by_role("button", name="Patch layer 3 from the donor").click()
    wait_for(page, "() => new URL(location.href).searchParams.get('cmp_transplant') === 'layer 3'")
    wait_for(page, SAID, "layer 3: ")
    player = PlayerDriver(page, "cmp_player")
    player.focus()
    player.press("Space")
    player.wait("duo.playing")
    player.press("b")
    assert player.heard == "B"
    wait_idle(page)
    link = page.evaluate("location.href")
    assert page.console_errors == []

    other = open_page(link, height=1400)
    wait_idle(other, timeout=60)
    wait_for(other, SAID, "layer 3: ")
    other.get_by_role("tab", name="Layer by layer").click()
    wait_plot(other, "cmp_map", timeout=60)
    wait_for(other, SAID, "Layer 3: unbiased CKA 0.")
