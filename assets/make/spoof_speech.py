"""The spoofed half of demo-spoof: three synthesiser programs from Debian, and which of their voices are held out."""

import random
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
from speech import PROSODIES, SAMPLE_RATE, jittered, speak
from spoof_texts import sentences


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker.

    Attributes:
        engine: how speech is made; the attack label of the data set.
        language: of TEXTS.
        name: the program's own name of the voice.
        held_out: no recording of it is in training.
        readings: how often it reads each of its sentences, each time a little faster, slower, higher or lower.
    """

    engine: str
    language: str
    name: str
    held_out: bool
    readings: int

    @property
    def speaker(self) -> str:
        short = {"cmu_us_slt_arctic_hts": "slt", "msu_ru_nsh_clunits": "nsh"}.get(self.name, self.name)
        return f"{self.engine}-{short.removesuffix('_diphone').replace('+', '-')}"


ESPEAK_TRAINING = ("m1", "m3", "m4", "f1", "f3", "f5", "klatt", "klatt3", "Alex", "Annie", "Lee", "belinda")
ESPEAK_HELD_OUT = ("m2", "m7", "f2", "f4")
VOICES = (
    *(Voice("espeak", lang[:2], f"{lang}+{v}", False, 1) for lang in ("en-us", "fr", "it") for v in ESPEAK_TRAINING),
    *(Voice("flite", "en", name, False, 6) for name in ("kal16", "awb", "rms")),
    Voice("diphone", "en", "ked_diphone", False, 8),
    Voice("diphone", "it", "lp_diphone", False, 12),
    *(
        Voice("espeak", lang[:2], f"{lang}+{v}", True, 1)
        for lang in ("es", "ru", "en-gb-x-rp")
        for v in ESPEAK_HELD_OUT
    ),
    Voice("flite", "en", "slt", True, 3),
    Voice("diphone", "it", "pc_diphone", True, 4),
    Voice("hts", "en", "cmu_us_slt_arctic_hts", True, 3),
    Voice("clunits", "ru", "msu_ru_nsh_clunits", True, 2),
)


def spoken(voice: Voice) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (utterance name, [n_samples] at 16 kHz) of everything that a voice reads; the same on every call."""
    rng = random.Random(voice.speaker)
    lines = [(f"{voice.speaker}-{i:02d}-{k}", text) for i, text in _numbered(voice) for k in range(voice.readings)]
    if voice.engine == "espeak":
        noise = np.random.default_rng(rng.randrange(2**32))
        for name, text in lines:
            prosody = jittered(replace(PROSODIES["neutral"], end=""), noise, 1.0)
            yield name, speak(text, voice.name, prosody)
        return
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.wav" for i in range(len(lines))]
        stretches = [rng.uniform(0.9, 1.2) for _ in lines]
        read = _flite if voice.engine == "flite" else _festival
        read(voice.name, [text for _, text in lines], stretches, files, rng)
        for (name, _), file in zip(lines, files, strict=True):
            samples, rate = soundfile.read(file, dtype="float32")
            yield name, _at_rate(samples, rate)


def _numbered(voice: Voice) -> list[tuple[int, str]]:
    return list(enumerate(sentences(voice.language, voice.held_out)))


def _at_rate(samples: np.ndarray, rate: int) -> np.ndarray:
    return soxr.resample(samples, rate, SAMPLE_RATE) if rate != SAMPLE_RATE else samples


def _flite(voice: str, texts: list[str], stretches: list[float], files: list[Path], rng: random.Random) -> None:
    usual_f0 = {"awb": 130, "rms": 95, "slt": 170, "kal16": 105}[voice]  # Hz
    for text, stretch, file in zip(texts, stretches, files, strict=True):
        f0 = usual_f0 * rng.uniform(0.9, 1.12)
        settings = ("--setf", f"duration_stretch={stretch:.3f}", "--setf", f"int_f0_target_mean={f0:.1f}")
        subprocess.run(["flite", "-voice", voice, *settings, "-t", text, "-o", str(file)], check=True)


def _festival(voice: str, texts: list[str], stretches: list[float], files: list[Path], rng: random.Random) -> None:
    lines = [f"(voice_{voice})"]
    for text, stretch, file in zip(texts, stretches, files, strict=True):
        quoted = text.replace('"', "")
        lines.append(f"(Parameter.set 'Duration_Stretch {stretch:.3f})")
        lines.append(f'(utt.save.wave (utt.synth (Utterance Text "{quoted}")) "{file}" \'riff)')
    encoding = "iso-8859-1" if voice in ("lp_diphone", "pc_diphone") else "utf-8"
    script = files[0].with_suffix(".scm")
    script.write_bytes("\n".join(lines).encode(encoding))
    subprocess.run(["festival", "--batch", str(script)], check=True)
