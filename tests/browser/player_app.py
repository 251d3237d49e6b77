"""A page with players and nothing else, for test_player.py. `?case=` picks the clips; the buttons change them."""

from __future__ import annotations

import numpy as np
import streamlit as st

from components.player.ab_player import PlayerClip, ab_player

RATE = 16000
PERIOD = 400  # samples between two impulses
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><b>s03.wav</b>"


def voice(seed: int, seconds: float, pitch: float, level: float) -> np.ndarray:
    """Something that looks and sounds a little like speech: harmonics of a gliding pitch, in syllables."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    glide = pitch * (1 + 0.25 * np.sin(2 * np.pi * (0.4 + 0.3 * seed) * t))
    phase = 2 * np.pi * np.cumsum(glide) / RATE
    formants = 500 + 300 * np.sin(2 * np.pi * 1.3 * t), 1600 + 500 * np.cos(2 * np.pi * 0.9 * t)
    harmonics = np.zeros_like(t)
    for k in range(1, 40):
        weight = sum(np.exp(-(((k * glide - f) / 220) ** 2)) for f in formants) + 0.15 / k
        harmonics += weight * np.sin(k * phase) * (k * glide < RATE / 2)
    syllables = np.clip(np.sin(2 * np.pi * 2.1 * t + seed), 0, None) ** 0.7
    sound = harmonics * syllables + 0.01 * rng.standard_normal(len(t))
    return (level * sound / np.abs(sound).max()).astype(np.float32)


def impulses(value: float, period: int = PERIOD, first: int = 0) -> np.ndarray:
    """One sample of `value` every `period` samples, for a second."""
    train = np.zeros(RATE, dtype=np.float32)
    train[first::period] = value
    return train


CLIPS = {
    "A": lambda: PlayerClip("a", "s03_neutral_1.wav", voice(1, 2.3, 110, 0.5), RATE),
    "B": lambda: PlayerClip("b", "s03_happy_1.wav", voice(2, 1.9, 190, 0.9), RATE),
    "other A": lambda: PlayerClip("a2", "s05_sad_2.wav", voice(4, 2.0, 90, 0.4), RATE),
    "other B": lambda: PlayerClip("b2", "s03_angry_1.wav", voice(3, 2.6, 150, 0.25), RATE),
    "hostile": lambda: PlayerClip("h", HOSTILE, voice(5, 1.0, 120, 0.5), RATE),
    "impulses A": lambda: PlayerClip("ia", "impulses", impulses(0.5), RATE),
    "impulses B": lambda: PlayerClip("ib", "the same impulses", impulses(0.5), RATE),
    "impulses C": lambda: PlayerClip("ic", "the same impulses again", impulses(0.5) + np.float32(1e-4), RATE),
    "even": lambda: PlayerClip("e", "on even samples", impulses(0.5, 2), RATE),
    "odd": lambda: PlayerClip("o", "on odd samples", impulses(0.5, 2, 1), RATE),
}

CASES = {
    "pair": ["A", "B"],
    "single": ["A"],
    "impulses": ["impulses A", "impulses B"],
    "interleaved": ["even", "odd"],
    "hostile": ["hostile", "B"],
}

st.title("Player")
case = st.query_params.get("case", "pair")
names = CASES[case]
with st.container(horizontal=True):
    st.session_state.setdefault("clips", names)
    if st.button("Swap B"):
        st.session_state["clips"] = [names[0], "impulses C" if case == "impulses" else "other B"]
    if st.button("Swap both"):
        st.session_state["clips"] = ["other A", "other B"]
clips = [CLIPS[name]() for name in st.session_state["clips"]]
regions = st.session_state.setdefault("regions", [])
window = (0.4, 0.9) if "window" in st.query_params else None
region = ab_player(clips[0], clips[1] if len(clips) > 1 else None, key="player", window=window)
if region != (regions[-1] if regions else None):
    regions.append(region)
st.text(f"region={region} calls={regions}")
if "two" in st.query_params:
    ab_player(CLIPS["other A"](), key="second")
