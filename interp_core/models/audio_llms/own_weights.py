"""Weights of models that come in a layout of their own: what the files hold, told by their headers, against what a
network wants; tensors are read when they are asked for."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from interp_core.errors import InterpError, few
from interp_core.models.fit import unwrapped
from interp_core.models.inside import read_weights
from interp_core.models.source import first_line
from interp_core.models.torch_file import SAFE

Net = TypeVar("Net", bound=PreTrainedModel)
Renamed = Callable[[str], str | None]


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, by its name there."""

    file: Path
    name: str
    shape: tuple[int, ...]


def shards(folder: Path) -> list[Path]:
    """Return the weight files; InterpError when there are none."""
    if found := [file for file in read_weights(folder) if file.suffix == SAFE]:
        return found
    raise InterpError(f"{folder} lacks the weights model.safetensors; fetch them again.")


def stored_in(folder: Path, renamed: Renamed = lambda name: name) -> dict[str, Stored]:
    """The tensors of a folder's weight files; nothing but the headers is read.

    Args:
        renamed: the name of a tensor in the network, by that in the file, where a wrapper's prefix is left out
            already; None leaves it out.
    """
    found: dict[str, Stored] = {}
    for file in shards(folder):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():
                    if (wanted := renamed(unwrapped(name))) is not None:
                        found[wanted] = Stored(file, name, tuple(opened.get_slice(name).get_shape()))
        except (SafetensorError, OSError) as error:
            raise InterpError(
                f"{file.name} in {folder} cannot be read ({first_line(error)}); it may be cut short, fetch it again."
            ) from error
    return found


def check_weights(
    folder: Path, stored: Mapping[str, Stored], network: Callable[[], nn.Module], title: str, not_read: Iterable[str]
) -> None:
    """Compare names and shapes with those of a network.

    Args:
        folder: for messages.
        stored: by the names of the network.
        network: makes it, on the meta device.
        title: what the network is called.
        not_read: patterns of names that may be left over.
    """
    with torch.device("meta"):
        made = network()
    wanted = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    tied: set[str] = set(getattr(made, "all_tied_weights_keys", ()))
    if absent := sorted(wanted.keys() - stored.keys() - tied):
        raise InterpError(f"the weights in {folder} lack {few(absent)}; fetch all of its weight files again.")
    left = "|".join(not_read)
    if extra := sorted(n for n in stored.keys() - wanted.keys() if not re.search(left, n)):
        raise InterpError(
            f"the weights in {folder} hold {few(extra)}, which {title} as Patchbay knows it has not; they would be "
            "left out without a word."
        )
    shared = sorted(wanted.keys() & stored.keys())
    if other := [
        f"{n} {list(stored[n].shape)} instead of {list(wanted[n])}" for n in shared if stored[n].shape != wanted[n]
    ]:
        raise InterpError(
            f"the weights in {folder} do not fit its config.json: {few(other)}; take both from one model."
        )


def load(
    network: type[Net], folder: Path, config: Any, stored: Mapping[str, Stored], title: str, not_read: Iterable[str],
    **how: Any,
) -> Net:  # fmt: skip
    """The network with the weights of the files, which are compared with it before the first one is read.

    Args:
        folder, stored, title, not_read: as of `check_weights`.
        config: of the network.
        how: further arguments of the library's `from_pretrained`.
    """
    check_weights(folder, stored, lambda: network(config), title, not_read)
    made: Net = network.from_pretrained(None, config=config, state_dict=slices(stored, not_read), **how)
    return made


def slices(stored: Mapping[str, Stored], not_read: Iterable[str]) -> dict[str, Any]:
    """What the library takes as a state dict: safetensors' slices, each read when its turn comes."""
    opened = {file: safe_open(file, framework="pt") for file in {one.file for one in stored.values()}}
    left = "|".join(not_read)
    return {name: opened[one.file].get_slice(one.name) for name, one in stored.items() if not re.search(left, name)}
