"""A stranger's way from the start page to a curve: speak, drop, label, patch by hand, click a layer, hear B."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from interp_core.data.manifest import read_manifest
from tests.browser.drive import TIMEOUT_S, PlayerDriver, click_point, wait_for, wait_idle, wait_plot
from tests.pages.tiny_demo import write_demo

HERE = Path(__file__).resolve().parent
PATCHED = """() => document.querySelector('.st-key-hand_curve .js-plotly-plot')._fullData
  .findIndex(trace => (trace.name || '') === 'patched from B')"""


COUNT_CLICKS = """() => {
  window.clicks = 0;
  document.addEventListener('pointerdown', event => { window.clicks += event.isTrusted; }, true);
}"""
COLUMNS = "() => [...document.querySelectorAll('[data-testid=stDataFrame] canvas th')].map(one => one.textContent)"


def label_voices(page: Any, labels: list[str]) -> None:
    """Type the labels of the first recordings into the table, one click and then keys alone."""
    columns = wait_for(page, f"() => {{ const all = ({COLUMNS})(); return all.includes('prosody_label') && all; }}")
    table = page.locator("[data-testid=stDataFrame] canvas").first
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    page.mouse.click(box["x"] + 120, box["y"] + 52)  # the clip's name in the first row
    steps = columns.index("prosody_label") - columns.index("clip")
    for key in ["ArrowRight" if steps > 0 else "ArrowLeft"] * abs(steps):
        page.keyboard.press(key)
    for label in labels:
        page.keyboard.press("Enter")
        page.locator(".gdg-input").wait_for()
        page.keyboard.type(label, delay=30)
        page.keyboard.press("Enter")  # and one row down
        page.locator(".gdg-input").wait_for(state="hidden")
    wait_idle(page)


def wait_for_labels(manifest: Path, labels: list[str | None]) -> None:
    """Until the collection on the disk has them."""
    deadline = time.monotonic() + TIMEOUT_S
    while (found := [clip.label("prosody_label") for clip in read_manifest(manifest).clips]) != labels:
        assert time.monotonic() < deadline, f"the collection holds {found}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def address(serve: Any, tmp_path_factory: pytest.TempPathFactory, folder: Path) -> str:
    assets = write_demo(tmp_path_factory.mktemp("assets"))
    places = {"DEMO_ASSETS": str(assets), "PATCHBAY_RUNS": str(assets / "runs"), "PATCHBAY_DATA": str(folder)}
    return serve(HERE / "app_launcher.py", env=places)


def sound(name: str, hertz: float, rate: int, channels: int) -> dict[str, Any]:
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    file = io.BytesIO()
    soundfile.write(file, np.stack([wave] * channels, axis=1), rate, format=Path(name).suffix[1:].upper())
    return {"name": name, "mimeType": "application/octet-stream", "buffer": file.getvalue()}


def test_from_the_start_page_to_a_curve_in_four_clicks(open_page, address, folder):
    page = open_page(f"{address}/")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("link", name="Record or drop sound").click(timeout=60_000)  # 1
    wait_idle(page)
    page.locator("input[type=file]").set_input_files(
        [sound("low.flac", 110, 16_000, 1), sound("high.wav", 900, 48_000, 2)]
    )
    page.get_by_text("2 recordings were added").wait_for()
    wait_idle(page)
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop recording").click()
    page.get_by_text("1 recording was added").wait_for()
    wait_idle(page)

    (made,) = folder.glob("*/clips.csv")
    clips = {clip.clip_id: clip for clip in read_manifest(made).clips}
    assert list(clips) == ["low", "high", "spoken 3"]
    samples, rate = soundfile.read(clips["spoken 3"].path)
    assert 0.5 < len(samples) / rate < 4 and np.sqrt(np.mean(samples**2)) > 0.01, "the microphone was heard"

    page.evaluate(COUNT_CLICKS)
    label_voices(page, ["deep", "shrill"])  # 1
    wait_for_labels(made, ["deep", "shrill", None])
    page.get_by_role("link", name="Patch B into A").click()  # 2
    wait_plot(page, "hand_curve", timeout=60)
    wait_idle(page)
    click_point(page, "hand_curve", page.evaluate(PATCHED), 2)  # 3
    wait_for(page, "() => document.body.innerText.includes('Layer 1: the answer is')")
    player = PlayerDriver(page, "player")
    player.root.locator("button.source[data-side='1']").click()  # 4
    page.keyboard.press("Space")
    player.wait("duo.playing && p.position > 0.05")
    assert page.evaluate("window.clicks") == 4
    assert player.heard == "B"
    assert page.console_errors == []
    assert [url for url in asked if not url.startswith((address, "data:", "blob:", "ws:"))] == []


def test_two_browsers_do_not_see_each_others_recordings(open_page, address, folder):
    (made,) = folder.glob("*/clips.csv")
    other = open_page(f"{address}/recordings")  # a context of its own, as another browser
    other.get_by_text("Drop two recordings").wait_for(timeout=60_000)
    assert "My recordings" not in other.content()
    other.goto(f"{address}/pairs?clips={made}&pairs=two+clips+by+hand")
    other.get_by_test_id("stMain").get_by_text("another visitor").wait_for(timeout=60_000)
