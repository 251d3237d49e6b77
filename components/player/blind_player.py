"""A, B and X to be told apart by ear: a player without pictures, names or levels, which would give X away.

What the browser gets of X is of X's own: the three sounds have one level, one length and one form, and a noise of the
last bit in each, so that X's samples are not those of A or of B to the letter. Which of the two it is stays in Python.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import streamlit as st

from components.player.ab_player import PlayerClip
from interp_core.data.clips import rms
from interp_core.errors import InterpError

QUIETEST_RMS = 1e-4
"""-80 dB: a clip below this is silence, and silence has no level to match."""
_ASSETS = Path(__file__).resolve().parents[2] / "assets" / "player"


def _read(*names: str) -> str:
    return "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in names)


_mount = st.components.v2.component(
    "patchbay_blind_player", html=_read("blind.html"), css=_read("player.css"), js=_read("audio.js", "blind.js")
)


def level_gains(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """What A and B ([n] samples) are multiplied by to have one RMS: the louder is turned down, nothing ever up."""
    levels = rms(a), rms(b)
    quieter = min(levels)
    if quieter < QUIETEST_RMS:
        return 1.0, 1.0
    return quieter / levels[0], quieter / levels[1]


def decibels(gain: float) -> float:
    """20 log10 of a gain above 0."""
    return 20 * math.log10(gain)


def blind_player(a: PlayerClip, b: PlayerClip, x_is_a: bool, *, trial: str, key: str) -> None:
    """Show A, B and X, matched in level.

    Args:
        x_is_a: the secret. It decides what X sounds like, and nothing else that is sent.
        trial: names the trial and tells nothing; another one stops the sound.
    Raises:
        InterpError: A and B at two sample rates.
    """
    if a.sample_rate != b.sample_rate:
        raise InterpError(f"A at {a.sample_rate} Hz and B at {b.sample_rate} Hz cannot be compared; read both at one.")
    sounds = matched([a.samples, b.samples, (a if x_is_a else b).samples], level_gains(a.samples, b.samples), x_is_a)
    _mount(key=key, data={"trial": trial, "rate": a.sample_rate, "sounds": [_encoded(one) for one in sounds]})


def matched(sounds: Sequence[np.ndarray], gains: tuple[float, float], x_is_a: bool) -> list[np.ndarray]:
    """A, B and X ([n] samples each) as they are sent: int16 of one length and one scale, each with its own last bit."""
    longest = max(map(len, sounds))
    noise = np.random.default_rng()
    levelled = [one * gain for one, gain in zip(sounds, (*gains, gains[0 if x_is_a else 1]), strict=True)]
    top = max(1.0, *(float(np.abs(one).max()) for one in levelled))
    sent = []
    for one in levelled:
        whole = np.zeros(longest)
        whole[: len(one)] = one / top * 32766
        sent.append(np.floor(whole + noise.random(longest)).astype("<i2"))
    return sent


def _encoded(samples: np.ndarray) -> str:
    return base64.b64encode(samples.tobytes()).decode("ascii")
