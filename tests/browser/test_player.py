"""The A/B player in a real browser, under the app's content security policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser.drive import PlayerDriver, wait_for, wait_idle

HERE = Path(__file__).parent
PERIOD = 400  # samples between the impulses of player_app.py
pytestmark = pytest.mark.browser

# Records what leaves the player, sample for sample. A worklet, because a ScriptProcessor loses blocks under load.
START_TAP = """async element => {
  const {context, output} = element.abPlayer.duo;
  const code = `registerProcessor('tap', class extends AudioWorkletProcessor {
    process([input]) {
      if (input[0]) this.port.postMessage({at: currentFrame, values: input[0].slice()});
      return true;
    } })`;
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([code], {type: 'text/javascript'})));
  const tap = new AudioWorkletNode(context, 'tap');
  element.taken = [];
  tap.port.onmessage = message => element.taken.push(message.data);
  output.connect(tap).connect(context.destination);
}"""
IMPULSES_TAKEN = """element => {
  const found = [];
  let taken = 0;
  for (const {at, values} of element.taken) {
    values.forEach((value, i) => { if (value > 0.1) found.push([at + i, taken + i, value]); });
    taken += values.length;
  }
  return found;
}"""

AROUND_THE_TURN = """new Promise(done => {
  let last = p.position;
  const look = () => {
    const at = p.position;
    if (at < last) return done([last, at]);
    last = at;
    requestAnimationFrame(look);
  };
  look();
})"""


def gaps(found: list[list[float]]) -> tuple[set[float], set[float]]:
    """How far impulses are apart by the clock, and by the samples that the tap was given.

    A busy machine makes the browser leave the tap out of a block of 128, or give it one without sound: that changes one
    of the two. A player that goes on at another sample changes both.
    """
    pairs = list(zip(found, found[1:], strict=False))
    by_clock, by_samples = ({late[at] - early[at] for early, late in pairs} for at in (0, 1))
    return by_clock, by_samples


@pytest.fixture
def player(serve: Callable[..., str], open_page: Callable[..., Any]) -> Callable[..., PlayerDriver]:
    """player("case=single") opens the harness page and gives its player, with the focus on it."""
    address = serve(HERE / "csp_launcher.py", env={"SCRIPT": str(HERE / "player_app.py")})

    def open_player(query: str = "case=pair") -> PlayerDriver:
        page = open_page(f"{address}/?{query}")
        driver = PlayerDriver(page, "player")
        wait_idle(page)
        driver.focus()
        return driver

    return open_player


def region_on_page(driver: PlayerDriver) -> str:
    """The harness writes what Python knows about the region."""
    return str(driver.page.get_by_text("region=").text_content())


def wait_region(driver: PlayerDriver, text: str) -> None:
    wait_for(driver.page, "text => document.body.innerText.includes(text)", text, timeout=5)


def test_space_plays_and_the_playhead_keeps_the_time_of_the_audio_clock(player):
    driver = player()
    driver.press("Space")
    driver.wait("duo.playing && p.position > 0.1")
    first, then = driver.get("[p.position, duo.context.currentTime]")
    driver.page.wait_for_timeout(500)
    last, now = driver.get("[p.position, duo.context.currentTime]")
    assert last - first == pytest.approx(now - then, abs=1e-3)
    assert last - first > 0.3
    shown = driver.root.locator(".playhead").evaluate("mark => parseFloat(mark.style.left)")
    assert 0 < shown < 100
    driver.press("Space")
    assert driver.get("duo.playing") is False
    held = driver.position
    driver.page.wait_for_timeout(200)
    assert driver.position == held
    assert driver.page.console_errors == []


def test_keys_and_clicks_switch_between_the_clips_and_say_so(player):
    driver = player()
    checked = "[...p.root.querySelectorAll('.source')].map(s => s.getAttribute('aria-checked')).join()"
    assert (driver.heard, driver.get(checked)) == ("A", "true,false")
    driver.press("b")
    assert (driver.heard, driver.get(checked)) == ("B", "false,true")
    driver.press("x")
    assert driver.heard == "A"
    driver.root.locator(".source[data-side='1']").click()
    assert driver.heard == "B"
    driver.press("Space")  # after a click with the mouse the keys belong to the player, not to the button
    driver.wait("duo.playing")
    driver.press("a")
    driver.wait("duo.fader.offset.value < -0.999")
    driver.press("b")
    driver.wait("duo.fader.offset.value > 0.999")
    active = driver.root.locator(".track.active")
    assert active.count() == 1 and active.get_attribute("data-side") == "1"


def test_arrows_switch_when_the_radio_has_the_focus_and_seek_otherwise(player):
    driver = player()
    driver.press("ArrowRight")
    assert (driver.position, driver.heard) == (pytest.approx(0.1, abs=1e-3), "A")
    driver.root.locator(".source[data-side='0']").focus()
    driver.press("ArrowRight")
    assert (driver.position, driver.heard) == (pytest.approx(0.1, abs=1e-3), "B")
    assert driver.root.locator(".source[data-side='1']").evaluate("b => b === b.getRootNode().activeElement")
    driver.focus()
    driver.press("Home")
    assert driver.position == 0


def test_handled_keys_stay_in_the_player_and_the_others_reach_the_page(player):
    driver = player()
    driver.page.evaluate("() => { window.seen = []; document.addEventListener('keydown', e => seen.push(e.key)); }")
    for key in ("a", "b", "x", "l", "m", "ArrowLeft", "Home", "z"):
        driver.press(key)
    assert driver.page.evaluate("seen") == ["z"]
    driver.page.evaluate("document.activeElement.blur()")
    heard = driver.heard
    driver.press("x")
    assert driver.heard == heard and driver.page.evaluate("seen") == ["z", "x"]


def test_twenty_switches_leave_every_impulse_on_its_sample(player):
    driver = player("case=impulses")
    driver.press("l")
    driver.press("Space")
    driver.wait("duo.playing")
    driver.root.evaluate(START_TAP)
    driver.page.wait_for_timeout(100)
    for _ in range(20):
        driver.press("x")
        driver.page.wait_for_timeout(60)
    found = driver.root.evaluate(IMPULSES_TAKEN)
    assert len(found) > 50
    assert {PERIOD} in gaps(found)
    # A and B are equal here, so the crossfade's gains cos and sin may add up to sqrt 2 and never fall under 1.
    assert min(value for *_, value in found) >= 0.499
    assert max(value for *_, value in found) <= 0.5 * 2**0.5 + 1e-3


def test_a_switch_is_12_ms_long_and_keeps_the_power(player):
    driver = player("case=interleaved")
    driver.press("l")
    driver.press("Space")
    driver.wait("duo.playing")
    driver.root.evaluate(START_TAP)
    driver.page.wait_for_timeout(100)
    driver.press("b")
    driver.wait("duo.fader.offset.value > 0.999")
    driver.page.wait_for_timeout(100)
    taken = np.array(driver.root.evaluate("element => element.taken.flatMap(block => [...block.values])"))
    pairs = taken[: len(taken) // 2 * 2].reshape(-1, 2) / 0.5  # A speaks on even samples and B on odd ones, or so
    a, b = pairs.T if pairs[0, 0] > pairs[0, 1] else pairs.T[::-1]
    assert (a[0], b[0]) == (pytest.approx(1, abs=1e-3), pytest.approx(0, abs=1e-3))
    assert (a[-1], b[-1]) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))
    np.testing.assert_allclose(a**2 + b**2, 1, atol=0.03)
    both = np.flatnonzero((a > 0.01) & (b > 0.01))
    assert len(both) * 2 / 16000 == pytest.approx(0.012, abs=0.001)


def test_a_new_b_is_swapped_in_without_a_gap_while_a_sounds_on(player):
    driver = player("case=impulses")
    driver.press("l")
    driver.press("Space")
    driver.wait("duo.playing")
    driver.root.evaluate(START_TAP)
    driver.page.wait_for_timeout(200)
    before, then, played = driver.get("[p.position, duo.context.currentTime, duo.clips[1].digest]")
    driver.page.get_by_role("button", name="Swap B", exact=True).click()
    driver.wait(f"duo.clips[1].digest !== '{played}'")
    driver.page.wait_for_timeout(300)
    after, now, playing = driver.get("[p.position, duo.context.currentTime, duo.playing]")
    assert playing
    assert (after - before) % 1 == pytest.approx((now - then) % 1, abs=1e-3)  # the clips are 1 s long and looped
    found = driver.root.evaluate(IMPULSES_TAKEN)
    assert {PERIOD} in gaps(found)
    assert all(value == pytest.approx(0.5, abs=1e-3) for *_, value in found)  # A, faded over into itself
    assert driver.page.console_errors == []


def test_a_dragged_region_loops_reaches_python_and_goes_with_the_clips(player):
    driver = player()
    driver.drag(0.5, 0.8)
    assert driver.get("duo.loop")
    start, end = driver.get("duo.region.map(frame => frame / duo.rate)")
    assert (start, end) == (pytest.approx(0.5, abs=0.01), pytest.approx(0.8, abs=0.01))
    wait_region(driver, f"region=({round(start, 3)}, {round(end, 3)})")
    driver.press("Space")
    driver.wait("duo.playing && p.position > 0.7")
    last, next_one = driver.get(AROUND_THE_TURN)
    assert 0.7 < last <= end and 0.5 <= next_one < 0.6
    driver.page.get_by_role("button", name="Swap B", exact=True).click()
    driver.wait("duo.region === null")
    assert driver.get("duo.playing") and not driver.get("duo.loop")
    wait_region(driver, "region=None")
    wait_region(driver, ", None]")  # and the callback heard of it


def test_escape_and_a_click_outside_clear_the_region_and_a_click_moves_the_playhead(player):
    driver = player()
    driver.drag(0.5, 0.8)
    wait_region(driver, "region=(0.")
    driver.click_at(0.6)
    assert driver.position == pytest.approx(0.6, abs=0.01) and driver.get("duo.region !== null")
    driver.press("Escape")
    assert driver.get("duo.region") is None
    wait_region(driver, "region=None")
    driver.drag(0.9, 0.6)  # backwards
    driver.click_at(1.5)
    assert driver.position == pytest.approx(1.5, abs=0.01) and driver.get("duo.region") is None


def test_level_match_turns_the_louder_clip_down_to_the_other_and_can_be_switched_off(player):
    driver = player()
    rms = driver.get("duo.clips.map(clip => clip.rms)")
    assert rms[1] > 1.5 * rms[0]
    assert driver.get("[0, 1].map(side => duo.gain(side))") == [1, pytest.approx(rms[0] / rms[1])]
    assert driver.root.locator(".track[data-side='1'] .gain").text_content().startswith("−")
    driver.press("b")
    driver.press("Space")
    driver.wait(f"duo.playing && Math.abs(duo.levels[1].gain.value - {rms[0] / rms[1]}) < 1e-3")
    driver.press("m")
    driver.wait("Math.abs(duo.levels[1].gain.value - 1) < 1e-3")
    assert driver.root.locator(".level").get_attribute("aria-pressed") == "false"
    assert driver.root.locator(".track[data-side='1'] .gain").text_content() == ""


def test_playing_ends_at_the_end_and_goes_back_to_the_start(player):
    driver = player()
    driver.click_at(2.1)
    driver.press("Space")
    driver.wait("duo.playing")
    driver.wait("!duo.playing && p.position === 0")


def test_other_clips_stop_the_sound_and_are_shown(player):
    driver = player()
    driver.press("Space")
    driver.wait("duo.playing")
    driver.page.get_by_role("button", name="Swap both").click()
    driver.wait("duo.clips[0].digest.startsWith('a2')")
    assert driver.get("[duo.playing, p.position]") == [False, 0]
    assert driver.root.locator(".track[data-side='0'] .name").text_content() == "s05_sad_2.wav"


def test_only_one_player_of_a_page_sounds_at_a_time(player):
    first = player("case=pair&two=1")
    second = PlayerDriver(first.page, "second")
    first.press("Space")
    first.wait("duo.playing")
    second.focus()
    second.press("Space")
    second.wait("duo.playing")
    assert not first.get("duo.playing")


def test_a_single_clip_has_no_second_track_and_no_switch(player):
    driver = player("case=single")
    assert driver.root.locator(".source:visible, .level:visible, .track[data-side='1']:visible").count() == 0
    driver.press("b")
    assert driver.heard == "A"
    driver.press("Space")
    driver.wait("duo.playing && p.position > 0.1")
    assert driver.page.console_errors == []


def test_a_label_is_text_and_never_markup(player):
    driver = player("case=hostile")
    assert driver.root.locator(".track[data-side='0'] .name").text_content().startswith("<img src=x onerror=")
    assert driver.root.locator("img, b").count() == 0
    assert "owned" not in driver.page.title()


def test_the_pictures_hold_both_clips_on_one_scale_and_the_window_is_hatched(player):
    driver = player("case=pair&window=1")
    # B is 1.9 s of 2.3 s: its picture is empty behind its end, and A's is not.
    inked = """p.clips.map((_, side) => {
      const canvas = p.root.querySelectorAll('.lane canvas')[side], pen = canvas.getContext('2d');
      const data = pen.getImageData(Math.round(canvas.width * 0.9), 0, 1, canvas.height).data;
      return data.filter((value, i) => i % 4 === 3 && value > 0).length;
    })"""
    full, empty = driver.get(inked)
    assert full > 50 and empty == 0
    box = driver.root.locator(".overlay").bounding_box()
    window = driver.root.locator(".window").bounding_box()
    assert (window["x"] - box["x"]) / box["width"] == pytest.approx(0.4 / 2.3, abs=0.01)
    assert window["width"] / box["width"] == pytest.approx(0.5 / 2.3, abs=0.01)
    assert "0.40 – 0.90 s" in driver.root.locator(".legend").text_content()
