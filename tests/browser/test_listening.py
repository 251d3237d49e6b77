"""Pairs one after the other, the blind test, undo and a copied link, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp_core.experiments.experiment import open_result
from interp_core.experiments.patching.experiment import PATCHING
from tests.browser.drive import PlayerDriver, wait_for, wait_idle, wait_plot
from tests.pages.tiny_demo import NAME, PROMPTS, write_demo

HERE = Path(__file__).resolve().parent
SAID = "said => document.body.innerText.includes(said)"
PAIR = "pair => document.querySelector('.st-key-pair input').value === pair"
COUNTED = """(() => {
  window.heard = [];
  const inner = duo.playThrough.bind(duo);
  duo.playThrough = (side, ended) => {
    return inner(side, whole => { if (whole) window.heard.push([p.playlist.at, side]); ended(whole); });
  };
})()"""
SECRET = """() => {
  const host = document.querySelector('.st-key-blind_player'), texts = [location.href];
  const look = node => {
    for (const child of node.querySelectorAll('*')) {
      texts.push(child.tagName, child.value ?? '', ...[...child.attributes].map(a => `${a.name}=${a.value}`));
      if (child.shadowRoot) look(child.shadowRoot);
    }
    texts.push(node.textContent);
  };
  look(host);
  return texts.join('\\n');
}"""


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("assets"))


def served(serve: Any, assets: Path, runs: str) -> str:
    return serve(HERE / "app_launcher.py", env={"DEMO_ASSETS": str(assets), "PATCHBAY_RUNS": str(assets / runs)})


@pytest.fixture(scope="module")
def address(serve: Any, assets: Path) -> str:
    return served(serve, assets, "runs")


@pytest.fixture(scope="module")
def place(assets: Path) -> tuple[str, list[str]]:
    """The link to where most pairs flip, and which they are."""
    records = open_result(PATCHING, assets / NAME / "run").records
    rows = records[(records.condition == "matched") & (records.alpha == 1)]
    rows = rows[(rows.base_prediction != rows.target) & (rows.patched_prediction == rows.target)]
    kind, prompt, layer = rows.groupby(["kind", "prompt", "layer"]).size().idxmax()
    here = rows[(rows.kind == kind) & (rows.prompt == prompt) & (rows.layer == layer)]
    named = "emb" if layer == -1 else str(layer)
    return f"kind={kind}&prompt={list(PROMPTS)[prompt]}&layer={named}", here.pair_id.tolist()


def opened(open_page: Any, url: str, **settings: Any) -> Any:
    page = open_page(url, **settings)
    wait_idle(page, timeout=90)
    wait_plot(page, "curve", timeout=60)
    return page


def press_on_page(page: Any, key: str) -> None:
    wait_idle(page)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(key)
    page.wait_for_timeout(100)
    wait_idle(page)


def test_play_all_plays_a_then_b_of_every_pair_that_flips_and_selects_it(open_page, address, place):
    link, listed = place
    first, second = listed[:2]
    page = opened(open_page, f"{address}/patching?{link}&pair={first}")
    player = PlayerDriver(page, "player")
    player.get(COUNTED)
    player.focus()
    player.press("q")
    wait_for(page, PAIR, second)
    player.wait("!p.playsAll && !duo.playing && window.heard.length > 2", timeout=30)
    assert player.get("window.heard") == [[at, side] for at in range(len(listed)) for side in (0, 1)]
    wait_idle(page)
    player.press(",")
    wait_for(page, PAIR, listed[-2])
    player.wait("p.playlist.at === p.playlist.of - 2")
    assert not player.get("duo.playing")
    assert page.console_errors == []


def test_a_copied_link_shows_the_same_view_in_another_browser_on_another_server(open_page, serve, assets, address):
    page = opened(open_page, f"{address}/patching?pair=prosody-0001&layer=0")
    page.evaluate("navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); }")
    press_on_page(page, "k")
    player = PlayerDriver(page, "player")
    player.drag(0.1, 0.3)
    wait_for(page, "() => new URL(location.href).searchParams.has('window')")
    wait_idle(page)
    page.get_by_text("patch just this").click()
    wait_for(page, SAID, "take B's states")
    wait_idle(page)
    page.get_by_role("button", name="Copy link").focus()
    page.keyboard.press("Enter")
    link = wait_for(page, "() => window.copied")
    page.get_by_role("button", name="Link copied").wait_for()
    assert link == page.evaluate("location.href") and "layer=1" in link and "only_window=true" in link
    seen = page.locator(".stMarkdown", has_text="with B at").first.inner_text()
    assert "by hand" in seen

    cold = served(serve, assets, "cold")
    other = opened(open_page, link.replace(address, cold))
    assert other.locator(".stMarkdown", has_text="with B at").first.inner_text() == seen
    assert PlayerDriver(other, "player").get("duo.region") == player.get("duo.region")
    PlayerDriver(other, "player").focus()
    other.keyboard.press("Escape")  # the region that the link brought
    wait_for(other, "() => !new URL(location.href).searchParams.has('window')")
    press_on_page(other, "u")
    wait_for(other, "() => new URL(location.href).searchParams.has('window')")
    PlayerDriver(other, "player").wait("duo.region !== null")
    assert other.console_errors == [] and page.console_errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_blind_test_is_heard_and_answered_by_keys_and_the_page_does_not_know_the_secret(
    open_page, address, assets, scheme
):
    page = opened(open_page, f"{address}/patching?pair=prosody-0001", scheme=scheme)
    clips = {line["recipient"] for line in open_result(PATCHING, assets / NAME / "run").pairs}
    page.get_by_text("Blind test: is X A or B?").click()
    player = PlayerDriver(page, "blind_player")
    before = page.evaluate(SECRET)
    player.focus()
    for key, at in (("x", 2), ("a", 0), ("b", 1), ("x", 2)):
        player.press(key)
        player.wait(f"p.last === {at}")  # the clips are short: it may be over by now
    assert player.get("p.duos.filter(duo => duo.playing).length") <= 1
    assert not any(name in before for name in (".wav", "x_is", *clips)), "attributes, texts, address"
    for number in (1, 2, 3):
        was = player.get("p.trial")
        page.keyboard.press("12"[number % 2])
        wait_for(page, SAID, f"of {number} right")
        player.wait(f"p.trial !== '{was}'")
        wait_idle(page)
    assert "Level-matched by RMS" in page.evaluate("document.body.innerText")
    assert page.console_errors == []
