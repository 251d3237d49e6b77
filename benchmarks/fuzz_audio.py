"""Mutated recordings of every container through decoding and measuring.

python -m benchmarks.fuzz_audio [CASES] [SEED]        3,000 cases take about a minute
"""

import io
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.fuzzing import main, mutated
from interp_core.data.clips import acoustics, read_audio, seconds_of

RATE = 16_000
FORMATS = (
    *(("WAV", kind) for kind in ("PCM_16", "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM", "GSM610")),
    *(("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16")),
    *(("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")),
    ("MP3", "MPEG_LAYER_III"),
)


def seeds(seconds: float = 0.5) -> list[bytes]:
    """A recording in each container."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, int(seconds * RATE))
    made = []
    for container, kind in FORMATS:
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, format=container, subtype=kind)
        made.append(file.getvalue())
    return made


def cases(folder: Path, count: int, seed: int, *, measured: bool = True) -> Iterator[tuple[str, Callable[[], object]]]:
    """Named cases, each a file of its own bytes that is read in every way in which Patchbay reads recordings."""
    rng, whole = random.Random(seed), seeds()
    for number in range(count):
        path = folder / "mutated.wav"
        path.write_bytes(mutated(rng.choice(whole), rng))
        yield f"case {number} of seed {seed}", partial(read, path, measured)


def read(path: Path, measured: bool) -> None:
    """What a manifest and an experiment do with a recording; the samples have to be finite, of the length told."""
    samples = read_audio(path, RATE)
    if not np.isfinite(samples).all() or abs(len(samples) / RATE - seconds_of(path)) > 0.11:
        raise AssertionError(f"{len(samples)} samples where {seconds_of(path):.2f} s are told")
    if measured:
        acoustics(samples, RATE)


if __name__ == "__main__":
    main(cases, 3000)
