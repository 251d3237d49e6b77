"""What lies in a model's folder: the files that decide its weights, adapters that are part of it, and adapters that
would make another model of it."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from interp_core.digests import digest_of
from interp_core.errors import InterpError, few
from interp_core.models.arch import ARCHS
from interp_core.models.source import first_line
from interp_core.stand_ins import stand_in

CONFIG = "config.json"
SETTINGS = "adapter_config.json"
OF_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
OF_TRAINING = frozenset(
    {"trainer_state.json", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"}
    | {f"{part}_results.json" for part in ("all", "eval", "train", "predict", "test")}
)
"""What a trainer leaves beside a model and nothing reads."""
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.pt", "*.pth")
_READ_FIRST = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What the library looks for, in its order; of a list of shards it reads all."""
_ENDS = (".safetensors", ".bin", ".pt", ".pth")


def weight_files(source: str | Path) -> list[Path]:
    """What decides the weights of a folder, or of a file, which is that file itself.

    An adapter is among them where the model's type has it as a part; any other changes no weight until it is merged.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    apart = {SETTINGS, *OF_ADAPTERS, *OF_TRAINING}
    found = {file for pattern in _WEIGHTS for file in path.glob(pattern) if file.is_file() and file.name not in apart}
    return sorted(found | set(own_adapter(path)))


def weights_hash(source: str | Path) -> str:
    """Return the sha256 of a weight file, or of the weight files of a folder."""
    total = hashlib.sha256()
    for file in weight_files(source):
        total.update(file.name.encode() + bytes.fromhex(digest_of(file)))
    return total.hexdigest()


# ---- adapters --------------------------------------------------------------------------------------------------------


def adapter_files(folder: Path) -> list[Path]:
    """The files of the adapter in a folder, its settings first; [] where there is none."""
    return [path for path in (folder / name for name in (SETTINGS, *OF_ADAPTERS)) if path.is_file()]


def own_adapter(folder: Path) -> list[Path]:
    """The files of the adapter that a model of this type is made with, where its folder holds one."""
    row = ARCHS.get(_model_type(folder))
    return [] if row is None or row.adapter is None else adapter_files(folder / row.adapter)


def other_adapters(folder: Path) -> list[Path]:
    """The folders, this one or below it, with an adapter that is no part of the model: it stands for another model."""
    row = ARCHS.get(_model_type(folder))
    parts = set() if row is None else {folder / one for one in (row.adapter, *row.unheard) if one is not None}
    places = [path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{SETTINGS}")]
    inside = sorted(one for one in places if not any(part.startswith(".") for part in one.relative_to(folder).parts))
    return [one for one in [*([folder] if adapter_files(folder) else []), *inside] if one not in parts]


def _model_type(folder: Path) -> str:
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    return str(config.get("model_type")) if isinstance(config, dict) else ""


# ---- what is not there -----------------------------------------------------------------------------------------------


def read_weights(folder: Path) -> list[Path]:
    """The files that the weights of a folder in the library's layout are read from, missing ones too; [] where there is
    none of the names that it looks for.

    Raises:
        InterpError: a list of shards that is broken.
    """
    first = next((folder / name for name in _READ_FIRST if (folder / name).is_file()), None)
    if first is None or first.suffix != ".json" or stand_in(first):
        return [] if first is None else [first]
    try:
        names = sorted(set(json.loads(first.read_text("utf-8"))["weight_map"].values()))
        if outside := [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]:
            raise ValueError(f"it lists {outside[0]!r:.80}, outside the folder")
        return [first, *(folder / name for name in names)]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InterpError(f"{first.name} in {folder} is broken ({first_line(error)}); fetch it again.") from error


def check_whole(name: str, source: str | Path, files: Iterable[Path]) -> None:
    """Refuse a model of which a file is not there, or is a pointer to what it should hold.

    Args:
        name: for messages.
        source: its folder, or the weight file that it is.
        files: those that decide its numbers. Of weights in a folder in the library's layout only those count that are
            read: others may stay pointers.
    Raises:
        InterpError: the first such file, by its name, and how to fetch it.
    """
    read = read_weights(Path(source))
    for file in files:
        if read and file.name.endswith(_ENDS) and file.parent == Path(source) and file not in read:
            continue
        try:
            said = stand_in(file)
        except OSError:  # its reader says why
            continue
        if said:
            raise InterpError(f"{name} cannot be opened: {file.name} {said}.")
    if absent := [file.name for file in read if not file.exists()]:
        raise InterpError(
            f"the weights of {name} lack {few(absent)}, which {read[0].name} lists; fetch all of its weight files "
            "again."
        )
