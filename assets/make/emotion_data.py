"""Sentences, voices and recordings of demo-emotion: how a sentence is read and what it says vary independently.

A sentence is a carrier ("My brother ...") and a phrase ("... won the prize"); only the phrase tells the words'
emotion. A quarter of the carrier-phrase combinations, and six voices in three accents, are kept out of training.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from speech import EMOTIONS, PROSODIES, SAMPLE_RATE, Prosody, jittered, speak

PHRASES = {
    "neutral": """moved the table|bought some bread|read the report|walked to the office|parked the car
        |painted the fence|closed the window|counted the boxes|washed the dishes|opened the folder""",
    "happy": """won the prize|danced with joy|loved the party|enjoyed the sunshine|laughed with friends
        |celebrated the wedding|kissed the baby|cheered the winner|smiled at the gift|shared the birthday cake""",
    "sad": """wept all night|lost the child|buried the dog|cried at the grave|missed dear mother
        |mourned the loss|felt so lonely|grieved in silence|lost all hope|suffered the pain""",
    "angry": """cursed the thief|hated the liar|screamed with rage|fought the bully|smashed the door
        |blamed the traitor|yelled at the boss|punched the wall|insulted the cheat|attacked the enemy""",
    "surprised": """saw a ghost suddenly|found a hidden treasure|met an alien|heard a strange explosion
        |discovered a secret|gasped in disbelief|spotted a flying pig|never expected that|saw a sudden miracle
        |found an odd monster""",
}
UNSEEN_PHRASES = {  # for one number of the data card: what it makes of words it never heard
    "neutral": "carried the chairs|sorted the letters|waited for the bus",
    "happy": "sang for joy|adored the puppy|enjoyed the holiday",
    "sad": "sobbed at the funeral|mourned a friend|felt broken and alone",
    "angry": "shouted at the driver|hated the insult|kicked the gate",
    "surprised": "saw a sudden flash|found a strange letter|met a ghost",
}
CARRIERS = (
    *("They", "She", "He", "We", "My brother", "The teacher"),
    *("Our neighbour", "The old man", "Last week they", "Today she"),
)

TRAINING_ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-gb-x-gbclan")
TRAINING_HIGH = "f1 f2 f4 Alicia Annie anika belinda steph shelby aunty grandma".split()
TRAINING_LOW = """m1 m2 m4 m6 m7 m8 Alex Andy Denis Gene Gene2 Henrique Lee Michael Mike benjamin david ed john
    klatt klatt2 klatt4 max michel miguel quincy""".split()
HELD_OUT_ACCENTS = ("en-us", "en-us-nyc", "en-gb-x-gbcwmd")
HELD_OUT_VARIANTS = ("f3", "f5", "linda", "m3", "m5", "Mario")

LONGEST_SECONDS = 3.9  # the model's window is 4 s; longer readings are drawn again


@dataclass(frozen=True)
class Sentence:
    """A sentence without its final punctuation; emotion is that of its words."""

    text: str
    emotion: str


@dataclass(frozen=True)
class Reading:
    """One recording to make: a sentence, a voice, an emotion of the voice, and the seed of everything random in it.

    jitter scales the noise on the prosody settings (at 1 the emotions overlap a little). seconds is the recording's
    whole length, which a pause fills up after the speech; None: a random pause, as in training.
    """

    sentence: Sentence
    voice: str
    prosody: str
    seed: int
    jitter: float = 0.7
    seconds: float | None = None


class TooLong(ValueError):
    """The speech is longer than the recording may be."""


def phrases(emotion: str, of: Mapping[str, str] = PHRASES) -> list[str]:
    return [phrase.strip() for phrase in of[emotion].split("|")]


def sentences() -> tuple[list[Sentence], list[Sentence]]:
    """The training and the held-out sentences: 375 and 125, always the same; every phrase is in both."""
    everything = combined(PHRASES)
    held_out = set()
    rng = random.Random(0)
    for emotion in EMOTIONS:
        of_emotion = [s for s in everything if s.emotion == emotion]
        held_out |= set(rng.sample(of_emotion, len(of_emotion) // 4))
    return [s for s in everything if s not in held_out], sorted(held_out, key=lambda s: s.text)


def combined(of: Mapping[str, str]) -> list[Sentence]:
    """Every carrier with every phrase."""
    return [Sentence(f"{c} {p}", e) for e in EMOTIONS for p in phrases(e, of) for c in CARRIERS]


def training_voices() -> list[str]:
    """High and low voices in equal numbers (high ones repeat), since there are fewer high variants."""
    highs = [TRAINING_HIGH[i % len(TRAINING_HIGH)] for i in range(len(TRAINING_LOW))]
    return [f"{accent}+{variant}" for accent in TRAINING_ACCENTS for variant in (*TRAINING_LOW, *highs)]


def held_out_voices() -> list[str]:
    return [f"{accent}+{variant}" for accent in HELD_OUT_ACCENTS for variant in HELD_OUT_VARIANTS]


def record(reading: Reading, speaker: Callable[[str, str, Prosody], np.ndarray] = speak) -> np.ndarray:
    """[n_samples] float32 at 16 kHz, 16-bit steps: a short pause, the speech, a pause, over a faint noise floor.

    Raises TooLong if the speech does not fit the reading's seconds.
    """
    rng = np.random.default_rng(reading.seed)
    prosody = jittered(PROSODIES[reading.prosody], rng, reading.jitter)
    before, after = rng.uniform(0.02, 0.15), rng.uniform(0.0, 0.8)
    speech = speaker(reading.sentence.text, reading.voice, prosody)
    samples = np.concatenate([_silence(before), speech, _silence(after if reading.seconds is None else 0)])
    if reading.seconds is not None:
        missing = reading.seconds - len(samples) / SAMPLE_RATE
        if missing < 0:
            raise TooLong(f"{reading.sentence.text!r} needs {-missing:.2f} s more than {reading.seconds} s.")
        samples = np.concatenate([samples, _silence(missing)])
    # Digital silence exists in no recording: a floor of -75 to -60 dB keeps the model from leaning on it.
    samples += rng.normal(size=len(samples)).astype(np.float32) * 10 ** (rng.uniform(-75, -60) / 20)
    return (np.clip(samples, -1, 1) * 32767).round().astype(np.float32) / 32768


def _silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def draw_readings(n: int, spoken: Sequence[Sentence], voices: Sequence[str], seed: int) -> list[Reading]:
    """n readings in which the five prosodies and the five word emotions are crossed evenly."""
    rng = random.Random(seed)
    by_emotion = {e: [s for s in spoken if s.emotion == e] for e in EMOTIONS}
    cells = [(EMOTIONS[i % 5], EMOTIONS[i // 5 % 5]) for i in range(n)]
    return [
        Reading(rng.choice(by_emotion[words]), rng.choice(voices), prosody, seed * 1_000_003 + i)
        for i, (prosody, words) in enumerate(cells)
    ]


def record_all(readings: Sequence[Reading], workers: int = 2) -> tuple[list[Reading], list[np.ndarray]]:
    """The readings that fit the model's window and their samples, as 16-bit integers to save memory."""
    # spawn: espeak-ng's global state must not be copied into a worker by a fork
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        recordings = list(pool.map(_record_int16, readings, chunksize=64))
    kept = [i for i, samples in enumerate(recordings) if len(samples) <= LONGEST_SECONDS * SAMPLE_RATE]
    return [readings[i] for i in kept], [recordings[i] for i in kept]


def _record_int16(reading: Reading) -> np.ndarray:
    return (record(reading) * 32768).astype(np.int16)
