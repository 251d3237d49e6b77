"""The front end of msclap: from a waveform to the log-mel picture that its audio encoder takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from interp_core.errors import InterpError

AMIN = 1e-10  # power below this counts as this, so the picture's floor is -100 dB


@dataclass(frozen=True, eq=False)
class FrontEnd:
    """Settings of the front end; the defaults are those of the 2023 weights.

    The filters were laid out for audio at 32 kHz although the audio comes at 44.1 kHz, so every filter hears what is
    44.1 / 32 times as high as its name says. The weights were trained so, hence both rates stand here.

    Attributes:
        sample_rate: of the samples, Hz.
        seconds: that the model hears of a clip.
        n_fft: samples of a frame, in a Hann window.
        hop: samples from frame to frame.
        n_mels: filters.
        filter_rate: Hz; the rate for which the filters are laid out.
        fmin: lower end of the lowest filter at `filter_rate`, Hz.
        fmax: upper end of the highest, Hz.
        filters: [n_fft / 2 + 1, n_mels] the filters themselves where a weight file holds them; made from the other
            settings if None.
    """

    sample_rate: int = 44_100
    seconds: float = 7.0
    n_fft: int = 1024
    hop: int = 320
    n_mels: int = 64
    filter_rate: int = 32_000
    fmin: float = 50.0
    fmax: float = 14_000.0
    filters: Tensor | None = None

    @property
    def n_samples(self) -> int:
        return round(self.seconds * self.sample_rate)

    @property
    def n_frames(self) -> int:
        return 1 + self.n_samples // self.hop


def msclap_features(samples: np.ndarray | Tensor | Sequence[float], settings: FrontEnd | None = None) -> Tensor:
    """Turn a clip into the audio encoder's input.

    Args:
        samples: [n_samples] mono or [channels, n_samples], full scale 1, at the settings' sample rate.
        settings: FrontEnd() if None; an opened model carries its own.
    Returns:
        float32 [1, 1, frames, n_mels], dB with full power 1 as 0, at least -100, of the mean of the channels. A clip
        that is too short is repeated until it is long enough; of one that is too long the middle is taken, where
        msclap draws a place at random (and strings channels together, so that a stereo clip counts as twice as long).
    Raises:
        InterpError: an empty clip, a wrong shape, NaN or infinity.
    Source: Elizalde et al. 2023, arXiv:2309.05767; msclap 1.3.4 and torchlibrosa 0.1.0, which it uses.
    """
    settings = settings or FrontEnd()
    wave = torch.as_tensor(np.asarray(samples), dtype=torch.float64)
    if wave.ndim not in (1, 2) or not wave.numel() or (wave.ndim == 2 and len(wave) > wave.shape[1]):
        raise InterpError(
            f"samples are {tuple(wave.shape)}; expected [n_samples] or [channels, n_samples], channels first."
        )
    if not wave.isfinite().all():
        raise InterpError("the clip holds NaN or infinity; decode it again.")
    heard = _fitted(wave.mean(0) if wave.ndim == 2 else wave, settings.n_samples)
    if settings.n_samples <= settings.n_fft // 2:
        raise InterpError(
            f"{settings.seconds:g} s are {settings.n_samples} samples, less than half a frame of {settings.n_fft}."
        )
    spectrum = torch.stft(
        heard,
        settings.n_fft,
        hop_length=settings.hop,
        window=torch.hann_window(settings.n_fft, dtype=torch.float64),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )  # [n_fft / 2 + 1, frames]
    power = spectrum.abs().square().T  # [frames, n_fft / 2 + 1]
    picture = 10 * torch.log10((power @ _filters(settings)).clamp(min=AMIN))  # [frames, n_mels]
    return picture.float()[None, None]


def _fitted(wave: Tensor, wanted: int) -> Tensor:
    """Return [wanted] samples: repeated, or cut."""
    if len(wave) <= wanted:
        return wave.repeat(-(-wanted // len(wave)))[:wanted]
    start = (len(wave) - wanted) // 2
    return wave[start : start + wanted]


def _filters(settings: FrontEnd) -> Tensor:
    if settings.filters is not None:
        return settings.filters.double()
    s = settings
    return _made_filters(s.filter_rate, s.n_fft, s.n_mels, s.fmin, s.fmax)


@lru_cache(maxsize=4)
def _made_filters(rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float) -> Tensor:
    from librosa.filters import mel  # slow to import, and not needed where the weights bring their filters

    made = mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    return torch.from_numpy(made.T.copy()).double()
