"""A small manifest with splits for the two experiments on neurons, and a tiny encoder that answers its labels."""

from pathlib import Path

import soundfile

from tests.corpus import sound, write_manifest
from tests.families.encoders import EMOTIONS, save_wavlm
from tests.tiny import RATE

COLUMNS = ("clip_id", "path", "text_id", "prosody_label", "speaker", "split")
SPLITS = {"s0": "train", "s1": "train", "s2": "ood"}


def write_clips(folder: Path, *, texts: int = 8, split: bool = True) -> Path:
    """`texts` sentences by three speakers, two emotions; a quarter of the texts of s0 and s1 is for validation."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for text in range(texts):
        for voice in range(3):
            name = f"t{text}-s{voice}"
            soundfile.write(folder / f"{name}.wav", sound(text, voice, 0.3 + 0.05 * (text % 2)), RATE, subtype="FLOAT")
            part = "id_val" if voice < 2 and text % 4 == 3 else SPLITS[f"s{voice}"]
            row = (name, f"{name}.wav", f"t{text}", EMOTIONS[(text + voice) % 2], f"s{voice}")
            rows.append((*row, part) if split else row)
    return write_manifest(folder / "clips.csv", rows, COLUMNS if split else COLUMNS[:-1])


def write_model(folder: Path) -> Path:
    return save_wavlm(folder, n_layers=3)
