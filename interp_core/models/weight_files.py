"""Weight files of other code bases, told apart by what is in them: countermeasures, msclap, ResNets."""

from dataclasses import replace
from pathlib import Path

import torch

from interp_core.errors import InterpError
from interp_core.models.arch import ENCODERS
from interp_core.models.clap.msclap import open_msclap
from interp_core.models.clap.subject import MsclapAudio
from interp_core.models.countermeasure.checkpoint import load_countermeasure
from interp_core.models.countermeasure.subject import SpoofDetector
from interp_core.models.resnet.subject import RESNET, ImageClassifier
from interp_core.models.resnet.weights import open_resnet
from interp_core.models.subject import Subject
from interp_core.models.torch_file import file_hash, read_weight_file

_IN_A_RUN = ("checkpoints/best.pt", "best.pt")
_SAVED = (".pt", ".pth", ".ckpt", ".tar")


def weight_file_of(source: str) -> Path | None:
    """Return the checkpoint file that a path names, itself or as a run folder; None for anything else."""
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    return next((path / inside for inside in _IN_A_RUN if (path / inside).is_file()), None)


def open_weight_file(name: str, file: Path, device: torch.device, dtype: torch.dtype) -> Subject:
    """Open a file by what it holds.

    Raises:
        InterpError: weights of a library folder without the folder, a file that is none of the known kinds, or broken.
    """
    if file.suffix not in _SAVED:
        raise InterpError(
            f"{name} is a file; give the folder that holds config.json and the weights, or a checkpoint file of a "
            f"known kind ({', '.join(_SAVED)})."
        )
    saved = read_weight_file(file)
    inside = saved.get("model", saved) if isinstance(saved, dict) else {}
    keys = inside if isinstance(inside, dict) else {}
    if isinstance(saved, dict) and "model_state_dict" in saved and "config" in saved:
        return SpoofDetector.of(name, load_countermeasure(file, dtype), device)
    if any("audio_encoder.base." in str(key) for key in keys):  # a captioner's stand below a further name
        # The text tower's tokenizer is not in the file: it is looked for in a folder of that name beside it.
        beside = file.parent / "tokenizer"
        msclap = open_msclap(file, beside if beside.is_dir() else None).to(device, dtype)
        row = replace(ENCODERS["clap"], body="audio_model")
        return MsclapAudio(name, msclap.weights_hash, msclap, row)
    return ImageClassifier(name, file_hash(file), open_resnet(file).to(device, dtype), RESNET)
