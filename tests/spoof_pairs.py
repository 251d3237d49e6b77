"""Pairs of tiny countermeasures of one shape, and made-up utterances in several codecs for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from tests.models.test_countermeasure import N_LAYERS, checkpoint

CODECS = ("NONE", "C01", "C02")
RATE = 16_000
COLUMNS = ("clip_id", "path", "label", "speaker", "utterance", "codec", "attack_label")
__all__ = ["CODECS", "COLUMNS", "N_LAYERS", "save_pair", "write_spoof_corpus"]


def save_pair(folder: Path, kind: str, *, block: int = 2, noise: float = 0.3) -> tuple[Path, Path]:
    """Write two checkpoints of one shape.

    Args:
        kind: `frozen` shares the backbone and differs in all behind it; `tuned` differs from a block on; `block`
            differs in that block alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base, donor = checkpoint(seed=0), checkpoint(method="dann", seed=1)
    mine, theirs = base["model_state_dict"], donor["model_state_dict"]
    made = torch.Generator().manual_seed(7)
    for name, value in mine.items():
        layer = _layer(name)
        if name.startswith("backbone.model."):
            changed = kind == "tuned" and layer is not None and layer >= block or kind == "block" and layer == block
            theirs[name] = value + noise * torch.randn(value.shape, generator=made) if changed else value.clone()
        elif kind == "block":
            theirs[name] = value.clone()
    paths = tuple(folder / f"{kind}-{side}.pt" for side in ("erm", "dann"))
    for path, state in zip(paths, (base, donor), strict=True):
        torch.save(state, path)
    return paths  # type: ignore[return-value]


def _layer(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[parts.index("layers") + 1]) if "layers" in parts else None


def write_spoof_corpus(
    folder: Path, *, speakers: int = 4, utterances: int = 2, codecs: Sequence[str] = CODECS, columns: Any = None
) -> Path:
    """Write speakers x utterances x codecs clips of each class, and their manifest. Spoofed speech is brighter."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label in ("bonafide", "spoof"):
        for speaker in range(speakers):
            for utterance in range(utterances):
                rng = np.random.default_rng([speaker, utterance, label == "spoof"])
                time = np.arange(int(0.2 * RATE)) / RATE
                pitch = 150 + 40 * speaker + (900 if label == "spoof" else 0)
                voice = np.sin(2 * np.pi * pitch * time * (1 + 0.3 * time)) + 0.1 * rng.standard_normal(len(time))
                for number, codec in enumerate(codecs):
                    name = f"{label}-s{speaker}-u{utterance}-{codec}"
                    heard = 0.3 * np.convolve(voice, np.ones(1 + 3 * number) / (1 + 3 * number), "same")
                    soundfile.write(folder / f"{name}.wav", heard.astype(np.float32), RATE, subtype="FLOAT")
                    attack = "bonafide" if label == "bonafide" else f"A{speaker % 2}"
                    values = (
                        name,
                        f"{name}.wav",
                        label,
                        f"{label[0]}{speaker}",
                        name.rpartition("-")[0],
                        codec,
                        attack,
                    )
                    rows.append(dict(zip(COLUMNS, values, strict=True)))
    shown = columns or COLUMNS
    lines = [",".join(shown), *(",".join(row[c] for c in shown) for row in rows)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"
