"""Where a model's name leads, and how what a library says of a broken file becomes one sentence."""

import json
import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from interp_core.errors import InterpError, few
from interp_core.models.bundled import demos


def resolve(name: str) -> str:
    """Turn a bundled name, a folder, a weight file or a hub id into the path or the id that it stands for.

    Raises:
        InterpError: it is none of these, or may not be read.
    """
    if not name.strip():
        raise InterpError("the model's name is empty; give a bundled name, a folder, a file or a hub id.")
    if name in demos():
        return str(demos()[name].model_dir)
    try:
        path = Path(name).expanduser()
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
    except InterpError:
        raise
    except PermissionError as error:
        raise InterpError(f"{name} may not be read ({error.strerror}); change its permissions.") from error
    except (OSError, ValueError, RuntimeError) as error:  # a link loop, a name too long, a NUL in it, no such user
        raise InterpError(f"{_shown(name)} leads nowhere ({first_line(error)}); give a folder or a file.") from error
    if is_hub_id(name):
        return name
    known = ", ".join(demos()) or "none here"
    raise InterpError(
        f"{_shown(name)!r} is no bundled model ({known}), no folder or file on this machine, and no hub id of the form "
        "owner/model."
    )


def is_hub_id(name: str) -> bool:
    """Whether a name has the form owner/model."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def reading(name: str, part: str, read: Callable[[], Any]) -> Any:
    """Run one loading step; what the library raises becomes one sentence."""
    try:
        return read()
    except InterpError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InterpError(
            f"the {part} of {name} do not fit into the memory; choose half precision (--dtype bfloat16), of an audio "
            "LLM fewer bits (--dtype int4), or another device."
        ) from error
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
    except Exception as error:  # whatever a library makes of a broken file, its own classes of error among them
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
        raise InterpError(f"the weights of {name} lack {few(absent)}; fetch all of its weight files again.")


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, with the next where it only announces that; its class where it says
    nothing."""
    text = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(text[: 2 if text[0].endswith(":") else 1])[:300] if text else type(error).__name__


def _shown(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:80]}... ({len(name)} letters)"
