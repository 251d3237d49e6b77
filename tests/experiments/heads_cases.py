"""Tiny HTS-ATs and noise clips for the tests of heads: the geometry of the real ones, every weight drawn at random."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from interp_core.cache import ByteCache
from interp_core.data.clips import Clip, file_digest
from interp_core.models.subject import Subject
from interp_core.trace.store import CleanStore

RATE = 48_000
CLASSES = ("hiss", "hum", "tone")


def store_of(subject: Subject) -> CleanStore:
    return CleanStore(subject, ByteCache(1 << 27))


def write_clips(
    folder: Path, labels: Sequence[str], *, seconds: Sequence[float] = (1.0,), rate: int = RATE, seed: int = 0
) -> tuple[Clip, ...]:
    """One clip a label: noise, and in "hum" and "tone" a sine of another pitch; `seconds` in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    clips = []
    for number, label in enumerate(labels):
        time = np.arange(round(rate * seconds[number % len(seconds)])) / rate
        pitch = {"hum": 200.0, "tone": 1500.0}.get(label, 0.0) * np.exp(0.1 * rng.standard_normal())
        wave = 0.1 * rng.standard_normal(len(time)) + (0.3 * np.sin(2 * np.pi * pitch * time) if pitch else 0)
        path = folder / f"c{number:03d}.wav"
        soundfile.write(path, wave.astype(np.float32), rate, subtype="FLOAT")
        about = {"label": label, "group": f"g{number // len(set(labels))}"}
        clips.append(Clip(path.stem, path, about, file_digest(path)))
    return tuple(clips)


def write_manifest(folder: Path, clips: Sequence[Clip], train: int = 0) -> Path:
    """The clips as a manifest; the first `train` of them are training clips."""
    rows = ["clip_id,path,label,group,split"]
    for number, clip in enumerate(clips):
        split = "train" if number < train else "test"
        rows.append(f"{clip.clip_id},{clip.path.name},{clip.labels['label']},{clip.labels['group']},{split}")
    path = folder / "clips.csv"
    path.write_text("\n".join(rows) + "\n")
    return path
