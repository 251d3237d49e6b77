"""The mel spectrogram that the player and the figures show: absolute steps of dB, so that two clips compare."""

from typing import Any

import librosa
import numpy as np
from librosa.filters import mel as mel_filters

MEL_BANDS = 80
MEL_TOP_HZ = 8000.0  # or half the sample rate, where that is lower
MEL_FLOOR_DB = -110.0  # level 0; level 255 is MEL_CEILING_DB. A full-scale sine is at 0 dB.
MEL_CEILING_DB = 10.0
MEL_STEP_DB = (MEL_CEILING_DB - MEL_FLOOR_DB) / 255
MEL_WINDOW_S = 0.025
MEL_HOP_S = 0.005
MEL_MOST_FRAMES = 1500  # beyond what a screen shows: longer clips get a longer hop
PITCH_MARKS_HZ = (0, 1000, 2000, 4000, 8000)


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
