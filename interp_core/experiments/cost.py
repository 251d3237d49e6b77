"""What a run will take, said before it starts: passes by counting, seconds by timing a sample of the run's own work.

A pass is what one clip costs once through all blocks, as block-positions: a copy that leaves layer l of n takes (n - l)
of n blocks, a token one position. What is timed is what the run does: clips made ready, as many copies in a batch as
the run has, a probe as large as the run has; one clip alone would take a third to twice of what one of a batch does.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from interp_core.data.clips import Clip
from interp_core.experiments.clips import ClipReader
from interp_core.models.prompted import Prompted
from interp_core.models.subject import Subject
from interp_core.trace.generate import Row, generate

WAY_BACK = 1.0
"""The way back from an answer, in passes forward: weights are frozen, so a block makes one product for each of its own,
the gradient of what enters it (of attention two)."""
CLOCK = time.perf_counter
"""What seconds are read off."""
LONG_ENOUGH_S, MOST_TIMES = 0.3, 7
SAMPLE = 16
"""Copies of a clip in a batch that is timed, and clips made ready, at most."""


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
    """Seconds that some work takes once it is warm: the median of up to seven times, fewer of what takes long."""
    work()
    taken: list[float] = []
    while not taken or (len(taken) < MOST_TIMES and sum(taken) < LONG_ENOUGH_S):
        started = CLOCK()
        work()
        taken.append(CLOCK() - started)
    return median(taken)


def pass_seconds(reader: ClipReader, clip: Clip, together: int = 1) -> float:
    """Seconds a pass of a clip takes where so many go together."""
    one, n = reader.ready(clip), max(1, min(together, SAMPLE))
    with torch.inference_mode():
        return timed(lambda: reader.answer([one] * n)) / n


def ready_seconds(make: Callable[[Clip], Any], clips: Sequence[Clip]) -> float:
    """Seconds that making a clip ready takes, over some clips that were not asked for yet; the run finds them made.

    Args:
        make: decodes a clip and makes of it what enters the model.
        clips: of the run. The first are often there already: labels are checked on them.
    """
    some = clips[-min(5, len(clips)) :]
    taken = []
    for clip in some:
        started = CLOCK()
        make(clip)
        taken.append(CLOCK() - started)
    return median(taken)


def like_states(n: int, width: int, seed: int) -> NDArray[np.float64]:
    """[n, width] noise on which a probe takes about the steps that it takes on a model's states.

    Neighbouring columns go together, so that most of the variance lies in few directions, as it does in states; on
    independent columns a fit ends after a fraction of the steps. Columns have mean 0 and standard deviation 1.
    """
    walk = np.random.default_rng(seed).normal(size=(n, width)).cumsum(axis=1)
    spread = walk.std(axis=0)
    return (walk - walk.mean(axis=0)) / np.where(spread > 0, spread, 1)


def token_seconds(subject: Subject, row: Row, rows: int = 1) -> float:
    """Seconds that one more token takes to as many rows."""
    short, long = (timed(lambda n=n: generate(subject, [row] * rows, n)) for n in (1, 5))  # type: ignore[misc]
    return max(0.0, long - short) / 4


def in_words(subject: Subject, prompted: Prompted, clips: int, edits: int, n_tokens: int) -> tuple[float, float, str]:
    """What it takes to write clips' answers in words, each as it is and under some edits, in one batch a clip.

    Args:
        prompted: a clip like the others.
    Returns:
        Passes of a clip alone (the prompt, then a position a token), the seconds that waiting for tokens takes on top,
        and both in words.
    """
    rows = 1 + edits
    passes = clips * rows * (1 + n_tokens / prompted.n_pos)
    waiting = clips * n_tokens * token_seconds(subject, Row(prompted), rows)
    return passes, waiting, f"up to {n_tokens} tokens in words of {clips} clips"
