"""Recordings of demo-spoof: human prompts and synthetic speech, cut to 2 s, forced to one band, in every codec.

An *utterance* is one piece of speech; its five codec versions belong together and never sit on two sides of a split.
"""

import hashlib
import random
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
import soxr
from spoof_codecs import CODECS, MARGIN, RATE, SECONDS, coded, levelled, one_band
from spoof_speech import VOICES, Voice, spoken

MODEL_RATE = 16_000  # Hz; what the network takes
CORE, WHOLE = round(SECONDS * RATE), round((SECONDS + 2 * MARGIN) * RATE)
ACTIVE = 0.7  # share of a recording's 20 ms frames that have to hold speech
HELD_OUT_SHARE = 0.15  # of the prompts of a speaker who is in training


@dataclass(frozen=True)
class Person:
    """A human speaker's prompts: a Debian package, and the folder of prompts in it."""

    speaker: str
    language: str
    package: str
    held_out: bool
    licence: str


PEOPLE = (
    Person("allison", "en", "asterisk-core-sounds-en-wav", False, "CC-BY-SA-3.0"),
    Person("june", "fr", "asterisk-core-sounds-fr-wav", False, "CC-BY-SA-3.0"),
    Person("carlo", "it", "asterisk-core-sounds-it-wav", False, "CC-BY-SA-3.0"),
    Person("allison", "es", "asterisk-core-sounds-es-wav", True, "CC-BY-SA-3.0"),  # her voice is in training
    Person("ivrvoice-ru", "ru", "asterisk-core-sounds-ru-wav", True, "CC-BY-3.0"),
    Person("menardi", "it", "asterisk-prompt-it-menardi-wav", True, "CC-BY-SA-3.0-IT"),
)
LEFT_OUT = ("silence", "letters", "phonetic", "digits")  # single sounds and words, all shorter than a recording


@dataclass(frozen=True)
class Utterance:
    """A piece of speech before any codec; samples are [WHOLE] float32 at RATE, in one band and at one level.

    seen_voice: the speaker is in training, with other utterances.
    """

    name: str
    label: str
    speaker: str
    engine: str
    language: str
    held_out: bool
    seen_voice: bool
    samples: np.ndarray = field(repr=False, compare=False)


def utterances(packages: Path) -> list[Utterance]:
    """Everything, in a fixed order.

    Args:
        packages: a folder with the .deb files of PEOPLE, as `apt-get download` leaves them.
    """
    # A process a voice, and never by a fork: espeak-ng keeps a state, so that what it said before would be heard.
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        human = pool.map(_of_person, PEOPLE, [packages] * len(PEOPLE))
        synthetic = pool.map(_of_voice, VOICES)
        return [utterance for group in (*human, *synthetic) for utterance in group]


def _of_person(person: Person, packages: Path) -> list[Utterance]:
    found = []
    for name, samples in _prompts(person, packages):
        held_out = person.held_out or _fraction(f"{person.language}/{name}") < HELD_OUT_SHARE
        for i, piece in enumerate(pieces(samples, f"{person.speaker}/{person.language}/{name}", augment=not held_out)):
            full = f"{person.speaker}-{person.language}-{name}-{i}"
            seen = person.speaker == "allison" or not person.held_out
            found.append(Utterance(full, "bonafide", person.speaker, "human", person.language, held_out, seen, piece))
    return found


def _prompts(person: Person, packages: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, [n_samples] at RATE) of a package's prompts."""
    files = sorted(packages.glob(f"{person.package}_*.deb"))
    if not files:
        raise FileNotFoundError(
            f"{packages} holds no {person.package}_*.deb; run `apt-get download {person.package}` there."
        )
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", str(files[-1]), folder], check=True)
        for path in sorted(Path(folder).rglob("*.wav")):
            if path.parent.name not in LEFT_OUT and path.parent.name != "ICAO":
                samples, rate = soundfile.read(path, dtype="float32")
                yield path.stem, samples if rate == RATE else soxr.resample(samples, rate, RATE)


def _of_voice(voice: Voice) -> list[Utterance]:
    found = []
    for name, samples in spoken(voice):
        for i, piece in enumerate(pieces(soxr.resample(samples, 16_000, RATE), name, augment=not voice.held_out)):
            facts = ("spoof", voice.speaker, voice.engine, voice.language, voice.held_out, not voice.held_out)
            found.append(Utterance(f"{name}-{i}", *facts, piece))
    return found


def _fraction(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def pieces(samples: np.ndarray, name: str, *, augment: bool) -> Iterator[np.ndarray]:
    """Cut speech into recordings of SECONDS and margins; with augment each a little faster or slower, and so higher.

    A faint noise goes over all of it: silence between words is digital in a synthesiser, and never in a room.
    """
    rng = np.random.default_rng(round(_fraction(name) * 2**48))
    samples = _trimmed(samples)
    start = 0
    while True:
        factor = rng.uniform(0.92, 1.08) if augment else 1.0
        wanted = round(CORE * factor)
        if start + wanted > len(samples):
            return
        if _active(samples[start : start + wanted]) >= ACTIVE:
            margin = round(MARGIN * RATE * factor)
            piece = np.pad(samples, margin)[start : start + wanted + 2 * margin]
            if factor != 1.0:
                piece = soxr.resample(piece, RATE * factor, RATE)
            piece = levelled(np.pad(piece, (0, max(0, WHOLE - len(piece))))[:WHOLE])
            noise = rng.normal(size=WHOLE) * 0.05 * 10 ** (-rng.uniform(30, 45) / 20)
            yield levelled(one_band(piece + noise))
        start += round(CORE * 1.1)


def _frame_levels(samples: np.ndarray) -> np.ndarray:
    step = RATE // 50
    frames = samples[: len(samples) // step * step].reshape(-1, step)
    return np.sqrt((frames**2).mean(1))


def _trimmed(samples: np.ndarray) -> np.ndarray:
    levels = _frame_levels(samples)
    loud = np.flatnonzero(levels > 0.03 * levels.max(initial=0))
    return samples[loud[0] * (RATE // 50) : (loud[-1] + 1) * (RATE // 50)] if len(loud) else samples[:0]


def _active(samples: np.ndarray) -> float:
    levels = _frame_levels(samples)
    return float((levels > 0.05 * levels.max(initial=0)).mean()) if len(levels) else 0.0


def quality_of(utterance: str, codec: str) -> int:
    """The quality class of an utterance's codec version: LOW or HIGH by its name, NONE where there is no choice."""
    return 1 + int(_fraction(f"{utterance}/{codec}") < 0.5) if codec in ("MP3", "OPUS") else 0


def all_versions(utterance: Utterance) -> np.ndarray:
    """[n_codecs, CORE] int16 at RATE: the utterance in every codec, in the order of CODECS."""
    versions = [coded(utterance.samples, codec, quality_of(utterance.name, codec)) for codec in CODECS]
    return (np.stack(versions) * 32768).astype(np.int16)


def code_all(chosen: Sequence[Utterance], workers: int = 2) -> np.ndarray:
    """[n_utterances, n_codecs, CORE] int16 at RATE."""
    with ProcessPoolExecutor(workers) as pool:
        return np.stack(list(pool.map(all_versions, chosen, chunksize=32)))


def model_input(versions: np.ndarray) -> np.ndarray:
    """[n, CORE] int16 at RATE -> [n, 2 CORE] float32 at the model's rate, resampled as the dashboard does it."""
    return np.stack([soxr.resample(row.astype(np.float32) / 32768, RATE, MODEL_RATE, "HQ") for row in versions])


def balanced(chosen: Sequence[Utterance], n: int, seed: int) -> list[Utterance]:
    """About n of them, as many from each (speaker, language), drawn by seed; fewer where a group has not enough."""
    rng = random.Random(seed)
    groups: dict[tuple[str, str], list[Utterance]] = {}
    for utterance in chosen:
        groups.setdefault((utterance.speaker, utterance.language), []).append(utterance)
    each = -(-n // len(groups))
    return [u for key in sorted(groups) for u in rng.sample(groups[key], min(each, len(groups[key])))][:n]
