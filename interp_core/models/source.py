"""Where a model's name leads, and how what a library says of a broken file becomes one sentence."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from interp_core.errors import InterpError
from interp_core.models.bundled import demos

WEIGHTS = (
    *("*.safetensors", "*.safetensors.index.json", "*.bin", "*.pt", "*.pth"),
    *("adapter_config.json", "*/adapter_config.json", "*/adapter_model.safetensors"),
)
"""What decides a folder's weights; adapters' settings scale theirs."""


def resolve(name: str) -> str:
    """Turn a bundled name, a folder, a weight file or a hub id into the path or the id that it stands for.

    Raises:
        InterpError: it is none of these, or may not be read.
    """
    if name in demos():
        return str(demos()[name].model_dir)
    path = Path(name).expanduser()
    try:
        if path.is_file():
            if not os.access(path, os.R_OK):
                raise InterpError(f"{name} may not be read; change its permissions.")
            return str(path)
        if path.is_dir():
            files = [file for file in path.iterdir() if file.is_file()]
            if closed := sorted(file.name for file in files if not os.access(file, os.R_OK)):
                # Left to the library, this would come out as a file that does not exist.
                raise InterpError(f"{', '.join(closed)} in {name} may not be read; change the permissions.")
            return str(path)
    except PermissionError as error:
        raise InterpError(f"{name} may not be read ({error.strerror}); change its permissions.") from error
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    known = ", ".join(demos()) or "none here"
    raise InterpError(
        f"{name!r} is no bundled model ({known}), no folder or file on this machine, and no hub id of the form "
        "owner/model."
    )


def reading(name: str, part: str, read: Callable[[], Any]) -> Any:
    """Run one loading step; what the library raises becomes one sentence."""
    try:
        return read()
    except InterpError:
        raise
    except pickle.UnpicklingError as error:
        raise InterpError(
            f"the {part} of {name} are a pickle with more in it than tensors, which could run code, so it is not read; "
            "save the weights anew as safetensors."
        ) from error
    except (SafetensorError, EOFError, RuntimeError) as error:
        raise InterpError(
            f"the {part} of {name} cannot be read: {first_line(error)}; the file may be cut short, fetch it again."
        ) from error
    except json.JSONDecodeError as error:
        raise InterpError(f"a JSON file of {name}'s {part} is broken ({error}); fetch it again.") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        reason = first_line(error)
        if part == "processor":
            raise InterpError(
                f"{name} has no processor that can be read ({reason}); copy processor_config.json, "
                "preprocessor_config.json and the tokenizer files of the original model into its folder."
            ) from error
        raise InterpError(f"the {part} of {name} cannot be read: {reason}") from error


def refuse_absent(name: str, missing: Iterable[str]) -> None:
    """Refuse a model whose weights lack tensors; the library makes up random ones and goes on with a warning."""
    if absent := sorted(missing):
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise InterpError(
            f"the weights of {name} lack {', '.join(absent[:3])}{more}; fetch all of its weight files again."
        )


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its class where it says nothing."""
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__


def weights_hash(source: str) -> str:
    """Return the sha256 of a weight file, or of the weight files of a folder."""
    path = Path(source)
    total = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(f for pattern in WEIGHTS for f in path.glob(pattern)):
        with file.open("rb") as handle:
            total.update(file.name.encode() + hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()
