"""Which positions of A are replaced, and by which of B: spans and alignment."""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from interp_core.errors import InterpError
from interp_core.experiments.patching.request import Align
from interp_core.models.prompted import Prompted

NAMED = ("audio", "question", "last", "prefix", "all")


@dataclass(frozen=True, eq=False)
class Aligned:
    """Recipient positions [m], the donor positions [m] (float64) that go there, and the share of the span covered."""

    positions: Tensor
    source: Tensor
    covered: float


@dataclass(frozen=True)
class Replaced:
    """What a time window replaces in the recipient.

    Attributes:
        first, stop: audio positions, counted from the recording's first; `stop` is the first that is left alone.
        of: how many audio positions the recipient has.
        step: seconds that one position covers.
    """

    first: int
    stop: int
    of: int
    step: float

    @property
    def seconds(self) -> tuple[float, float]:
        """(start, stop) of these positions; at most half a position away from what was asked for at either end."""
        return self.first * self.step, self.stop * self.step


def check_positions(positions: str, align: str) -> None:
    """Refuse a span or an alignment that has no meaning, before anything runs."""
    if align not in ("truncate", "resample"):
        raise InterpError(f"align {align!r} is neither truncate nor resample.")
    if positions not in NAMED and _seconds(positions) is None:
        raise InterpError(
            f"positions {positions!r} is none of {', '.join(NAMED)}, nor a time window like 0.5-1.2 (seconds)."
        )


def time_window(positions: str) -> tuple[float, float] | None:
    """Return (start, stop) in seconds if `positions` is a time window."""
    return _seconds(positions)


def align_positions(a: Prompted, b: Prompted, positions: str = "audio", align: Align = "truncate") -> Aligned:
    """Match the positions of a span in recipient `a` with those in donor `b`.

    Args:
        a, b: the clips under one prompt; their audio may differ in length.
        positions: audio; question (text after the audio, without the last); last; prefix (before the audio); all; or
            a time window START-STOP in seconds.
        align: truncate replaces the first min(len_a, len_b) audio positions; resample stretches b's audio linearly
            over all of a's. A time window means the same seconds under truncate, the same fraction under resample.
    Raises:
        InterpError: the window lies outside one of the clips, or the texts around the audio differ in length.
    """
    check_positions(positions, align)
    (a0, a1), (b0, b1) = a.audio, b.audio
    if positions == "audio":
        return _audio(a, b, align)
    if positions == "all" and a.n_pos == b.n_pos and (a.audio == b.audio or not a.worded):
        every = torch.arange(a.n_pos)
        return Aligned(every, every.double(), 1.0)
    if positions == "all" and not a.worded:
        return _audio(a, b, align)
    if positions == "all":
        parts = [align_positions(a, b, part, align) for part in ("prefix", "audio", "question", "last")]
        covered = sum(len(part.positions) for part in parts) / a.n_pos
        return Aligned(torch.cat([p.positions for p in parts]), torch.cat([p.source for p in parts]), covered)
    if positions == "prefix":
        return _text(a, b, (0, a0), (0, b0))
    if positions == "question":
        return _text(a, b, (a1, a.n_pos - 1), (b1, b.n_pos - 1))
    if positions == "last":
        return _text(a, b, (a.n_pos - 1, a.n_pos), (b.n_pos - 1, b.n_pos))
    window = _seconds(positions)
    assert window is not None, "check_positions let only windows through"
    return _window(a, b, window, align)


def _audio(a: Prompted, b: Prompted, align: Align) -> Aligned:
    (a0, a1), (b0, b1) = a.audio, b.audio
    n_a, n_b = a1 - a0, b1 - b0
    if align == "truncate":
        m = min(n_a, n_b)
        return in_bands(a, b, torch.arange(m), torch.arange(m, dtype=torch.float64), m / n_a)
    return in_bands(a, b, torch.arange(n_a), torch.linspace(0, n_b - 1, n_a, dtype=torch.float64), 1.0)


def in_bands(a: Prompted, b: Prompted, frames: Tensor, source: Tensor, covered: float) -> Aligned:
    """Turn frames of the audio, counted from its start, into positions: the same frames in every band."""
    (bands, stride_a), (_, stride_b) = a.bands, b.bands
    band = torch.arange(bands)[:, None]
    return Aligned(
        (frames + a.audio[0] + band * stride_a).flatten(), (source + b.audio[0] + band * stride_b).flatten(), covered
    )


def source_frames(b: Prompted, source: Tensor) -> tuple[int, int]:
    """The frames [first, stop) of donor `b`'s audio that sources [m], the same in every band, lie in or next to."""
    of_first_band = source.view(b.bands[0], -1)[0] - b.audio[0]
    return round(float(of_first_band.min())), round(float(of_first_band.max())) + 1


def _text(a: Prompted, b: Prompted, span_a: tuple[int, int], span_b: tuple[int, int]) -> Aligned:
    n_a, n_b = span_a[1] - span_a[0], span_b[1] - span_b[0]
    if n_a != n_b:
        raise InterpError(
            f"clips {a.clip_id!r} and {b.clip_id!r} have {n_a} and {n_b} text positions there; "
            "give both the same prompt."
        )
    return Aligned(torch.arange(*span_a), torch.arange(*span_b, dtype=torch.float64), 1.0)


def replaced_by(a: Prompted, b: Prompted, window: tuple[float, float], align: Align) -> Replaced:
    """The audio positions of recipient `a` that a window in seconds replaces, at least one.

    Raises:
        InterpError: the window lies outside one of the clips.
    """
    n_a, n_b, step = a.audio[1] - a.audio[0], b.audio[1] - b.audio[0], a.seconds_per_position
    first, stop = _asked_for(window, step)
    limit = min(n_a, n_b) if align == "truncate" else n_a
    if first >= limit:
        raise InterpError(
            f"the window {window[0]:g}-{window[1]:g} s lies behind the end of clip {a.clip_id!r} or {b.clip_id!r} "
            f"({limit * step:.2f} s); choose an earlier one."
        )
    return Replaced(first, min(stop, limit), n_a, step)


def _asked_for(window: tuple[float, float], step: float) -> tuple[int, int]:
    first = round(window[0] / step)
    return first, max(round(window[1] / step), first + 1)


def _window(a: Prompted, b: Prompted, window: tuple[float, float], align: Align) -> Aligned:
    found = replaced_by(a, b, window, align)
    inside = torch.arange(found.first, found.stop)
    offsets = inside.double()
    if align == "resample":  # ends on ends, as for the whole span
        offsets = offsets * (b.audio[1] - b.audio[0] - 1) / max(found.of - 1, 1)
    first, stop = _asked_for(window, found.step)
    return in_bands(a, b, inside, offsets, len(inside) / (stop - first))


def _seconds(positions: str) -> tuple[float, float] | None:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*", positions)
    if match is None or not float(match[1]) < float(match[2]) < math.inf:
        return None
    return float(match[1]), float(match[2])
