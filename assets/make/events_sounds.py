"""From a recording to a clip of three seconds: trimmed, levelled, and for training changed at random."""

import hashlib
from typing import Any

import numpy as np
import torch
from events_sources import Recording
from numpy.typing import NDArray
from scipy.signal import resample_poly

RATE = 32_000
SECONDS = 3
LENGTH = RATE * SECONDS
Wave = NDArray[np.float32]


def prepared(recording: Recording) -> Wave:
    """[n_samples] at 32 kHz, without the silence around it, peak 1, at most 12 seconds."""
    samples = recording.samples
    if recording.rate != RATE:
        common = np.gcd(recording.rate, RATE)
        samples = resample_poly(samples, RATE // common, recording.rate // common).astype(np.float32)
    samples = samples - samples.mean()
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    samples = samples[loud[0] : loud[-1] + 1][: 12 * RATE]
    return samples / np.abs(samples).max()


def placed(samples: Wave, rng: np.random.Generator, *, at: float | None = None) -> Wave:
    """[LENGTH] the sound, or three seconds of it, somewhere in a clip, over a faint noise floor; peak at -6 dB."""
    spare = LENGTH - len(samples)
    where = rng.random() if at is None else at
    if spare >= 0:
        start = int(spare * where)
        clip = np.pad(samples, (start, spare - start))
    else:
        start = int(-spare * where)
        clip = samples[start : start + LENGTH].copy()
        edge = np.sin(np.linspace(0, np.pi / 2, RATE // 100)).astype(np.float32) ** 2
        clip[: len(edge)] *= edge
        clip[-len(edge) :] *= edge[::-1]
    clip = 0.5 * clip / max(np.abs(clip).max(), 1e-6)
    floor = 10 ** (rng.uniform(-75, -60) / 20)
    return (clip + floor * rng.standard_normal(LENGTH)).astype(np.float32)


def changed(samples: Wave, rng: np.random.Generator, strength: float = 1.0) -> Wave:
    """One training example: speed and pitch, tilt, echo, noise, level, all at random and the more the stronger."""
    speed = np.exp(strength * rng.uniform(-0.25, 0.25))
    grid = np.arange(0, len(samples) - 1, speed)
    wave: Wave = np.interp(grid, np.arange(len(samples)), samples).astype(np.float32)
    if rng.random() < 0.4 * strength:  # first-order tilt
        tilt = np.float32(rng.uniform(-0.5, 0.5))
        wave = (wave - tilt * np.concatenate([np.zeros(1, np.float32), wave[:-1]])).astype(np.float32)
    if rng.random() < 0.2 * strength:  # an echo that dies away
        delay, gain = int(rng.uniform(0.01, 0.08) * RATE), rng.uniform(0.1, 0.4)
        tail: Wave = np.zeros(len(wave) + 3 * delay, np.float32)
        for turn in range(4):
            tail[turn * delay : turn * delay + len(wave)] += np.float32(gain**turn) * wave
        wave = tail
    clip = placed(wave, rng)
    if rng.random() < 0.3 * strength:
        clip = clip + (10 ** (rng.uniform(-65, -35) / 20) * rng.standard_normal(LENGTH)).astype(np.float32)
    return clip * np.float32(10 ** (strength * rng.uniform(-8, 3) / 20))


def fixed_clip(recording: Recording) -> Wave:
    """The clip that ships: place and noise follow from the recording's name alone."""
    seed = int.from_bytes(hashlib.sha256(f"{recording.group} {recording.name}".encode()).digest()[:4], "big")
    return placed(prepared(recording), np.random.default_rng(seed), at=0.3 if recording.label != "speech" else None)


class LogMel:
    """What `ClapFeatureExtractor` makes of a clip of full length, for a batch at once: [batch, 1, frames, mel]."""

    def __init__(self, extractor: Any) -> None:
        self.window = torch.hann_window(extractor.fft_window_size)
        self.filters = torch.from_numpy(extractor.mel_filters_slaney).float()
        self.size, self.hop = extractor.fft_window_size, extractor.hop_length

    def __call__(self, clips: np.ndarray) -> torch.Tensor:
        spectrum = torch.stft(
            torch.from_numpy(clips), self.size, self.hop, window=self.window, pad_mode="reflect", return_complex=True
        )
        power = spectrum.abs() ** 2  # [batch, bins, frames]
        mel = (power.transpose(1, 2) @ self.filters).clamp_min(1e-10)
        return 10 * mel.log10()[:, None]
