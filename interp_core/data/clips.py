"""Recordings: a file and its labels (`Clip`), its samples (`read_audio`), measurements on them (`acoustics`).

Whatever is wrong with a file is found here, in the file's own sample rate and before any model sees it, and is raised
as `BadAudio`, whose message names the file and says what to do.
"""

import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from numpy.lib.stride_tricks import sliding_window_view

from interp_core.data.containers import UNKNOWN_FRAMES, Recording
from interp_core.digests import digest_of
from interp_core.errors import InterpError
from interp_core.stand_ins import stand_in

F0_RANGE_HZ = (60.0, 600.0)  # creaky male to excited female or child speech
LOUDEST = 2.0**31  # full scale of the widest integers; resampling overflows far beyond it
VOICED_CORRELATION = 0.7  # a frame less like itself one period later is noise or a transition, not voice


@dataclass(frozen=True)
class Clip:
    """One recording and what is known about it. Two clips are equal when id and content are, wherever the file lies.

    Attributes:
        clip_id: unique in its manifest.
        path: the audio file.
        labels: every further manifest column that has a value for this clip, as text.
        digest: SHA-256 of the file's bytes, in hex; of an edited copy of those and of the edit.
        edit: of an edited copy what was done to the sound; "" for the recording as it is. See `edits`.
        original: of an edited copy the recording that it is made from.
    """

    clip_id: str
    path: Path = field(compare=False)
    labels: Mapping[str, str] = field(compare=False)
    digest: str
    edit: str = ""
    original: "Clip | None" = field(default=None, compare=False, repr=False)

    def label(self, column: str) -> str | None:
        """The clip's value in a manifest column, or None where it has none."""
        return self.labels.get(column)

    @property
    def recording_id(self) -> str:
        """The clip_id of the recording, which an edited copy shares with what it was made from."""
        return self.clip_id if self.original is None else self.original.recording_id

    @property
    def file_digest(self) -> str:
        """SHA-256 of the file's bytes, also of an edited copy."""
        return self.digest if self.original is None else self.original.file_digest


@dataclass(frozen=True)
class ClipLimits:
    """The durations that are accepted, in seconds, both ends included."""

    min_seconds: float = 0.1
    max_seconds: float = 30.0
    if_longer: str = "cut it or raise --max-seconds"
    """What a person can do about a clip that is too long."""

    def __post_init__(self) -> None:
        if not 0 < self.min_seconds <= self.max_seconds:
            raise InterpError(
                f"clip limits of {self.min_seconds:g} to {self.max_seconds:g} s leave no clip; "
                "give 0 < min_seconds <= max_seconds."
            )


class BadAudio(InterpError):
    """A file that cannot be used as a clip; `reason` is the message without the file's name."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path} {reason}.")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:  # so that it survives the way home from another process
        return BadAudio, (self.path, self.reason)


def check_file(path: Path | str) -> None:
    """Raise BadAudio unless `path` is an existing, readable, regular file that holds at least one byte."""
    try:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):  # nothing else is opened: a named pipe would wait for ever
            with open(path, "rb"):
                pass
    except PermissionError as error:
        raise BadAudio(path, "cannot be read: permission denied; give this user read permission") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadAudio(path, "does not exist; fix the path") from error
    except (OSError, ValueError) as error:  # too long a name, a loop of links, a zero byte in the name
        zero = "its name holds a zero byte" if isinstance(error, ValueError) else ""
        said = zero or (isinstance(error, OSError) and error.strerror) or str(error)
        raise BadAudio(path, f"cannot be opened ({said}); fix the path") from error
    if stat.S_ISDIR(found.st_mode):
        raise BadAudio(path, "is a folder; give an audio file")
    if not stat.S_ISREG(found.st_mode):
        raise BadAudio(path, "is not a regular file; give an audio file")
    if found.st_size == 0:
        raise BadAudio(path, "is empty (0 bytes); replace it or leave it out")


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hex. Errors: BadAudio where there is no file to read."""
    check_file(path)
    return digest_of(path)


def rms(samples: np.ndarray) -> float:
    """Root mean square of samples whose full scale is 1, or whatever it is."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def decode(path: Path | str, limits: ClipLimits | None = None) -> tuple[np.ndarray, int]:
    """Read a file in its own sample rate, mixed to mono by the mean of its channels.

    Returns:
        (samples, rate): float32 [n_samples], full scale is 1; rate in Hz.
    Raises:
        BadAudio: no such file, unreadable, undecodable, cut off, too short or long for `limits`, samples that are NaN,
            infinite or beyond any scale.
    """
    limits = limits or ClipLimits()
    check_file(path)
    if said := stand_in(path):
        raise BadAudio(path, said)
    with _opened(path) as file:
        rate, stated = file.samplerate, file.stated_frames
        if file.part is not None:
            _check_whole(path, stated or 0, file.frames, rate)
        # The header is checked first, so that a recording of hours is refused without being decoded. One frame past
        # the limit is still asked for, because the header of a compressed file may be wrong.
        if stated is not None:
            _check_duration(path, stated, rate, limits)
        mono = _mono(path, file, int(limits.max_seconds * rate) + 1)
    if len(mono) > limits.max_seconds * rate:  # whatever its header says; how much longer it is stays unread
        raise BadAudio(path, f"lasts longer than the {limits.max_seconds:g} s limit; {limits.if_longer}")
    _check_duration(path, len(mono), rate, limits)
    _check_whole(path, stated or 0, len(mono), rate)
    return mono, rate


def seconds_of(path: Path | str) -> float:
    """The duration in seconds that a file's header states, or what was counted where it does not; the file is one that
    `decode` takes."""
    with _opened(path) as file:
        frames = file.stated_frames
        if frames is None:
            frames = sum(map(len, file.in_blocks(UNKNOWN_FRAMES)))
        return float(frames / file.samplerate)


@contextmanager
def _opened(path: Path | str) -> Iterator[Recording]:
    try:
        with Recording(path) as file:
            yield file
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: '.raw' files say nothing about their rate
        raise BadAudio(path, f"cannot be decoded ({_decoder_says(error)}); convert it to WAV or FLAC") from error


def _mono(path: Path | str, file: Recording, most: int) -> np.ndarray:
    """Float32 [n_samples], `most` at most, a block at a time: all channels at once may be many times as much."""
    parts, bad, first, loudest, at = [np.zeros(0, np.float32)], 0, 0, 0.0, 0
    for block in file.in_blocks(most):
        peak = np.abs(block).max(axis=1)
        broken = ~np.isfinite(peak)
        if broken.any():
            first = first if bad else at + int(broken.argmax())
            bad += int(broken.sum())
        else:
            loudest = max(loudest, float(peak.max(initial=0)))
            parts.append(block.mean(axis=1, dtype=np.float64).astype(np.float32))
        at += len(block)
    if bad:
        where = f"{bad} NaN or infinite samples of {at}, the first at {first / file.samplerate:.3f} s"
        raise BadAudio(path, f"holds {where}; export it again")
    if loudest > LOUDEST:
        raise BadAudio(path, f"holds samples up to {loudest:.1e}, where full scale is 1; export it again")
    return np.concatenate(parts)


def read_audio(path: Path | str, sample_rate: int, limits: ClipLimits | None = None) -> np.ndarray:
    """Read a clip as a model takes it.

    Args:
        path: any file that libsndfile decodes (WAV, FLAC, OGG, MP3, AIFF, ...), any rate, any number of channels.
        sample_rate: wanted rate in Hz; other rates are converted by soxr's high-quality band-limited resampler.
        limits: accepted durations, 0.1 to 30 s by default.
    Returns:
        Mono samples, float32 [ceil(seconds * sample_rate)], full scale is 1.
    Raises:
        BadAudio (an InterpError): see `decode`.
    """
    return resampled(*decode(path, limits), sample_rate)


def resampled(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Samples of one rate in another, Hz; see `read_audio`."""
    if rate == sample_rate:
        return samples
    import librosa  # slow to import, and not needed by those who only look at manifests

    return librosa.resample(samples, orig_sr=rate, target_sr=sample_rate, res_type="soxr_hq")


def _decoder_says(error: Exception) -> str:
    said = getattr(error, "error_string", None) or str(error)
    if "possibly a pipe" in said:  # what libsndfile says of a damaged MP3 file, although the file is there
        return "no audio of its format found in it"
    return said.removeprefix("Error : ").rstrip(". ")


def _check_whole(path: Path | str, stated: int, found: int, rate: int) -> None:
    if stated - found > 0.1 * rate or (stated and not found):
        told = f"{stated / rate:.1f} s, {found / rate:.1f} s are there"
        raise BadAudio(path, f"is cut off: its header tells of {told}; copy it again")


def _check_duration(path: Path | str, frames: int, rate: int, limits: ClipLimits) -> None:
    seconds = frames / rate
    if frames <= 0:
        raise BadAudio(path, "holds 0 samples; replace it or leave it out")
    if seconds < limits.min_seconds:
        lasts = _seconds(seconds, limits.min_seconds)
        raise BadAudio(path, f"lasts {lasts} s, shorter than the {limits.min_seconds:g} s minimum; leave it out")
    if seconds > limits.max_seconds:
        lasts = _seconds(seconds, limits.max_seconds)
        raise BadAudio(path, f"lasts {lasts} s, longer than the {limits.max_seconds:g} s limit; {limits.if_longer}")


def _seconds(value: float, limit: float) -> str:
    """One decimal, or as many as it takes for the text to differ from the limit's."""
    return f"{value:.1f}" if abs(value - limit) >= 0.1 else f"{value:.6f}".rstrip("0")


@dataclass(frozen=True)
class Acoustics:
    """What a clip sounds like, measured on its samples.

    Attributes:
        duration_s: seconds.
        f0_median_hz: median fundamental frequency of the voiced frames, Hz; NaN where no frame is voiced.
        rms: root mean square of all samples, 1 = full scale.
        zero_crossing_rate: sign changes a sample step, in [0, 1]; a sine of f Hz has 2 f / sample_rate.
        spectral_centroid_hz: mean over frames of the magnitude spectrum's centroid, frames weighted by their total
            magnitude so that pauses do not count; NaN for silence.
    """

    duration_s: float
    f0_median_hz: float
    rms: float
    zero_crossing_rate: float
    spectral_centroid_hz: float


def acoustics(samples: np.ndarray, sample_rate: int) -> Acoustics:
    """Measure duration, median F0, RMS, zero-crossing rate and spectral centroid.

    Args:
        samples: [n_samples] mono, finite, n_samples >= 2.
        sample_rate: Hz.
    Raises:
        InterpError: not a finite mono signal.
    """
    import librosa

    samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1 or len(samples) < 2 or not np.isfinite(samples).all():
        raise InterpError(f"samples {samples.shape} must be [n >= 2], mono and finite; read them with read_audio.")
    n_fft = min(2048, len(samples))
    magnitude = np.abs(librosa.stft(samples, n_fft=n_fft, hop_length=max(1, n_fft // 4), center=False))
    centroid = float("nan")
    if magnitude.sum() > 0:
        frames = librosa.feature.spectral_centroid(S=magnitude, sr=sample_rate, n_fft=n_fft)[0]
        centroid = float(np.average(frames, weights=magnitude.sum(axis=0)))
    crossings = librosa.zero_crossings(samples, pad=False).sum()
    voiced = voiced_f0(samples, sample_rate)
    return Acoustics(
        duration_s=len(samples) / sample_rate,
        f0_median_hz=float(np.median(voiced)) if len(voiced) else float("nan"),
        rms=rms(samples),
        zero_crossing_rate=float(crossings / (len(samples) - 1)),
        spectral_centroid_hz=centroid,
    )


def voiced_f0(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """YIN's F0 in Hz [n_voiced] of voiced frames: a tenth of the loudest frame's power, and periodic at YIN's own lag.

    Probabilistic YIN would decide on voicing itself, but takes hundreds of milliseconds a clip.
    """
    import librosa

    low, high = F0_RANGE_HZ
    size = math.ceil(4 * sample_rate / low)  # two of the longest periods, twice, as YIN compares a frame's halves
    if len(samples) < size or sample_rate < 2.5 * high:
        return np.zeros(0)
    hop = max(1, sample_rate // 100)
    samples = samples - samples.mean()  # a constant offset is periodic at every lag
    pitches = librosa.yin(samples, fmin=low, fmax=high, sr=sample_rate, frame_length=size, hop_length=hop, center=False)
    frames = sliding_window_view(samples, size)[::hop].astype(np.float64)  # [n_frames, size]
    power = np.square(frames).mean(axis=1)
    loud = power > 0.1 * power.max()
    voiced = [
        pitch
        for frame, pitch in zip(frames[loud], pitches[loud], strict=True)
        if low <= pitch <= high and _correlation_at(frame, round(sample_rate / pitch)) > VOICED_CORRELATION
    ]
    return np.array(voiced)


def _correlation_at(frame: np.ndarray, lag: int) -> float:
    """Normalised correlation of a frame with itself `lag` samples later; 0 where either part is silent."""
    early, late = frame[:-lag], frame[lag:]
    scale = math.sqrt(float(np.dot(early, early)) * float(np.dot(late, late)))
    return float(np.dot(early, late)) / scale if scale > 0 else 0.0
