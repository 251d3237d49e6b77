"""What a run will take, said before it starts."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from interp_core.models.subject import Subject
from interp_core.trace.generate import Row, generate


@dataclass(frozen=True)
class Cost:
    """What a run will take: forward passes (or what costs as much), seconds, and on what."""

    forwards: float
    seconds: float
    of: str
    also: str = ""

    def __str__(self) -> str:
        took = f"{self.seconds:.0f} s" if self.seconds < 120 else f"{self.seconds / 60:.0f} min"
        return f"{self.of}: about {self.forwards:.0f} forward passes, {took}{f', and {self.also}' if self.also else ''}"


def timed(work: Callable[[], Any]) -> float:
    """Seconds that some work takes once it is warm."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def token_seconds(subject: Subject, row: Row) -> float:
    """Seconds that one more token takes, however many rows go along."""
    short, long = (timed(lambda n=n: generate(subject, [row], n)) for n in (1, 5))  # type: ignore[misc]
    return max(0.0, long - short) / 4
