"""Adapter folders in the layout of the package peft, with random matrices, written without it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

RANK, ALPHA = 2, 3


def write_adapter(
    folder: Path,
    hf: nn.Module,
    targets: Sequence[str],
    *,
    base: str = "",
    whole: dict[str, Tensor] | None = None,
    bin_file: bool = False,
    seed: int = 0,
    **settings: Any,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Write a LoRA of every linear layer whose name ends with one of `targets`; returns {module: (A, B)}.

    Args:
        base: what the settings name as the model that it goes onto.
        whole: further entries of the weights, by the name of a parameter.
        bin_file: write adapter_model.bin in the place of safetensors.
        settings: over those of a plain LoRA of rank 2 and alpha 3.
    """
    random, pairs = torch.Generator().manual_seed(seed), {}
    for name, module in hf.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(tuple(targets)):
            a = 0.5 * torch.randn(RANK, module.in_features, generator=random)
            pairs[name] = a, 0.5 * torch.randn(module.out_features, RANK, generator=random)
    named = {f"base_model.model.{name}.lora_{h}.weight": ab["AB".index(h)] for name, ab in pairs.items() for h in "AB"}
    named |= {f"base_model.model.{name}": value for name, value in (whole or {}).items()}
    folder.mkdir(parents=True, exist_ok=True)
    if bin_file:
        torch.save(named, folder / "adapter_model.bin")
    else:
        save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    about = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "use_dora": False}
    about |= {"target_modules": list(targets), "base_model_name_or_path": base, "megatron_core": "megatron.core"}
    (folder / "adapter_config.json").write_text(json.dumps({**about, **settings}))
    return pairs
