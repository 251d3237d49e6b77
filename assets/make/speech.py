"""English speech from espeak-ng's C library, with the prosody settings of five emotions.

The library is called in process (a subprocess a clip would be ten times slower) and keeps one global state, so use
it from one thread a process. Debian: `apt-get install libespeak-ng1 espeak-ng-data` (1.51 made the bundled clips).
"""

import ctypes
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache

import numpy as np
import soundfile
import soxr
from scipy.signal import lfilter

EMOTIONS = ("neutral", "happy", "sad", "angry", "surprised")
SAMPLE_RATE = 16_000  # Hz, of every array in this module
VOICE_LEVEL = 0.06  # RMS of every voice's plain neutral reading; by themselves the voices span .03 to .26


@dataclass(frozen=True)
class Prosody:
    """How to read a sentence, in espeak-ng's units.

    rate: words a minute. volume: 0 to 200, 100 is plain. pitch, pitch_range: 0 to 99, 50 is plain.
    tilt: coefficient of a one-pole filter; above 0 brightens the voice, below 0 darkens it.
    end: the sentence's punctuation, which sets espeak-ng's final contour.
    """

    rate: float
    volume: float
    pitch: float
    pitch_range: float
    tilt: float
    end: str


PROSODIES = {
    "neutral": Prosody(172, 100, 50, 50, 0.0, "."),
    "happy": Prosody(192, 115, 66, 85, 0.15, "!"),
    "sad": Prosody(132, 68, 36, 18, -0.45, "."),
    "angry": Prosody(208, 150, 46, 75, 0.45, "!"),
    "surprised": Prosody(165, 110, 80, 99, 0.0, "?"),
}


def jittered(prosody: Prosody, rng: np.random.Generator, amount: float) -> Prosody:
    """The prosody with normal noise on every number; at amount 1 the five emotions overlap a little."""
    rate, volume, pitch, pitch_range, tilt = rng.normal(size=5) * np.array([8, 9, 5, 7, 0.05]) * amount
    return Prosody(
        rate=max(100.0, prosody.rate + rate),
        volume=float(np.clip(prosody.volume + volume, 30, 190)),
        pitch=float(np.clip(prosody.pitch + pitch, 0, 99)),
        pitch_range=float(np.clip(prosody.pitch_range + pitch_range, 0, 99)),
        tilt=prosody.tilt + tilt,
        end=prosody.end,
    )


def speak(text: str, voice: str, prosody: Prosody) -> np.ndarray:
    """[n_samples] float32 at 16 kHz: the text, without its final punctuation, read aloud by one voice.

    Voices are levelled to one loudness, so that volume tells the emotion and not the voice.
    Raises ValueError for a voice that espeak-ng does not know.
    """
    samples = _synthesise(text + prosody.end, voice, prosody) * (VOICE_LEVEL / _plain_level(voice))
    return _tilted(samples, prosody.tilt)


def speak_flite(text: str, voice: str, prosody: Prosody) -> np.ndarray:
    """As speak, by another synthesiser (Debian: `apt-get install flite`) and one of its voices: awb, rms, slt, kal16.

    Its settings are as near to espeak-ng's as it has them; it has no punctuation contours and no volume.
    """
    usual_f0 = {"awb": 130, "rms": 95, "slt": 170, "kal16": 105}[voice]  # Hz
    with tempfile.TemporaryDirectory() as folder:
        wav = f"{folder}/speech.wav"
        settings = {
            "duration_stretch": PROSODIES["neutral"].rate / prosody.rate,
            "int_f0_target_mean": usual_f0 * 2 ** ((prosody.pitch - 50) / 50),
            "int_f0_target_stddev": 15 * prosody.pitch_range / 50,
        }
        flags = [part for name, value in settings.items() for part in ("--setf", f"{name}={value:.3f}")]
        subprocess.run(["flite", "-voice", voice, *flags, "-t", text + prosody.end, "-o", wav], check=True)
        samples, rate = soundfile.read(wav, dtype="float32")
    samples = soxr.resample(samples, rate, SAMPLE_RATE)
    level = VOICE_LEVEL * prosody.volume / 100 / np.sqrt((samples**2).mean())
    return _tilted(samples * level, prosody.tilt)


def _tilted(samples: np.ndarray, tilt: float) -> np.ndarray:
    tilted = lfilter([1, -tilt], [1], samples) if tilt >= 0 else lfilter([1], [1, tilt], samples)
    return (tilted * np.sqrt((samples**2).mean() / (tilted**2).mean())).astype(np.float32)  # tilt changes no level


@cache
def _plain_level(voice: str) -> float:
    plain = _synthesise("The teacher walked to the office.", voice, PROSODIES["neutral"])
    return float(np.sqrt((plain**2).mean()))


# espeak-ng's speak_lib.h: AUDIO_OUTPUT_SYNCHRONOUS, POS_CHARACTER, espeakCHARS_UTF8, and the parameter numbers.
_SYNCHRONOUS, _BY_CHARACTER, _UTF8 = 2, 1, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_chunks: list[np.ndarray] = []


@_CALLBACK
def _receive(samples, count, events):
    if samples and count > 0:
        _chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
    return 0


@cache
def _library() -> tuple[ctypes.CDLL, int]:
    """The initialised library and its sample rate, Hz."""
    library = ctypes.CDLL("libespeak-ng.so.1")
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_Synth.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int),
        *(ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),
    ]
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
    if rate <= 0:
        raise OSError("espeak-ng did not start; is the package espeak-ng-data installed?")
    library.espeak_SetSynthCallback(_receive)
    return library, rate


def _synthesise(text: str, voice: str, prosody: Prosody) -> np.ndarray:
    """[n_samples] float32 at 16 kHz as espeak-ng gives it, full scale 1."""
    library, native_rate = _library()
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {voice!r}; `espeak-ng --voices=en` lists them.")
    settings = {
        _RATE: prosody.rate,
        _VOLUME: prosody.volume,
        _PITCH: prosody.pitch,
        _RANGE: prosody.pitch_range,
    }
    for parameter, value in settings.items():
        library.espeak_SetParameter(parameter, round(value), 0)
    _chunks.clear()
    raw = text.encode() + b"\0"
    library.espeak_Synth(raw, len(raw), 0, _BY_CHARACTER, 0, _UTF8, None, None)
    samples = np.concatenate(_chunks).astype(np.float32) / 32768
    return soxr.resample(samples, native_rate, SAMPLE_RATE)
