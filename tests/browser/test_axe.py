"""Every page, opened cold by its link with the run that ships on it: no serious fault of accessibility, in light and in
dark, a clean console, no other host; its figure can be taken along, and a link to a run that is gone says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.drive import wait_for, wait_idle

PAGES = {  # what has to be there before the page is looked at
    "": ".stPageLink, [data-testid='stPageLink']",
    "patching": ".st-key-curve .js-plotly-plot .annotation-text",
    "patching?present=true": ".st-key-curve .js-plotly-plot .annotation-text",
    "pairs": ".st-key-player",
    "compare": ".st-key-cmp_map .js-plotly-plot .xtick",
    "neurons": ".st-key-neu_curve .js-plotly-plot .xtick",
    "signflip": ".st-key-sf_matrix .js-plotly-plot .xtick",
    "steering": ".st-key-st_map .js-plotly-plot .xtick",
    "probes": ".st-key-pb_map .js-plotly-plot .xtick",
    "heads": ".st-key-heads_map .js-plotly-plot .xtick",
    "recordings": "h1",
    "models": "[data-testid='stDataFrame']",
    "runs": "[data-testid='stDataFrame']",
}
OF_RUNS = ("patching", "compare", "neurons", "signflip", "steering", "probes", "heads")
# axe does not measure what is drawn as SVG: the colour of a chart's words against the page, as WCAG has it.
FAINT = """least => {
  const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const page = light(getComputedStyle(document.querySelector('[data-testid="stApp"]')).backgroundColor);
  const words = ':is(.xtick, .ytick, .cbaxis, .cbtitle) text, :is(.xtitle, .ytitle, .annotation-text, .legendtext)';
  return [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => [...plot.querySelectorAll(words)])
    .map(word => [word.textContent, light(getComputedStyle(word).fill)])
    .filter(([, ink]) => (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05) < least).map(([text]) => text);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page_name", PAGES)
def test_no_page_has_a_serious_fault(app: str, open_page: Any, page_name: str, scheme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="requirements-dev.txt brings axe")
    page = open_page(f"{app}/{page_name}", scheme=scheme)
    wait_for(page, "place => !!document.querySelector(place)", PAGES[page_name], timeout=120)
    wait_idle(page, timeout=60)
    page.wait_for_timeout(500)
    found = axe.Axe().run(page).response["violations"]
    serious = [
        f"{one['id']}: {node['html'][:200]}"
        for one in found if one["impact"] in ("serious", "critical") for node in one["nodes"]
    ]  # fmt: skip
    assert serious == []
    assert page.evaluate(FAINT, 4.5) == []
    if page_name in OF_RUNS and scheme == "light":
        assert "<svg" in exported(page, "SVG")
    assert page.console_errors == [] and page.asked_elsewhere == []


def exported(page: Any, button: str) -> str:
    """What the button of the page's export downloads."""
    page.get_by_role("button", name="Export", exact=True).first.click()
    with page.expect_download(timeout=60_000) as download:
        page.get_by_role("button", name=button, exact=True).first.click()
    return Path(download.value.path()).read_text("utf-8")


def test_a_link_to_a_run_that_is_gone_says_so_on_every_page(app: str, app_runs: Path, open_page: Any):
    page = open_page(app)
    for name in OF_RUNS:
        page.goto(f"{app}/{name}?run={app_runs}/gone")
        wait_for(
            page, "text => document.querySelector('[data-testid=stMain]').innerText.includes(text)", "gone", timeout=60
        )
        wait_idle(page, timeout=60)
        said = page.locator("[data-testid=stAlertContentError], [data-testid=stAlertContentWarning]").all_inner_texts()
        assert len(said) == 1 and "gone" in said[0] and "Traceback" not in page.inner_text("body"), (name, said)
    assert page.console_errors == [] and page.asked_elsewhere == []
