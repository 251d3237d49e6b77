"""Weights of 8 or 4 bits, by the package bitsandbytes: those that are made so when a model is opened (`--dtype int8`,
`int4`), and those that a folder already holds so.

The library puts modules of the package in the place of linear layers; sites and hooks stay where they are, and what
they see is bfloat16. Nothing can be merged into such weights.

Source: Dettmers et al. 2022, arXiv:2208.07339 (8 bits); Dettmers et al. 2023, arXiv:2305.14314 (4 bits, NF4).
"""

import re
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from interp_core.errors import InterpError

BITS = {"int8": 8, "int4": 4}
"""What --dtype takes beside the dtypes of torch."""
ACTIVATIONS = torch.bfloat16
"""Of models in few bits, also on a CPU, where the package's products round to it whatever they are given."""
_PACKAGES = ("bitsandbytes", "accelerate")
_METHODS = {
    "bitsandbytes": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
    "bitsandbytes_4bit": "bitsandbytes",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "compressed-tensors": "compressed_tensors",
    "torchao": "torchao",
    "hqq": "hqq",
    "quanto": "optimum",
    "aqlm": "aqlm",
}
"""quant_method of a config -> the package that the library reads such weights with."""


def check_packages(dtype: str) -> None:
    """Refuse 8 or 4 bits where the packages for it are missing, before anything is read."""
    if absent := [name for name in _PACKAGES if find_spec(name) is None]:
        raise InterpError(
            f"--dtype {dtype} takes the package{'s' if len(absent) > 1 else ''} {' and '.join(absent)}, not installed "
            f"here; pip install {' '.join(absent)}, or choose bfloat16."
        )


def settings(dtype: str, computed: torch.dtype, blocks: str) -> Any:
    """What the library is told: the linear layers of the blocks in few bits, all else as it is.

    Args:
        dtype: int8 or int4.
        computed: the dtype of the activations.
        blocks: where the blocks are, as a dotted name. The stem is run once a clip and the readout is what is compared,
            so neither is made any coarser.
    """
    whole = [rf"(?!{re.escape(blocks)}\.).*"]
    if BITS[dtype] == 8:
        # Above 0 the columns that are kept apart depend on which rows share a batch, and no batch would be as alone.
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0, llm_int8_skip_modules=whole)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=computed, llm_int8_skip_modules=whole
    )


def stored_bits(name: str, config: Any) -> str | None:
    """How the weights of a folder are quantised, by its config; None where they are not.

    Raises:
        InterpError: in a way that the library does not know, or whose package is missing.
    """
    told = getattr(config, "quantization_config", None)
    if told is None:
        return None
    told = told.to_dict() if hasattr(told, "to_dict") else told
    method = told.get("quant_method") if isinstance(told, dict) else None
    if isinstance(method, str) and method == "fp8":
        raise InterpError(
            f"the weights of {name} are quantised as fp8, which GPUs alone compute with, and in which nothing here was "
            "checked; fetch the unquantised model, and choose --dtype int8 for less memory."
        )
    package = _METHODS.get(str(getattr(method, "value", method)))
    if package is None:
        raise InterpError(
            f"config.json of {name} says that its weights are quantised by {method!r}, which is not known here "
            f"(known: {', '.join(_METHODS)}); fetch the unquantised model."
        )
    if find_spec(package) is None:
        raise InterpError(
            f"the weights of {name} are quantised ({method}), which takes the package {package}, not installed here; "
            "install it, or fetch the unquantised model."
        )
    return package
