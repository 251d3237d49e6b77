"""What an edit did to a sound, measured on the sound that came out: its F0, rate, level and spectral centroid.

A knob is named for what it is meant to move; that it moved this, and left the others where they were, is measured. A
phase vocoder that shifts the pitch moves the formants, and with them the centroid: an effect of `pitch=+4` need not be
one of pitch.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from interp_core.data.clips import Acoustics, voiced_f0
from interp_core.data.edits import KNOBS, Edit

ALLOWED = 0.05
"""The share by which an edit may move what it is not meant to, before it is said."""
FRAME_HZ = 100
RATES = np.geomspace(0.2, 5.0, 645)  # half a per cent apart; 1 is one of them
QUANTITIES: Mapping[str, tuple[str, str]] = {  # how it is called, and the column of its value
    "f0": ("F0", "f0_median_hz"),
    "rate": ("rate", "rate"),
    "level": ("level", "rms"),
    "centroid": ("centroid", "spectral_centroid_hz"),
}


def relative_rate(own: np.ndarray, made: np.ndarray, sample_rate: int) -> float:
    """How many times as fast `made` says what `own` says.

    The loudness contour of `own` is run faster and slower, and the speed at which it is most like that of `made` is
    the answer: unlike a count of onsets, of which a clip of two seconds has five, it does not jump.

    Args:
        own, made: [n_samples] each, of one sample rate.
    Returns:
        0.2 to 5, in steps of half a per cent; NaN where one of them has no contour (silence, a steady tone).
    """
    a, b = (_contour(samples, sample_rate) for samples in (own, made))
    if a.std() <= 1e-3 * a.mean() or b.std() <= 1e-3 * b.mean() or a.max() == 0 or b.max() == 0:
        return math.nan
    b, times = b / b.max(), np.arange(max(len(a) * 5, len(b)))
    whole = np.interp(times, np.arange(len(b)), b, right=0)
    best, found = -math.inf, math.nan
    for rate in RATES:
        stop = max(len(b), math.ceil(len(a) / rate))
        run = np.interp(times[:stop] * rate, np.arange(len(a)), a, right=0)
        with np.errstate(invalid="ignore"):
            likeness = float(np.corrcoef(run, whole[:stop])[0, 1])
        if likeness > best + 1e-12:
            best, found = likeness, float(rate)
    return found


def _contour(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """RMS of frames of 40 ms, 100 a second."""
    hop = max(1, sample_rate // FRAME_HZ)
    padded = np.pad(np.asarray(samples, np.float64), 2 * hop)
    power = np.add.reduceat(padded**2, np.arange(0, len(padded) - hop, hop)) / hop
    return np.sqrt(np.convolve(power, np.full(4, 0.25), "same"))


def f0_spread(samples: np.ndarray, sample_rate: int) -> float:
    """The middle half of the voiced frames' F0, in semitones; NaN where no frame is voiced."""
    voiced = voiced_f0(samples, sample_rate)
    return float(12 * np.diff(np.quantile(np.log2(voiced), (0.25, 0.75)))[0]) if len(voiced) else math.nan


def decibels(rms: float) -> float:
    """A level in dB against full scale; -inf for silence."""
    return 20 * math.log10(rms) if rms > 0 else -math.inf


def change_of(before: float, after: float) -> float:
    """after / before - 1; 0 where both are nothing, NaN where one of them is not there."""
    if before == after or (math.isnan(before) and math.isnan(after)):
        return 0.0
    return after / before - 1 if before else math.nan


def percent(change: float) -> str:
    """A share as text, "+12 %"; without a sign where it rounds to nothing."""
    rounded = round(100 * change)
    return f"{rounded:+d} %" if rounded else "0 %"


def measured(
    edit: Edit, own: np.ndarray, made: np.ndarray, sample_rate: int, before: Acoustics, after: Acoustics
) -> dict[str, Any]:
    """One edit of one recording in numbers.

    Args:
        own, made: [n_samples] the recording and its edited copy, as the model hears them.
        before, after: the acoustics of both.
    Returns:
        edit, knob, dose; of f0_median_hz, f0_spread_st (semitones), rate (1 for the recording), level_db, rms,
        spectral_centroid_hz and duration_s the values `_before` and `_after`; `f0_change`, `rate_change`,
        `level_change` (of the RMS) and `centroid_change` as shares; peak_after (full scale 1); `also_moved`: in words
        what the edit moved by over 5 % though it was not meant to, "" for nothing.
    """
    found: dict[str, Any] = {"edit": edit.text, "knob": edit.knob, "curve": edit.curve, "dose": edit.dose}
    values = {
        "f0_median_hz": (before.f0_median_hz, after.f0_median_hz),
        "f0_spread_st": (f0_spread(own, sample_rate), f0_spread(made, sample_rate)),
        "rate": (1.0, relative_rate(own, made, sample_rate)),
        "level_db": (decibels(before.rms), decibels(after.rms)),
        "rms": (before.rms, after.rms),
        "spectral_centroid_hz": (before.spectral_centroid_hz, after.spectral_centroid_hz),
        "duration_s": (before.duration_s, after.duration_s),
    }
    if math.isnan(relative_rate(own, own, sample_rate)):  # a recording without a contour has no rate to lose
        values["rate"] = (math.nan, math.nan)
    for name, (one, other) in values.items():
        found |= {f"{name}_before": one, f"{name}_after": other}
    said = []
    for quantity, (name, column) in QUANTITIES.items():
        one, other = values[column]
        change = found[f"{quantity}_change"] = change_of(one, other)
        if quantity in KNOBS[edit.knob].aims:
            continue
        if math.isnan(change):
            said.append(f"{name} {'is lost' if math.isnan(other) else 'comes to be'}")
        elif abs(change) > ALLOWED:
            said.append(f"{name} {percent(change)}")
    return found | {"peak_after": float(np.abs(made).max()), "also_moved": "; ".join(said)}
