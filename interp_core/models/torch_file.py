"""Weight files of other code bases: one file of torch.save or safetensors, read without running what is in it."""

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from interp_core.digests import digest_of
from interp_core.errors import InterpError, few

SAFE = ".safetensors"


def read_weight_file(path: Path | str, *, save: str = "save its state dict alone") -> Any:
    """Return what torch.save wrote, or a file of safetensors, on the CPU; tensors of a zip file stay on disk until they
    are used.

    Args:
        path: the file.
        save: what a person who trusts a file with more in it is told to do, as the end of a sentence.
    Raises:
        InterpError: no such file, no file of torch.save, or one with more in it than tensors and plain values
            (it is not read then).
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InterpError(f"{file} is no file; give the weight file itself.")
    if file.suffix == SAFE:
        return load_file(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except PermissionError as error:
        raise InterpError(f"{file} may not be read; change its permissions.") from error
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused is None:
            raise InterpError(f"{file} is no file of torch.save, or is cut short; fetch it again.") from error
        raise InterpError(
            f"{file} holds {refused.group(1)}, which is neither a tensor nor a plain value and could run code when "
            "read, so it was not read; where you trust the file, open it with torch.load(..., weights_only=False) and "
            f"{save}."
        ) from error
    except Exception as error:  # a damaged pickle may raise anything
        raise InterpError(f"{file} is no file of torch.save, or is cut short; fetch it again.") from error


def file_hash(path: Path | str) -> str:
    """The sha256 of a file, in hex."""
    return digest_of(Path(path).expanduser())


def is_state(value: Any) -> bool:
    """Whether a value is a state dict: names with tensors."""
    return isinstance(value, dict) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def some(names: Iterable[str], most: int = 4) -> str:
    """Names in order for a message; see `few`."""
    return few(sorted(names), most)


def left_over(weights: Mapping[str, Tensor], held: Mapping[str, Tensor], may_lack: Sequence[str] = ()) -> str:
    """What weights lack of those that a model holds, and what they hold besides, for a message; "" for neither.

    Args:
        may_lack: endings of names without which a model does.
    """
    missing = {name for name in set(held) - set(weights) if not name.endswith(tuple(may_lack))}
    faults = {"lacks {}": missing, "holds {} besides": set(weights) - set(held)}
    return " and ".join(said.format(some(names)) for said, names in faults.items() if names)


def unlike(weights: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> str:
    """The weights that have another shape than a model's, for a message; "" for none."""
    shapes = {name: (tuple(value.shape), tuple(held[name].shape)) for name, value in weights.items()}
    return some(f"{name} {given} where {fits} fits" for name, (given, fits) in shapes.items() if given != fits)
