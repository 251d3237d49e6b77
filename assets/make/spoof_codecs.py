"""One band, one loudness, and the five codecs that are the domains of demo-spoof.

Everything here is mono at 8 kHz, the rate of the human prompts: were the bands of people and synthesisers not forced to
be one, the band alone would tell them apart.
"""

import io
from functools import cache

import numpy as np
import soundfile
from scipy.signal import firwin, oaconvolve

RATE = 8000  # Hz, of every array in this module
SECONDS = 2.0  # of every recording of the data set
MARGIN = 0.25  # s on both sides that a codec sees and the recording leaves out: edges of a file would give it away
LEVEL = 0.05  # RMS of every recording, before the codec and after it
PASS_BAND = (250.0, 3300.0)  # Hz; the narrowest of the human prompts ends near 3.3 kHz

CODECS = ("PCM", "ULAW", "GSM", "MP3", "OPUS")
# Quality classes of the discriminator: 0 for none or a codec without a choice, 1 lower, 2 higher.
QUALITIES = ("NONE", "LOW", "HIGH")
_FILES = {  # format, subtype, libsndfile compression levels of (LOW, HIGH): MP3 18 and 32, Opus 14 and 35 kbit/s
    "ULAW": ("WAV", "ULAW", None),
    "GSM": ("WAV", "GSM610", None),
    "MP3": ("MP3", "MPEG_LAYER_III", (0.95, 0.3)),
    "OPUS": ("OGG", "OPUS", (0.98, 0.9)),
}


@cache
def _band_filter() -> np.ndarray:
    return firwin(513, PASS_BAND, pass_zero=False, fs=RATE)


def levelled(samples: np.ndarray) -> np.ndarray:
    return (samples * (LEVEL / max(float(np.sqrt((samples**2).mean())), 1e-9))).astype(np.float32)


def one_band(samples: np.ndarray) -> np.ndarray:
    """The telephone's band of a recording [n_samples], by a linear-phase filter."""
    return oaconvolve(samples, _band_filter(), mode="same").astype(np.float32)


def coded(samples: np.ndarray, codec: str, quality: int = 0) -> np.ndarray:
    """A recording with margins [n_samples] through a codec and back, without its margins and levelled.

    Args:
        samples: (SECONDS + 2 MARGIN) * RATE of them.
        codec: one of CODECS.
        quality: index into QUALITIES; 1 or 2 for MP3 and OPUS, 0 for the others.
    """
    back = samples if codec == "PCM" else _there_and_back(samples, codec, quality)
    start = round(MARGIN * RATE)
    kept = levelled(back[start : start + round(SECONDS * RATE)])
    return (np.clip(kept, -1, 1) * 32767).round().astype(np.float32) / 32768


def _there_and_back(samples: np.ndarray, codec: str, quality: int) -> np.ndarray:
    container, subtype, levels = _FILES[codec]
    if (levels is None) != (quality == 0):
        raise ValueError(f"{codec} has no quality {QUALITIES[quality]}.")
    file = io.BytesIO()
    settings = {} if levels is None else {"compression_level": levels[quality - 1]}
    soundfile.write(file, samples, RATE, format=container, subtype=subtype, **settings)
    file.seek(0)
    back, rate = soundfile.read(file, dtype="float32")
    if rate != RATE:
        raise OSError(f"{codec} came back at {rate} Hz instead of {RATE}.")
    return _aligned(back, samples)


def _aligned(back: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """The decoded recording without its codec's delay, and as long as what went in."""
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    reach = round(MARGIN * RATE)
    scores = oaconvolve(back, middle[::-1], mode="valid")
    first = len(samples) // 4
    near = scores[max(0, first - reach) : first + reach + 1]
    delay = int(near.argmax()) + max(0, first - reach) - first
    back = back[delay:] if delay >= 0 else np.concatenate([np.zeros(-delay, np.float32), back])
    return np.pad(back[: len(samples)], (0, max(0, len(samples) - len(back))))
