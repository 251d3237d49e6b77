"""Model folders below a folder, told by their files alone: nothing is opened."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interp_core.errors import InterpError
from interp_core.models.audio_llms.layouts import layout_of
from interp_core.models.families import Family, families, family_of
from interp_core.models.lacking import part_in
from interp_core.models.weight_files import weight_file_of
from interp_core.storage import read_json

WEIGHTS = (".safetensors", ".bin")
COUNTERMEASURE, IN_A_RUN = "countermeasure", "best.pt"


@dataclass(frozen=True)
class Found:
    """A model on this machine: where it lies, and the entry of the list of families that it opens by."""

    path: Path
    family: Family


def family_at(folder: Path, known: list[Family] | None = None) -> Family | None:
    """The family of a model folder, or of what looks like a countermeasure's run or its file; None for anything else,
    for a part of other models alone, and for what lacks its weights or has a config that cannot be read."""
    known = families() if known is None else known
    if (file := weight_file_of(str(folder))) is not None:
        return next((one for one in known if one.name == COUNTERMEASURE), None) if file.name == IN_A_RUN else None
    try:
        if not any(name.endswith(WEIGHTS) for name in os.listdir(folder)):
            return None
        if (own := layout_of(folder)) is not None:
            return family_of(own, known)
        config = read_json(folder / "config.json")
        return None if part_in(config) is not None else family_of(str(config.get("model_type", "")), known)
    except (InterpError, OSError, ValueError, AttributeError):
        return None


def find_models(root: Path, most_folders: int) -> Iterator[Found]:
    """Yield the models below a folder, by path. Hidden folders, links and what lies inside a model are not searched.

    Args:
        most_folders: how many folders are looked into.
    Raises:
        InterpError: there are more.
    """
    known = families()
    for number, (place, folders, _) in enumerate(os.walk(root)):
        if number >= most_folders:
            raise InterpError(
                f"{root} holds more than {most_folders} folders; a model in one that was not looked into can be typed."
            )
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (family := family_at(Path(place), known)) is not None:
            folders.clear()
            yield Found(Path(place), family)
