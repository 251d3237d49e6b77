"""Donors made by editing the sound: a recording with one thing changed by a known dose, made anew whenever it is read.

An edit is a short text, `pitch=+4`. It is applied to the samples as they were decoded, in the file's own rate, and
what comes out goes the way of every other clip: resampled for the model, for the player, for measurements. Nothing is
stored: the recording's digest and the text give the same samples again, and together are the digest of the sound.

Knobs: `KNOBS`. Time stretching and pitch shifting are librosa's phase vocoder, in which formants move with the pitch;
bands are scipy's Butterworth filters, codecs libsndfile's, a flattened F0 is resynthesised by WORLD (Morise et al.
2016, IEICE Trans. 99-D:1877), so that `flat=0` is the vocoder alone and the control of what flattening adds. What the
vocoders give is set back to the recording's own level.
"""

import difflib
import hashlib
import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import soundfile

from interp_core.data.clips import BadAudio, Clip, ClipLimits, decode, resampled, rms, seconds_of, voiced_f0
from interp_core.digests import check_same
from interp_core.errors import InterpError

EDIT_SIGN = "edit:"
"""Before an edit, in a kind of pair and, behind a blank, in the clip_id of an edited copy."""
NUMBER = r"[+-]?\d+(?:\.\d+)?"
CODECS = {"mp3": ("MP3", "MPEG_LAYER_III"), "vorbis": ("OGG", "VORBIS"), "mulaw": ("WAV", "ULAW")}
USUAL_COMPRESSION = 0.5
WINDOW_S = 0.064  # of the phase vocoder: two periods of the lowest voices


class BadEdit(InterpError):
    """An edit that cannot be made on a recording."""


@dataclass(frozen=True)
class Knob:
    """One thing that can be changed about a sound.

    Attributes:
        unit: of its dose, as it is written behind the number; "" for none.
        least, most: of the dose.
        aims: the measured quantities that it is meant to move; see `edit_measures`.
        example: how it is written.
        title: on an axis.
    """

    unit: str
    least: float
    most: float
    aims: tuple[str, ...]
    example: str
    title: str


KNOBS: Mapping[str, Knob] = {
    "pitch": Knob("semitones", -24, 24, ("f0",), "pitch=+4", "pitch shift, semitones"),
    "rate": Knob("times as fast", 0.25, 4, ("rate",), "rate=1.2", "speaking rate, times as fast"),
    "level": Knob("dB", -80, 40, ("level",), "level=-6", "level, dB"),
    "flat": Knob("of the way", 0, 1, (), "flat", "F0 flattened, share of the way to its median"),
    "noise": Knob("dB SNR", -40, 80, (), "noise=10", "white noise, signal-to-noise ratio in dB"),
    "pink": Knob("dB SNR", -40, 80, (), "pink=10", "pink noise, signal-to-noise ratio in dB"),
    "band": Knob("Hz", 0, 1e6, ("centroid",), "band=300-3400", "width of the band that is left, Hz"),
    "codec": Knob("compression", 0, 0.99, (), "codec=mp3:0.5", "compression, 0 the least and 0.99 the most"),
    "silence": Knob("", 0, 0, ("f0", "rate", "level", "centroid"), "silence", ""),
}


@dataclass(frozen=True)
class Edit:
    """One edit of a sound.

    Attributes:
        knob: of `KNOBS`.
        text: as it is written, each edit in one way only: `pitch=+4`, `band=300-3400`, `codec=mp3:0.5`.
        curve: names the edits of which this is one dose: the knob, and the codec.
        dose: the number; of a band its width in Hz; NaN where there is none.
        low, high: of a band, Hz; both 0 of any other edit.
    """

    knob: str
    text: str
    curve: str
    dose: float = field(compare=False)  # the text says it, and NaN is not even itself
    low: float = 0.0
    high: float = 0.0

    @property
    def does_nothing(self) -> bool:
        """Whether the dose says so: the samples then stay as they are, to the last bit."""
        return (self.knob in ("pitch", "level") and self.dose == 0) or (self.knob == "rate" and self.dose == 1)


def parse_edit(text: str) -> Edit:
    """Read an edit such as "pitch=+4".

    Raises:
        InterpError: an unknown knob, a dose that is missing, no number or outside its range.
    """
    name, sign, given = (piece.strip() for piece in text.strip().partition("="))
    if name not in KNOBS:
        near = difflib.get_close_matches(name, KNOBS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"give {', '.join(knob.example for knob in KNOBS.values())}."
        raise InterpError(f"unknown edit {name!r} in {text!r}; {hint}")
    knob = KNOBS[name]
    bad = InterpError(f"edit {text!r}: give {_wanted(name)}, like {knob.example}.")
    if bool(sign) != bool(given) or (name == "silence" and sign):
        raise bad
    if name == "silence":
        return Edit(name, name, name, math.nan)
    if name == "band":
        ends = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", given)
        if ends is None or not float(ends[1]) < float(ends[2]):
            raise bad
        low, high = float(ends[1]), float(ends[2])
        return Edit(name, f"band={low:g}-{high:g}", name, high - low, low, high)
    curve = name
    if name == "codec":
        codec, colon, given = given.partition(":")
        if codec not in CODECS or bool(colon) != bool(given) or (codec == "mulaw" and colon):
            raise bad
        if codec == "mulaw":
            return Edit(name, "codec=mulaw", "codec mulaw", math.nan)
        curve, given = f"codec {codec}", given or f"{USUAL_COMPRESSION}"
    elif name == "flat":
        given = given or "1"
    if not re.fullmatch(NUMBER, given) or not knob.least <= float(given) <= knob.most:
        raise bad
    dose = float(given) + 0.0  # -0 is 0
    signed = f"{dose:+g}" if name in ("pitch", "level") and dose else f"{dose:g}"
    said = {"codec": f"{curve.removeprefix('codec ')}:{signed}"}.get(name, signed)
    return Edit(name, "flat" if (name, dose) == ("flat", 1.0) else f"{name}={said}", curve, dose)


def _wanted(name: str) -> str:
    """What a knob's dose has to be, in words."""
    knob = KNOBS[name]
    if name == "silence":
        return "it without a dose"
    if name == "band":
        return "its two ends in Hz, the lower one first"
    between = f"{knob.least:g} to {knob.most:g}"
    if name == "codec":
        return f"mp3, vorbis or mulaw, the first two with a compression of {between} if you like"
    return f"a dose of {between} {knob.unit}" + (", or none for all of it" if name == "flat" else "")


def edited(clip: Clip, edit: Edit) -> Clip:
    """The edited copy of a clip: its labels, its own digest; its samples are made when it is read (`read_clip`)."""
    digest = hashlib.sha256(f"{clip.digest}|{EDIT_SIGN}{edit.text}".encode()).hexdigest()
    return Clip(f"{clip.clip_id} {EDIT_SIGN}{edit.text}", clip.path, clip.labels, digest, edit.text, clip)


def clip_named(clip_id: str, clips: Mapping[str, Clip]) -> Clip | None:
    """A clip by its id, also where it is the edited copy of one: `s03 edit:pitch=+4`; None where there is none."""
    if clip_id in clips:
        return clips[clip_id]
    original, sign, text = clip_id.rpartition(f" {EDIT_SIGN}")
    try:
        return edited(clips[original], parse_edit(text)) if sign and original in clips else None
    except InterpError:
        return None


def read_clip(clip: Clip, sample_rate: int, limits: ClipLimits | None = None) -> np.ndarray:
    """Read a clip as a model takes it, edited where it is an edited copy; see `read_audio`.

    Raises:
        BadAudio, InterpError: a file that cannot be read or is another one by now.
        BadEdit: an edit that cannot be made on this recording.
    """
    limits = limits or ClipLimits()
    try:
        samples, rate = decode(clip.path, limits)
    except BadAudio:
        check_same(clip.path, clip.file_digest)  # it could be read when it was looked at first
        raise
    check_same(clip.path, clip.file_digest)  # after reading, so that what was read is what the digest says
    if clip.edit:
        edit = parse_edit(clip.edit)
        try:
            samples = apply(edit, samples, rate, seed=clip.file_digest)
        except BadEdit as error:
            raise BadEdit(f"clip {clip.recording_id!r}, {EDIT_SIGN}{edit.text}: {error}") from error
        if not limits.min_seconds <= len(samples) / rate <= limits.max_seconds:
            raise BadEdit(
                f"clip {clip.recording_id!r}, {EDIT_SIGN}{edit.text}: it then lasts {len(samples) / rate:.2f} s, "
                f"outside {limits.min_seconds:g} to {limits.max_seconds:g} s; give another dose."
            )
    return resampled(samples, rate, sample_rate)


def clip_seconds(clip: Clip) -> float:
    """How long a clip lasts, from its file's header and its edit."""
    edit = parse_edit(clip.edit) if clip.edit else None
    return seconds_of(clip.path) / (edit.dose if edit is not None and edit.knob == "rate" else 1.0)


def apply(edit: Edit, samples: np.ndarray, rate: int, *, seed: str) -> np.ndarray:
    """Make an edit.

    Args:
        samples: [n_samples] mono, full scale 1.
        rate: Hz.
        seed: of noise: the recording's digest, so that all doses add one noise at other levels.
    Returns:
        float32 [n_samples], of another length under `rate` alone; not limited to full scale.
    Raises:
        BadEdit: it cannot be made on this recording, or its library is not installed.
    """
    if edit.does_nothing:
        return samples
    made = _MAKERS[edit.knob](edit, samples, rate, seed)
    if not np.isfinite(made).all():
        raise BadEdit("it gives samples that are not finite; leave the clip out.")
    return np.ascontiguousarray(made, np.float32)


def _pitch(edit: Edit, samples: np.ndarray, rate: int, seed: str) -> np.ndarray:
    import librosa.effects as effects

    size = _window(samples, rate)
    made = effects.pitch_shift(samples, sr=rate, n_steps=edit.dose, res_type="soxr_hq", n_fft=size)
    return _as_loud(made, samples)


def _rate(edit: Edit, samples: np.ndarray, rate: int, seed: str) -> np.ndarray:
    import librosa.effects as effects

    return _as_loud(effects.time_stretch(samples, rate=edit.dose, n_fft=_window(samples, rate)), samples)


def _window(samples: np.ndarray, rate: int) -> int:
    return max(16, min(2 ** round(math.log2(WINDOW_S * rate)), 2 ** int(math.log2(max(16, len(samples))))))


def _level(edit: Edit, samples: np.ndarray, rate: int, seed: str) -> np.ndarray:
    return samples.astype(np.float64) * 10 ** (edit.dose / 20)


def _flat(edit: Edit, samples: np.ndarray, rate: int, seed: str) -> np.ndarray:
    world = _world()
    x = np.ascontiguousarray(samples, np.float64)
    f0, times = world.harvest(x, rate)
    voiced = f0 > 0
    if not voiced.any():
        raise BadEdit("no frame of it is voiced, so there is no F0 to flatten; leave the clip out.")
    envelope, aperiodicity = world.cheaptrick(x, f0, times, rate), world.d4c(x, f0, times, rate)
    loud = voiced_f0(samples, rate)  # of which clips are measured; Harvest hears a voice in whispers and breath too
    centre = np.median(loud if len(loud) else f0[voiced])
    f0[voiced] = f0[voiced] * (centre / f0[voiced]) ** edit.dose
    return _as_loud(_as_long(world.synthesize(f0, envelope, aperiodicity, rate), len(samples)), samples)


def _world() -> Any:
    try:
        import pyworld
    except ImportError as error:
        raise BadEdit(
            f"F0 is flattened by WORLD, and its package pyworld is not there ({error}); install it with Patchbay's "
            'extra: pip install -e ".[world]".'
        ) from error
    return pyworld


def _noise(edit: Edit, samples: np.ndarray, rate: int, seed: str) -> np.ndarray:
    own = rms(samples)
    if own == 0:
        raise BadEdit("it holds silence, to which no signal-to-noise ratio can be set; leave the clip out.")
    drawn = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}|noise".encode()).digest()[:8], "big"))
    noise = drawn.standard_normal(len(samples))
    if edit.knob == "pink":  # power as 1 / f: amplitudes over the root of the frequency, none at 0 Hz
        spectrum = np.fft.rfft(noise)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0
        noise = np.fft.irfft(spectrum, len(samples))
    return samples + noise * (own / rms(noise) / 10 ** (edit.dose / 20))


def _band(edit: Edit, samples: np.ndarray, rate: int, seed: str) -> np.ndarray:
    from scipy import signal

    if edit.high >= rate / 2:
        raise BadEdit(f"it has no sound above {rate / 2:g} Hz, so a band ends below that; give a lower end.")
    kind: Literal["bandpass", "lowpass"] = "bandpass" if edit.low else "lowpass"
    ends = [edit.low, edit.high] if edit.low else edit.high
    sections = signal.butter(8, ends, kind, fs=rate, output="sos")
    return np.asarray(signal.sosfiltfilt(sections, samples.astype(np.float64), padlen=0))


def _codec(edit: Edit, samples: np.ndarray, rate: int, seed: str) -> np.ndarray:
    kind, subtype = CODECS[edit.curve.removeprefix("codec ")]
    level = {} if math.isnan(edit.dose) else {"compression_level": edit.dose}
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, rate, format=kind, subtype=subtype, **level)
        file.seek(0)
        return _as_long(soundfile.read(file, dtype="float32")[0], len(samples))
    except (soundfile.SoundFileError, ValueError) as error:
        raise BadEdit(f"the codec does not take it at {rate} Hz; resample the clip, or leave it out.") from error


def _silence(edit: Edit, samples: np.ndarray, rate: int, seed: str) -> np.ndarray:
    return np.zeros_like(samples)


def _as_loud(made: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """At the recording's own level, of which a vocoder loses a quarter and more."""
    loud = rms(made)
    return made.astype(np.float64) * (rms(samples) / loud) if loud else made


def _as_long(samples: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut, or filled with silence, at its end."""
    return np.pad(samples[:n_samples], (0, max(0, n_samples - len(samples))))


_MAKERS: Mapping[str, Callable[[Edit, np.ndarray, int, str], np.ndarray]] = {
    "pitch": _pitch,
    "rate": _rate,
    "level": _level,
    "flat": _flat,
    "noise": _noise,
    "pink": _noise,
    "band": _band,
    "codec": _codec,
    "silence": _silence,
}
