"""The clips of demo-emotion that a person browses: held-out voices reading held-out sentences.

Chosen by design and seed, never by what the model answers. A speaker reads ten sentences: five in all five prosodies
(prosody pairs) and five more in a neutral voice (semantic pairs where the default question listens to the words).
"""

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from emotion_data import Reading, Sentence, TooLong, record, sentences
from speech import EMOTIONS, SAMPLE_RATE

SPEAKERS = ("en-us+f3", "en-us+m3", "en-gb-x-gbcwmd+linda", "en-us-nyc+m5")
# A pause fills every recording up to about one length (the exact one is drawn), as in corpora recorded to a prompt:
# with bare speech, replacing only the positions that two clips share would cut the last, telling words off the longer.
SECONDS = (2.3, 2.5)
JITTER = 0.35  # half of training's: closer to each prosody's centre, easier to hear
COLUMNS = ("clip_id", "path", "text_id", "text", "prosody_label", "semantic_label", "speaker", "split")


@dataclass(frozen=True)
class BrowseClip:
    """A recording of the bundled set; samples are [n_samples] float32 at 16 kHz."""

    text_id: str
    reading: Reading
    samples: np.ndarray

    @property
    def clip_id(self) -> str:
        return f"{self.text_id}-{self.reading.voice.split('+')[1]}-{self.reading.prosody}"


def browse_clips(seed: int = 7) -> list[BrowseClip]:
    """All clips, speaker by speaker; sentences with a reading that is too long are passed over."""
    rng = random.Random(seed)
    spoken = sentences()[1]
    waiting = {e: rng.sample(of_emotion, len(of_emotion)) for e in EMOTIONS if (of_emotion := _with(spoken, e))}
    clips: list[BrowseClip] = []
    n_texts = 0
    for speaker in SPEAKERS:
        for prosodies in (EMOTIONS, ("neutral",)):
            for emotion in EMOTIONS:
                n_texts += 1
                clips += _next_fitting(waiting[emotion], speaker, prosodies, f"s{n_texts:02d}", seed * 1000 + n_texts)
    return clips


def _with(spoken: Sequence[Sentence], emotion: str) -> list[Sentence]:
    return [sentence for sentence in spoken if sentence.emotion == emotion]


def _next_fitting(
    waiting: list[Sentence], speaker: str, prosodies: Sequence[str], text_id: str, seed: int
) -> list[BrowseClip]:
    """Takes sentences from waiting until one fits in all its readings."""
    while waiting:
        sentence = waiting.pop(0)
        lengths = random.Random(seed)
        clips = []
        try:
            for prosody in prosodies:
                reading = Reading(sentence, speaker, prosody, seed, JITTER, seconds=lengths.uniform(*SECONDS))
                clips.append(BrowseClip(text_id, reading, record(reading)))
        except TooLong:
            continue
        return clips
    raise ValueError(f"no held-out sentence left for {text_id} ({speaker}); allow longer recordings.")


def write_clips(clips: Sequence[BrowseClip], folder: Path) -> None:
    """Writes folder/clips/*.flac (16 kHz, 16 bit) and folder/manifest.csv."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for clip in clips:
            path = f"clips/{clip.clip_id}.flac"
            soundfile.write(folder / path, clip.samples, SAMPLE_RATE, subtype="PCM_16")
            sentence = clip.reading.sentence
            labels = (clip.reading.prosody, sentence.emotion, clip.reading.voice, "held-out")
            writer.writerow((clip.clip_id, path, clip.text_id, sentence.text, *labels))
