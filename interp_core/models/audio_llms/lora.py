"""Low-rank adapters of the blocks, added into the weights: the same function without the package peft, and the sites
stay the modules that the table names.

Source: Hu et al. 2021, arXiv:2106.09685: W + alpha / r * B A.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers.utils import cached_file

from interp_core.errors import InterpError
from interp_core.models.merge import merged

_KEY = re.compile(r"layers\.(\d+)\.(.+)\.lora_([AB])\.(?:default\.)?weight$")


def merge_lora(blocks: nn.ModuleList, source: str, folder: str = "") -> int:
    """Add the adapter that lies in a folder or on the hub beside a model to the weights of its blocks.

    Args:
        blocks: the blocks that the adapter was trained on.
        source: the model's folder or hub id.
        folder: where below it the adapter lies.
    Returns:
        How many matrices were changed; 0 where there is no adapter.
    Raises:
        InterpError: an adapter that is more than low-rank matrices on the blocks.
    """
    settings_file, weights_file = (
        _file(source, folder, n) for n in ("adapter_config.json", "adapter_model.safetensors")
    )
    if settings_file is None and weights_file is None:
        return 0
    if settings_file is None or weights_file is None:
        absent = "adapter_config.json" if settings_file is None else "adapter_model.safetensors"
        raise InterpError(f"the adapter of {source} lacks {absent}; fetch it as well.")
    settings = json.loads(settings_file.read_text("utf-8"))
    _check_plain(source, settings)
    pairs: dict[tuple[int, str], dict[str, torch.Tensor]] = {}
    strange = []
    for key, value in load_file(weights_file).items():
        found = _KEY.search(key)
        if found is None or int(found[1]) >= len(blocks):
            strange.append(key)
        else:
            pairs.setdefault((int(found[1]), found[2]), {})[found[3]] = value
    strange += [f"layers.{layer}.{path} without its other half" for (layer, path), p in pairs.items() if len(p) < 2]
    if strange:
        raise InterpError(f"the adapter of {source} holds what is no low-rank matrix of a block: {strange[0]}.")
    for (layer, path), pair in pairs.items():
        weight = blocks[layer].get_parameter(f"{path}.weight").data
        rank = len(pair["A"])
        scale = settings["lora_alpha"] / (rank**0.5 if settings.get("use_rslora") else rank)
        weight.copy_(merged(weight, pair, scale))
    return len(pairs)


def _file(source: str, folder: str, name: str) -> Path | None:
    found = cached_file(source, f"{folder}/{name}" if folder else name, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def _check_plain(source: str, settings: dict[str, Any]) -> None:
    odd = [
        name
        for name in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
        if settings.get(name)
    ]
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none" or odd:
        about = ", ".join([str(settings.get("peft_type")), f"bias {settings.get('bias')}", *odd])
        raise InterpError(
            f"the adapter of {source} is not a plain LoRA ({about}); merge it into the weights with the package "
            "peft (merge_and_unload) and save the model whole."
        )
