"""Hands and eyes for browser tests: wait for the script, click a point of a chart, look into the player.

Everything polls `page.evaluate`: playwright's own `wait_for_function` needs eval, which the app's content security
policy forbids.
"""

from __future__ import annotations

import time
from typing import Any

TIMEOUT_S = 30.0

_IDLE = """() => document.querySelector('[data-testid="stApp"]')?.dataset.testScriptState === 'notRunning'"""
_PLOT_READY = """key => {
  const plot = document.querySelector(`.st-key-${key} .js-plotly-plot`);
  return !!(plot && plot._fullLayout && plot.calcdata && plot.querySelector('.nsewdrag'));
}"""
_POINT = """([key, curve, i]) => {
  const plot = document.querySelector(`.st-key-${key} .js-plotly-plot`);
  const trace = plot._fullData[curve], layout = plot._fullLayout;
  const axis = name => layout[name[0] + 'axis' + name.slice(1)];
  const x = axis(trace.xaxis || 'x'), y = axis(trace.yaxis || 'y');
  const point = plot.calcdata[curve][i], box = plot.getBoundingClientRect();
  return [box.left + x._offset + x.c2p(point.x), box.top + y._offset + y.c2p(point.y)];
}"""


def wait_for(page: Any, expression: str, arg: Any = None, *, timeout: float = TIMEOUT_S) -> Any:
    """The first truthy value of a JavaScript function of `arg`; AssertionError if there is none in `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        value = page.evaluate(expression, arg)
        if value:
            return value
        assert time.monotonic() < deadline, f"still {value!r} after {timeout:g} s: {expression} with {arg!r}"
        page.wait_for_timeout(25)


def wait_idle(page: Any, *, timeout: float = TIMEOUT_S) -> None:
    """Until the script has run and nothing is queued: idle at two looks in a row."""
    for _ in range(2):
        wait_for(page, _IDLE, timeout=timeout)
        page.wait_for_timeout(60)


def wait_plot(page: Any, key: str, *, timeout: float = TIMEOUT_S) -> None:
    """Until the chart with this key is drawn and takes clicks (plotly comes late: it is a large file)."""
    wait_for(page, _PLOT_READY, key, timeout=timeout)


def point_position(page: Any, key: str, curve: int, i: int) -> tuple[float, float]:
    """Pixels, in the window, of point `i` of trace `curve`; scrolls the chart into view first."""
    wait_plot(page, key)
    page.locator(f".st-key-{key} .js-plotly-plot").scroll_into_view_if_needed()
    x, y = page.evaluate(_POINT, [key, curve, i])
    return x, y


def click_point(page: Any, key: str, curve: int, i: int) -> None:
    """Click a point of a chart. Two moves, because plotly clicks what is hovered."""
    x, y = point_position(page, key, curve, i)
    page.mouse.move(x - 3, y - 3)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.up()


class PlayerDriver:
    """The A/B player with this key on the page, as a listener has it, and what it is doing inside."""

    def __init__(self, page: Any, key: str) -> None:
        self.page = page
        self.root = page.locator(f".st-key-{key} .ab-player")
        self.root.wait_for()

    def focus(self) -> None:
        self.root.focus()

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def get(self, expression: str) -> Any:
        """A value of the player: `p` is it (player.js), `duo` its sound (audio.js)."""
        return self.root.evaluate(f"element => {{ const p = element.abPlayer, duo = p.duo; return {expression}; }}")

    def wait(self, expression: str, *, timeout: float = 5.0) -> None:
        """Until `expression` (as in `get`) is true."""
        deadline = time.monotonic() + timeout
        while not self.get(expression):
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {expression}"
            self.page.wait_for_timeout(15)

    @property
    def position(self) -> float:
        """Seconds."""
        return float(self.get("p.position"))

    @property
    def heard(self) -> str:
        """Which clip sounds: 'A' or 'B'."""
        return "AB"[self.get("duo.active")]

    def drag(self, start: float, end: float) -> None:
        """Mark a region with the mouse, from `start` to `end` in seconds."""
        self.root.scroll_into_view_if_needed()
        box, seconds = self.root.locator(".overlay").bounding_box(), self.get("p.seconds")
        y = box["y"] + box["height"] / 2
        left, right = (box["x"] + box["width"] * at / seconds for at in (start, end))
        self.page.mouse.move(left, y)
        self.page.mouse.down()
        self.page.mouse.move((left + right) / 2, y)
        self.page.mouse.move(right, y)
        self.page.mouse.up()

    def click_at(self, seconds: float) -> None:
        """Click the pictures at a time."""
        box, length = self.root.locator(".overlay").bounding_box(), self.get("p.seconds")
        self.page.mouse.click(box["x"] + box["width"] * seconds / length, box["y"] + box["height"] / 2)
