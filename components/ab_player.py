"""Two recordings under one playhead: the A/B player, as a Streamlit component (components v2, plain Web Audio).

Python sends 16-bit samples and a mel spectrogram a clip, both made once and kept by the clip's digest; everything that
sounds or moves happens in the browser (`assets/player`): audio.js plays, picture.js draws, player.js joins them to the
page. The only thing that comes back is the region that the listener has marked.

Levels are sent as they are (never normalised a clip: that would hide a difference in loudness); the player itself
matches the RMS of A and B, visibly and as a switch. Both spectrograms are in dB on one scale for the same reason.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import streamlit as st
from librosa.filters import mel as mel_filters

from interp_core.errors import InterpError

Region = tuple[float, float]

MEL_BANDS = 80
MEL_TOP_HZ = 8000.0  # or half the sample rate, where that is lower
MEL_FLOOR_DB = -110.0  # level 0; level 255 is MEL_CEILING_DB. A full-scale sine is at 0 dB.
MEL_CEILING_DB = 10.0
MEL_STEP_DB = (MEL_CEILING_DB - MEL_FLOOR_DB) / 255
MEL_WINDOW_S = 0.025
MEL_HOP_S = 0.005
MEL_MOST_FRAMES = 1500  # beyond what a screen shows: longer clips get a longer hop
PITCH_MARKS_HZ = (0, 1000, 2000, 4000, 8000)

_ASSETS = Path(__file__).resolve().parent.parent / "assets" / "player"


def _read(*names: str) -> str:
    """The player's files as one text; its scripts share one scope, in this order."""
    return "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in names)


_mount = st.components.v2.component(
    "patchbay_ab_player",
    html=_read("player.html"),
    css=_read("player.css"),
    js=_read("audio.js", "picture.js", "player.js"),
)


@dataclass(frozen=True)
class PlayerClip:
    """A recording as the player wants it.

    Attributes:
        digest: names the sound; equal digests are taken to be equal sounds, so what is sent and drawn is kept by it.
        label: shown beside the clip, as text and never as markup.
        samples: float32 [n_samples], mono, full scale at 1.
        sample_rate: in Hz.
    """

    digest: str
    label: str
    samples: np.ndarray = field(compare=False, repr=False)
    sample_rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or len(self.samples) == 0 or not np.isfinite(self.samples).all():
            raise InterpError(
                f"'{self.label}' cannot be played: samples {self.samples.shape} must be one row of at least one finite "
                "number; decode the file again with read_audio."
            )

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True)
class PlayerState:
    """What the listener has set: `region` is (start, end) in seconds of these clips, or None."""

    region: Region | None


def ab_player(
    a: PlayerClip,
    b: PlayerClip | None = None,
    *,
    key: str,
    window: Region | None = None,
    window_label: str = "patched window",
    on_region: Callable[[Region | None], None] | None = None,
) -> PlayerState:
    """Show the player for A and B, or for one clip alone.

    With the same `key` a rerun keeps the player: a new B is swapped in while the sound goes on, and new clips clear the
    region.

    Args:
        a: the recipient; the only clip if `b` is None.
        b: the donor.
        key: the widget's key, unique on the page.
        window: (start, end) in seconds to hatch on both clips, for instance the span that an edit touches.
        window_label: what the hatching means, for its legend.
        on_region: called with the new region, before the rerun, when the listener sets or clears one.
    Raises:
        InterpError: A and B at two sample rates (one time axis could not hold both), or a window without a length.
    """
    if b is not None and a.sample_rate != b.sample_rate:
        raise InterpError(
            f"A '{a.label}' is at {a.sample_rate} Hz and B '{b.label}' at {b.sample_rate} Hz; "
            "read both at the model's rate."
        )
    if window is not None and not window[0] < window[1]:
        raise InterpError(f"the window {window} must start before it ends, in seconds.")
    clips = [a] if b is None else [a, b]
    identity = " ".join(_identity(clip) for clip in clips)
    seconds = max(clip.seconds for clip in clips)

    def region_changed() -> None:
        if on_region is not None:
            on_region(_valid_region(st.session_state[key].get("region"), identity, seconds))

    result = _mount(
        key=key,
        data={
            "identity": identity,
            "clips": [_payload(clip) for clip in clips],
            "pitches": pitch_marks(a.sample_rate),
            "window": window and {"start": float(window[0]), "end": float(window[1]), "label": window_label},
        },
        default={"region": None},
        on_region_change=region_changed,
    )
    return PlayerState(region=_valid_region(result.get("region"), identity, seconds))


def _identity(clip: PlayerClip) -> str:
    """Tells sounds apart: one file at two rates, or cut, is two sounds."""
    return f"{clip.digest}@{clip.sample_rate}+{len(clip.samples)}"


def _valid_region(value: Any, identity: str, seconds: float) -> Region | None:
    """The region that the browser sent, if it is one and if it belongs to these clips; else None.

    In the run that changes the clips the browser has not answered yet, so the old clips' region is still there.
    """
    if not isinstance(value, Mapping) or value.get("clips") != identity:
        return None
    start, end = value.get("start"), value.get("end")
    if not isinstance(start, int | float) or not isinstance(end, int | float) or not 0 <= start < end:
        return None
    return float(start), min(float(end), seconds)


def _payload(clip: PlayerClip) -> dict[str, Any]:
    """What the browser gets for a clip: the sound, kept by identity, and the label, which may change without it."""
    sound = _encoded(_identity(clip), clip.sample_rate, clip.samples)
    return {**sound, "label": clip.label}


@st.cache_data(max_entries=256, show_spinner=False)
def _encoded(identity: str, sample_rate: int, _samples: np.ndarray) -> dict[str, Any]:
    """Samples and spectrogram as text. `fullScale` keeps samples beyond 1 (resampling makes some) from being cut."""
    full_scale = max(1.0, float(np.abs(_samples).max()))
    pcm = np.round(_samples / full_scale * 32767).astype("<i2")
    levels, frame_seconds = mel_levels(_samples, sample_rate)
    return {
        "digest": identity,
        "rate": sample_rate,
        "rms": float(np.sqrt(np.mean(np.square(_samples, dtype=np.float64)))),
        "pcm": base64.b64encode(pcm.tobytes()).decode("ascii"),
        "fullScale": full_scale,
        "mel": {
            "levels": base64.b64encode(levels.tobytes()).decode("ascii"),
            "bands": levels.shape[0],
            "frames": levels.shape[1],
            "frameSeconds": frame_seconds,
            "floorDb": MEL_FLOOR_DB,
            "stepDb": MEL_STEP_DB,
        },
    }


def mel_levels(samples: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """Mel spectrogram in absolute steps of dB, so that the levels of two clips compare.

    Args:
        samples: float [n_samples], full scale at 1.
        sample_rate: in Hz.
    Returns:
        uint8 [MEL_BANDS, frames]: level v stands for MEL_FLOOR_DB + v * MEL_STEP_DB, where a full-scale sine reaches
        0 dB in its band, or up to 5 dB less where its peak is wider than the band; and the seconds from one frame's
        middle to the next (frame 0 is centred on 0 s).
    """
    hop = max(1, round(MEL_HOP_S * sample_rate), -(-len(samples) // MEL_MOST_FRAMES))
    window_frames = round(MEL_WINDOW_S * sample_rate)
    n_fft = max(1024, 1 << (window_frames - 1).bit_length())  # finer than the lowest mel bands, so that none is empty
    window = np.hanning(window_frames + 1)[:-1]
    spectrum = librosa.stft(samples, n_fft=n_fft, hop_length=hop, win_length=window_frames, window=window)
    power = (np.abs(spectrum) / (window.sum() / 2)) ** 2
    top_hz = min(MEL_TOP_HZ, sample_rate / 2)
    filters = mel_filters(sr=sample_rate, n_fft=n_fft, n_mels=MEL_BANDS, fmax=top_hz, norm=None)
    # The filters add up the bins under one sine's peak, which would read as level: taken out by the window's width.
    bins_of_a_sine = n_fft * np.square(window).sum() / window.sum() ** 2
    decibels = 10 * np.log10(np.maximum(filters @ power / bins_of_a_sine, 1e-12))
    levels = np.round((decibels - MEL_FLOOR_DB) / MEL_STEP_DB)
    return np.clip(levels, 0, 255).astype(np.uint8), hop / sample_rate


def pitch_marks(sample_rate: int) -> list[dict[str, Any]]:
    """Marks of the frequency axis: `share` is the height in the spectrogram, from 0 (bottom) to 1."""
    top_hz = min(MEL_TOP_HZ, sample_rate / 2)
    top_mel = librosa.hz_to_mel(top_hz)
    marks = [hz for hz in PITCH_MARKS_HZ if hz <= top_hz]
    return [{"text": _hertz(hz), "share": float(librosa.hz_to_mel(hz) / top_mel)} for hz in marks]


def _hertz(hz: int) -> str:
    return f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz"
