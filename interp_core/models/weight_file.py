"""Weight files of other code bases: one torch.save file, read without running anything that is in it."""

import hashlib
import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp_core.errors import InterpError


def read_weight_file(path: Path | str, *, save: str = "save its state dict alone") -> Any:
    """Return what torch.save wrote, on the CPU; tensors of a zip file stay on disk until they are used.

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
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise InterpError(f"{file} is no file of torch.save, or is cut short; fetch it again.") from error


def file_hash(path: Path | str) -> str:
    """The sha256 of a file, in hex."""
    with Path(path).expanduser().open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def is_state(value: Any) -> bool:
    """Whether a value is a state dict: names with tensors."""
    return isinstance(value, dict) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def some(names: Iterable[str], most: int = 4) -> str:
    """List names for a message, a few of them and how many more there are."""
    found = sorted(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more
