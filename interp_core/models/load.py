"""Opening a model: a bundled name, a local folder in the Hugging Face layout, or a hub id."""

import hashlib
import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor

from interp_core.errors import InterpError
from interp_core.models.arch import arch_of
from interp_core.models.audio_llm import AudioLLM
from interp_core.models.bundled import demos
from interp_core.models.subject import Subject

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.pt")


def pick_device(device: str) -> torch.device:
    """Turn auto, cpu, cuda or cuda:N into a device that is here; InterpError says what is."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InterpError(f"device {device!r} is none of auto, cpu, cuda, cuda:N.") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InterpError(f"device {device!r} asked for, but {torch.cuda.device_count()} GPUs are visible; use cpu.")
    if chosen.type not in ("cpu", "cuda"):
        raise InterpError(f"device {device!r} is none of auto, cpu, cuda, cuda:N.")
    return chosen


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Turn auto, float32, bfloat16 or float16 into a dtype; auto is float32 on the CPU and bfloat16 on a GPU."""
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise InterpError(f"dtype {dtype!r} is none of auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def open_model(name: str, *, device: str = "auto", dtype: str = "auto") -> Subject:
    """Open a model by bundled name, folder or hub id.

    Args:
        name: `demo-emotion`, a folder with config.json, or `owner/model` on the hub.
        device: auto, cpu, cuda or cuda:N.
        dtype: auto, float32, bfloat16 or float16.
    Raises:
        InterpError: one sentence that says why it cannot be opened and what to do.
    """
    where = pick_device(device)
    precision = pick_dtype(dtype, where)
    source = _resolve(name)
    config = _reading(name, "config", lambda: AutoConfig.from_pretrained(source, trust_remote_code=False))
    arch = arch_of(config)
    processor = _reading(name, "processor", lambda: AutoProcessor.from_pretrained(source, trust_remote_code=False))
    if not hasattr(processor, "feature_extractor") or not hasattr(processor, "tokenizer"):
        raise InterpError(
            f"{name} has no processor, only a {type(processor).__name__}; copy processor_config.json, "
            "preprocessor_config.json and the tokenizer files of the original model into its folder."
        )
    model_class = getattr(transformers, (config.architectures or [""])[0], None)
    if model_class is None:
        raise InterpError(f"{name}'s config names no model class that transformers {transformers.__version__} ships.")
    if getattr(processor.tokenizer, "padding_side", "left") != "left":
        processor.tokenizer.padding_side = "left"
    # One GPU takes the model whole; several share it by layers, which the library does through accelerate.
    shared = device == "auto" and torch.cuda.device_count() > 1 and find_spec("accelerate") is not None
    placing = {"device_map": "auto"} if shared else {}
    hf, loaded = _reading(
        name,
        "weights",
        lambda: model_class.from_pretrained(source, dtype=precision, output_loading_info=True, **placing),
    )
    if absent := sorted(loaded["missing_keys"]):
        # The library makes up random weights for these and goes on with a warning.
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise InterpError(
            f"the weights of {name} lack {', '.join(absent[:3])}{more}; fetch all of its weight files again."
        )
    if not shared:
        hf.to(where)
    hf.eval().requires_grad_(False)
    return AudioLLM(name=name, weights_hash=_weights_hash(source, hf), hf=hf, arch=arch, processor=processor)


def _resolve(name: str) -> str:
    if name in demos():
        return str(demos()[name].model_dir)
    folder = Path(name).expanduser()
    if folder.is_file():
        raise InterpError(f"{name} is a file; give the folder that holds config.json and the weights.")
    if folder.is_dir():
        try:
            files = [file for file in folder.iterdir() if file.is_file()]
        except PermissionError as error:
            raise InterpError(f"{name} may not be read ({error.strerror}); change its permissions.") from error
        if closed := sorted(file.name for file in files if not os.access(file, os.R_OK)):
            # Left to the library, this would come out as a file that does not exist.
            raise InterpError(f"{', '.join(closed)} in {name} may not be read; change the permissions.")
        if "config.json" not in {file.name for file in files}:
            raise InterpError(f"{name} holds no config.json, so it is no model folder in the Hugging Face layout.")
        return str(folder)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    known = ", ".join(demos()) or "none here"
    raise InterpError(
        f"{name!r} is no bundled model ({known}), no folder on this machine, and no hub id of the form owner/model."
    )


def _reading(name: str, part: str, read: Callable[[], Any]) -> Any:
    """Run one loading step; what the library raises becomes one sentence."""
    try:
        return read()
    except InterpError:
        raise
    except (SafetensorError, EOFError, RuntimeError) as error:
        raise InterpError(
            f"the {part} of {name} cannot be read: {_first_line(error)}; the file may be cut short, fetch it again."
        ) from error
    except json.JSONDecodeError as error:
        raise InterpError(f"a JSON file of {name}'s {part} is broken ({error}); fetch it again.") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        reason = _first_line(error)
        if part == "processor":
            raise InterpError(
                f"{name} has no processor that can be read ({reason}); copy processor_config.json, "
                "preprocessor_config.json and the tokenizer files of the original model into its folder."
            ) from error
        raise InterpError(f"the {part} of {name} cannot be read: {reason}") from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__


def _weights_hash(source: str, hf: Any) -> str:
    """Return the sha256 of the weight files of a local folder, or the commit of a hub snapshot."""
    folder = Path(source)
    if not folder.is_dir():
        return hashlib.sha256(f"{source}@{getattr(hf.config, '_commit_hash', None)}".encode()).hexdigest()
    total = hashlib.sha256()
    for file in sorted(f for pattern in WEIGHTS for f in folder.glob(pattern)):
        with file.open("rb") as handle:
            total.update(file.name.encode() + hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()
