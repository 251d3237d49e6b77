"""Twelve made-up recordings with labels, unlike enough that a random model answers them differently."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from interp_core.choices import DEFAULT_PROMPT
from interp_core.experiments.patching.request import PatchRequest
from tests.tiny import LABELS, RATE

LOGITS = ["base_logits", "donor_logits", "patched_logits"]
COLUMNS = ("clip_id", "path", "text_id", "prosody_label", "semantic_label", "speaker")


def sound(text: int, voice: int, seconds: float) -> np.ndarray:
    """A chopped chirp in noise, float32 [n_samples]; text and voice set its pitch, rhythm, level and noise."""
    time = np.arange(int(seconds * RATE)) / RATE
    level, noise = (0.8, 0.2, 0.05)[voice], (0.001, 0.05, 0.3)[(voice + text) % 3]
    chirp = level * np.sin(2 * np.pi * (100 + 300 * voice + 40 * text) * time * (1 + time * voice))
    chopped = chirp * (np.sin(2 * np.pi * (3 + 4 * text) * time) > 0)
    return (chopped + noise * np.random.default_rng(10 * text + voice).standard_normal(len(time))).astype(np.float32)


def write_corpus(folder: Path, *, texts: int = 4) -> Path:
    """Write texts x 3 voices of 0.4 to 0.8 s and their manifest; a text's meaning is one of three labels."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for text in range(texts):
        for voice in range(3):
            name = f"t{text}-{LABELS[voice]}"
            seconds = 0.4 + 0.13 * ((text + 2 * voice) % 4)
            soundfile.write(folder / f"{name}.wav", sound(text, voice, seconds), RATE, subtype="FLOAT")
            rows.append((name, f"{name}.wav", f"t{text}", LABELS[voice], LABELS[text % 3], f"s{voice}"))
    return write_manifest(folder / "clips.csv", rows)


def write_manifest(path: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = COLUMNS) -> Path:
    path.write_text("\n".join(",".join(row) for row in [columns, *rows]) + "\n")
    return path


def quick_request(model: Path, manifest: Path) -> PatchRequest:
    """Matched pairs of one kind under one prompt, nothing else: 36 records."""
    return PatchRequest(
        str(model), str(manifest), device="cpu", kinds="prosody", max_pairs=6,
        controls=(), flow=(), checks=False, batch_size=3,
    )  # fmt: skip


def full_request(model: Path, manifest: Path) -> PatchRequest:
    """Both kinds under two prompts and two strengths, with every check, control and curve."""
    return PatchRequest(
        str(model), str(manifest), device="cpu", max_pairs=4,
        prompts=(DEFAULT_PROMPT, "Judge the voice."), alphas=(1.0, 0.5), batch_size=3,
    )  # fmt: skip


def assert_same_records(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal to the last digit."""
    pd.testing.assert_frame_equal(found.drop(columns=LOGITS), expected.drop(columns=LOGITS))
    for column in LOGITS:
        assert found[column].tolist() == expected[column].tolist()
