"""Adapters as the package peft writes them: where one lies, on which base it goes, and what it says of itself.

An adapter is a folder with adapter_config.json and adapter_model.safetensors (or .bin). Named beside a model
(`--adapter`) it is merged into that model's weights (merge.py); named as the model itself it brings its base along.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from interp_core.digests import digest_of
from interp_core.errors import InterpError, few
from interp_core.models.bases import find_base, local_base_of, shown
from interp_core.models.inside import OF_ADAPTERS, OF_TRAINING, SETTINGS, adapter_files, other_adapters

NONE = "none"
"""What `--adapter` takes to leave out the adapter that lies beside a model's weights."""
_OF_A_MODEL = ("*.safetensors", "*.bin", "*.pt", "*.pth")
_NO_WEIGHTS = frozenset({*OF_ADAPTERS, *OF_TRAINING})


def is_alone(folder: Path) -> bool:
    """Whether a folder holds an adapter and no weights of a model."""
    if not (folder / SETTINGS).is_file():
        return False
    return not any(path.name not in _NO_WEIGHTS for pattern in _OF_A_MODEL for path in folder.glob(pattern))


def with_base(name: str, source: str, asked: str) -> tuple[str, Path | None]:
    """Where the weights lie, and the folder of the adapter that goes into them; None for no adapter.

    Args:
        name: the model as it was typed.
        source: the folder or file that it leads to.
        asked: the adapter: a folder, the model's own name for the one inside its folder, `none`, or "".
    Raises:
        InterpError: no such adapter, one whose base is not here, or two where one is expected.
    """
    alone = is_alone(Path(source))
    if asked == NONE and alone:
        raise InterpError(
            f"{name} is an adapter without a model, so nothing is left of it with --adapter none; name its base as the "
            "model."
        )
    if asked in ("", NONE):
        return (base_of(name, Path(source)), Path(source)) if alone else (source, None)
    folder = Path(source) if asked == name else Path(asked).expanduser()
    if alone and folder != Path(source):
        raise InterpError(
            f"{name} is itself an adapter, and one is all that a model takes; name its base as the model."
        )
    try:
        there = (folder / SETTINGS).is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        raise InterpError(
            f"the adapter {shown(asked)} is no folder with {SETTINGS}; give the folder that peft's save_pretrained "
            "wrote, or none."
        )
    return (base_of(name, folder), folder) if alone else (source, folder)


def base_of(name: str, folder: Path) -> str:
    """The folder of the model that an adapter was trained on; its own settings name it.

    bases.py says where it is looked for.

    Args:
        name: the adapter as it was typed.
        folder: where it lies.
    Raises:
        InterpError: it names none, or one that is not here.
    """
    said = settings_of(name, folder).get("base_model_name_or_path")
    way = f"name the base yourself (--model BASE --adapter {name})"
    if not isinstance(said, str) or not said.strip():
        raise InterpError(f"{SETTINGS} of {name} names no base_model_name_or_path to go onto; {way}.")
    found = find_base(name, said)
    if found is None:
        raise InterpError(
            f"the base of the adapter {name}, {shown(said)}, is neither a folder here nor in the hub's cache; fetch "
            f"it, or {way}."
        )
    if is_alone(found):
        raise InterpError(f"the base of the adapter {name}, {shown(said)}, is itself an adapter; {way}.")
    return str(found)


def local_base(name: str) -> Path | None:
    """The folder on this machine that an adapter names as its base; None for any other model, or where none is."""
    try:
        folder = Path(name).expanduser()
        if not folder.is_dir() or not is_alone(folder):
            return None
        return local_base_of(name, settings_of(name, folder).get("base_model_name_or_path"))
    except (InterpError, OSError, ValueError, RuntimeError):
        return None


def refuse_beside(name: str, folder: Path) -> None:
    """Refuse a model folder with an adapter in it, or in a folder below, about which nothing was said: it stands for
    several models."""
    if not (found := other_adapters(folder)):
        return
    if found == [folder]:
        where, way = f"beside them an adapter ({adapter_files(folder)[0].name})", name
    else:
        below = [str(one.relative_to(folder)) for one in found if one != folder]
        where, way = f"below them {'an adapter' if len(below) == 1 else 'adapters'} ({few(below)})", str(found[-1])
    raise InterpError(
        f"{name} holds weights and {where}, so it stands for {'two' if len(found) == 1 else 'several'} models; open it "
        f"with the adapter (--adapter {way}) or without (--adapter none)."
    )


def settings_of(name: str, folder: Path) -> dict[str, Any]:
    """What adapter_config.json says. Errors: InterpError where it is missing or broken."""
    try:
        about = json.loads((folder / SETTINGS).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InterpError(
            f"{SETTINGS} of {name} is missing or broken; copy it again from where it was made."
        ) from error
    if not isinstance(about, dict):
        raise InterpError(f"{SETTINGS} of {name} holds no settings; copy it again from where it was made.")
    return about


def hash_with(base: str, folder: Path | None) -> str:
    """The hash of a base's weights and of an adapter's files together; the base's own for no adapter."""
    if folder is None:
        return base
    total = hashlib.sha256(bytes.fromhex(base))
    for path in adapter_files(folder):
        total.update(path.name.encode() + bytes.fromhex(digest_of(path)))
    return total.hexdigest()
