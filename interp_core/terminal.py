"""What a person at a terminal sees of a run, and how they stop it."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOP = threading.Event()
"""Set by a signal, read by `ProgressLine` at each step."""


@contextmanager
def stopping() -> Iterator[None]:
    """Within, SIGTERM and SIGUSR1 stop the work at its next step, a second one at once."""
    names = [name for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows has no SIGUSR1
    if threading.current_thread() is not threading.main_thread():
        names = []
    STOP.clear()
    before = {getattr(signal, name): signal.signal(getattr(signal, name), _ask) for name in names}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ask(*_: Any) -> None:
    if STOP.is_set():
        raise KeyboardInterrupt
    STOP.set()


def tell(text: str) -> None:
    """A line for the person at the screen; stdout is for what scripts read."""
    print(text, file=sys.stderr, flush=True)


class ProgressLine:
    """Done of total, rate and remaining time on one line of stderr, or a line now and then where that is no screen."""

    def __init__(self) -> None:
        self._started = self._shown = time.monotonic()
        self._first: int | None = None
        self._screen = sys.stderr.isatty()
        self._drawn = False

    def __call__(self, done: int, total: int, note: str = "") -> None:
        if STOP.is_set():
            raise KeyboardInterrupt
        now = time.monotonic()
        if self._first is None or done < self._first:  # another count has begun
            self._first, self._started = done, now
        if now - self._shown < (0.2 if self._screen else 10) and (done < total or not total):
            return
        self._shown, self._drawn = now, True
        rate = (done - self._first) / max(now - self._started, 1e-9)
        left = f"{(total - done) / rate:.0f} s left" if rate else "estimating"
        text = f"{done}/{total}  {rate:.1f}/s  {left}  {note}" if total else note  # how much there is is not known
        print(f"\r{text:<79}" if self._screen else text, end="" if self._screen else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._screen and self._drawn:
            print(file=sys.stderr)
