"""Two recordings under one playhead: the A/B player, as a Streamlit component (components v2, plain Web Audio).

Python sends 16-bit samples and a mel spectrogram a clip, both made once and kept by the clip's digest; everything that
sounds or moves happens in the browser (`assets/player`): audio.js plays, picture.js draws, player.js joins them to the
page. What comes back is the region that the listener has marked, and the wish to go on to another pair.

Levels are sent as they are (never normalised a clip: that would hide a difference in loudness); the player itself
matches the RMS of A and B, visibly and as a switch. Both spectrograms are in dB on one scale for the same reason.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from interp_core.data.clips import rms
from interp_core.data.mel import MEL_FLOOR_DB, MEL_STEP_DB, mel_levels, pitch_marks
from interp_core.errors import InterpError

Region = tuple[float, float]

_ASSETS = Path(__file__).resolve().parents[2] / "assets" / "player"


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
class Playlist:
    """Pairs that can be heard one after the other.

    Attributes:
        title: what they have in common, as text. short: the same behind a number, "3 of 12 that flip".
        ids: names them, in order.
        pick: called, before the rerun, with the one that the listener goes on to.
    """

    title: str
    short: str
    ids: Sequence[str]
    pick: Callable[[str], None] = field(compare=False, repr=False)

    def at(self, selected: str) -> int:
        """Where the selected pair stands, from 0; -1 where it is none of them."""
        return list(self.ids).index(selected) if selected in self.ids else -1

    def step(self, selected: str, by: object) -> str | None:
        """The one to go on to, None where there is none: from outside forward to the first, backward to the last."""
        if by not in (-1, 1) or not self.ids:
            return None
        at = self.at(selected)
        if at == -1:
            return self.ids[0 if by == 1 else -1]
        return self.ids[at + by] if 0 <= at + by < len(self.ids) else None


def ab_player(
    a: PlayerClip,
    b: PlayerClip | None = None,
    *,
    key: str,
    window: Region | None = None,
    window_label: str = "patched window",
    region: Region | None = None,
    on_region: Callable[[Region | None], None] | None = None,
    playlist: Playlist | None = None,
    selected: str = "",
) -> Region | None:
    """Show the player for A and B, or for one clip alone.

    With the same `key` a rerun keeps the player: a new B is swapped in while the sound goes on, and new clips clear the
    region.

    Args:
        a: the recipient; the only clip if `b` is None.
        b: the donor.
        key: the widget's key, unique on the page.
        window: (start, end) in seconds to hatch on both clips, the span that an edit touches.
        window_label: what the hatching is called.
        region: what is marked, (start, end) in seconds, where `on_region` keeps it.
        on_region: called, before the rerun, with what the listener has marked or None. Without it the player itself
            keeps the region, until the clips change.
        playlist: pairs to be heard one after the other, A and then B of each.
        selected: which of them A and B are.
    Returns:
        What the listener has marked, (start, end) in seconds of these clips, or None.
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

    def marked() -> None:
        value = st.session_state[key].get("region")
        if on_region is not None and isinstance(value, Mapping) and value.get("clips") == identity:
            on_region(_valid_region(value, identity, seconds))

    def stepped() -> None:
        next_one = playlist and playlist.step(selected, st.session_state[key].get("step"))
        if playlist and next_one:
            playlist.pick(next_one)

    result = _mount(
        key=key,
        data={
            "identity": identity,
            "clips": [_payload(clip) for clip in clips],
            "pitches": pitch_marks(a.sample_rate),
            "window": window and {"start": float(window[0]), "end": float(window[1]), "label": window_label},
            "keepsRegion": on_region is not None,
            "region": region and {"start": float(region[0]), "end": float(region[1])},
            "playlist": _shown(playlist, selected),
        },
        default={"region": None},
        on_region_change=marked,
        on_step_change=stepped,
    )
    return region if on_region else _valid_region(result.get("region"), identity, seconds)


def _shown(playlist: Playlist | None, selected: str) -> dict[str, Any] | None:
    if playlist is None:
        return None
    at, of = playlist.at(selected), len(playlist.ids)
    return {"title": playlist.title, "short": playlist.short, "at": at, "of": of}


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
        "rms": rms(_samples),
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
