"""The recordings of demo-spoof that ship: held-out utterances in all five codecs, chosen by design and seed.

Never by what a model answers. The manifest of demo-spoof-dann points into demo-spoof-erm: both judge the same clips.
"""

import csv
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from spoof_codecs import CODECS, QUALITIES, RATE
from spoof_data import Utterance, quality_of

WANTED = {  # (speaker of people, engine of synthesisers; language) -> utterances
    ("allison", "en"): 2,
    ("june", "fr"): 2,
    ("carlo", "it"): 2,
    ("allison", "es"): 4,
    ("ivrvoice-ru", "ru"): 7,
    ("menardi", "it"): 7,
    ("espeak", "es"): 3,
    ("espeak", "ru"): 3,
    ("espeak", "en"): 3,
    ("flite", "en"): 4,
    ("diphone", "it"): 4,
    ("hts", "en"): 3,
    ("clunits", "ru"): 4,
}
COLUMNS = (
    *("clip_id", "path", "label", "speaker", "engine", "language", "utterance"),
    *("domain", "quality", "voice_in_training", "split"),
)


def kind(utterance: Utterance) -> tuple[str, str]:
    return (utterance.speaker if utterance.label == "bonafide" else utterance.engine, utterance.language)


def chosen_clips(held_out: Sequence[Utterance], seed: int = 5) -> list[Utterance]:
    """As many of each kind as WANTED, from as many of its speakers as there are."""
    rng = random.Random(seed)
    chosen: list[Utterance] = []
    for wanted, number in WANTED.items():
        left = [u for u in held_out if kind(u) == wanted]
        rng.shuffle(left)
        used: dict[str, int] = {}
        for _ in range(number):
            # A speaker's next turn comes once all others of the kind had theirs.
            left.sort(key=lambda u: used.get(u.speaker, 0))
            utterance = left.pop(0)
            used[utterance.speaker] = used.get(utterance.speaker, 0) + 1
            chosen.append(utterance)
    return chosen


def write_clips(chosen: Sequence[Utterance], versions: np.ndarray, folder: Path) -> None:
    """Write folder/clips/*.flac anew, 8 kHz, 16 bit; versions are [n, n_codecs, samples] int16."""
    shutil.rmtree(folder / "clips", ignore_errors=True)
    (folder / "clips").mkdir(parents=True)
    for utterance, rows in zip(chosen, versions, strict=True):
        for codec, samples in zip(CODECS, rows, strict=True):
            soundfile.write(folder / _path(utterance, codec), samples, RATE, subtype="PCM_16", compression_level=1.0)


def write_manifest(chosen: Sequence[Utterance], folder: Path, clips: str = "") -> None:
    """Write folder/manifest.csv; `clips` leads from it to the folder that holds the clips."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for utterance in chosen:
            facts = (utterance.label, utterance.speaker, utterance.engine, utterance.language, utterance.name)
            for codec in CODECS:
                quality = QUALITIES[quality_of(utterance.name, codec)]
                seen = "yes" if utterance.seen_voice else "no"
                where = (f"{utterance.name}-{codec.lower()}", clips + _path(utterance, codec))
                writer.writerow((*where, *facts, codec, quality, seen, "held-out"))


def _path(utterance: Utterance, codec: str) -> str:
    return f"clips/{utterance.name}-{codec.lower()}.flac"
