"""Weight files of other code bases, told apart by what is in them: countermeasures, msclap, ResNets."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from interp_core.errors import InterpError
from interp_core.models.arch import ENCODERS
from interp_core.models.clap.msclap import open_msclap
from interp_core.models.clap.subject import MsclapAudio
from interp_core.models.countermeasure.checkpoint import load_countermeasure
from interp_core.models.countermeasure.published import check_whole, load_published, plain_names, system_of
from interp_core.models.countermeasure.published_subject import PublishedDetector
from interp_core.models.countermeasure.raw import is_raw, load_raw
from interp_core.models.countermeasure.raw_subject import RawDetector
from interp_core.models.countermeasure.subject import SpoofDetector
from interp_core.models.countermeasure.systems import SYSTEMS
from interp_core.models.resnet.subject import RESNET, ImageClassifier
from interp_core.models.resnet.weights import WRAPPERS, open_resnet
from interp_core.models.subject import Subject
from interp_core.models.torch_file import SAFE, file_hash, is_state, read_weight_file
from interp_core.storage import read_json

_IN_A_RUN = ("checkpoints/best.pt", "best.pt")
_SAVED = (".pt", ".pth", ".ckpt", ".tar", SAFE)


def weight_file_of(source: str) -> Path | None:
    """Return the checkpoint file that a path names: itself, a run folder, or one that holds a single such file and is
    neither a model in the Hugging Face layout nor an adapter; None for anything else."""
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir() or _in_library_layout(path / "config.json"):
        return None
    own = (path / "config.json").exists()  # of a hub's, which says what the weights are, but not in the library's words
    in_run = next((path / inside for inside in _IN_A_RUN if (path / inside).is_file()), None)
    if in_run is not None and not own:
        return in_run
    alone = [file for file in path.iterdir() if file.suffix in _SAVED and file.is_file()]
    if len(alone) != 1 or (path / "adapter_config.json").exists():
        return None
    return None if own and not (alone[0].suffix == SAFE and system_of(_names(alone[0]))) else alone[0]


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
    if file.suffix == SAFE and not _is_known(file):
        lacks = "is a file" if Path(name) == file else "holds no config.json, so it is no model folder"
        raise InterpError(
            f"{name} {lacks}; give the folder that holds config.json and the weights, or a countermeasure that is "
            f"known here ({', '.join(system.name for system in SYSTEMS)})."
        )
    saved = read_weight_file(file)
    if (detector := _published(name, file, saved, device, dtype)) is not None:
        return detector
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


def _published(name: str, file: Path, saved: Any, device: torch.device, dtype: torch.dtype) -> Subject | None:
    """A published countermeasure, where the file is one; None of any other file."""
    inside = saved
    while isinstance(inside, dict) and not is_state(inside):
        inside = next((inside[key] for key in WRAPPERS if isinstance(inside.get(key), dict)), None)
    if inside is None or not is_state(inside):
        return None
    weights = plain_names(inside)
    if is_raw(weights):
        return RawDetector.of(name, file_hash(file), load_raw(file, weights, dtype), device)
    if (system := system_of(weights)) is None:
        check_whole(file, weights)
        return None
    return PublishedDetector.of(name, load_published(file, system, weights, dtype), device)


def _is_known(file: Path) -> bool:
    """Whether a file of safetensors is a published countermeasure, told by its names."""
    names = _names(file)
    if system_of(names) is None:
        check_whole(file, names)
        return False
    return True


def _names(file: Path) -> dict[str, Any]:
    """The plain names of a file of safetensors; none of one that is broken, which its reader says."""
    try:
        with safe_open(file, "pt") as held:
            return plain_names(dict.fromkeys(held.keys()))
    except (OSError, SafetensorError):
        return {}


def _in_library_layout(config: Path) -> bool:
    """Whether a folder's config names a type of the library's; so does one that cannot be read, for its reader to say
    why."""
    try:
        return "model_type" in read_json(config) if config.exists() else False
    except (InterpError, TypeError):
        return True
