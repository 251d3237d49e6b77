"""Text from elsewhere is shown word for word, wherever Streamlit would read markdown in it."""

from pathlib import Path

from tests.browser.drive import wait_idle
from tests.browser.hostile import TEXTS

APP = Path(__file__).with_name("text_app.py")
JOINER = "\u2060"


def test_text_from_elsewhere_is_text_in_every_place(serve, open_page):
    page = open_page(serve(APP))
    wait_idle(page)
    page.get_by_test_id("stExpander").last.wait_for()
    page.wait_for_timeout(500)
    everything = page.locator("[data-testid=stMain]")
    for made in ("a[href]", "img", "strong", "em", "del", "code", "h1", "table", ".katex", "hr", "[class*=icon]"):
        found = everything.locator(f"[data-testid=stMarkdownContainer] {made}")
        assert found.count() == 0, (made, found.first.inner_text())
    lines = everything.inner_text().replace(JOINER, "").splitlines()
    missing = {text: [line for line in lines if text[:4] in line] for text in TEXTS
               if sum(text in line for line in lines) < 11}  # fmt: skip
    assert missing == {}
