"""Weights told apart by where they act: before the blocks, in one of them, or behind them; and compared bit by bit."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

TRAINING_ONLY = ("masked_spec_embed",)
"""Ends of the names of weights that act in training only."""

Weights = dict[str, Tensor]


def split_weights(model: nn.Module, blocks: Sequence[nn.Module], readout: tuple[str, ...]) -> dict[str, Weights]:
    """Every weight that acts at inference, under `stem`, `layer 0` to the last, or `readout`.

    Args:
        model: whose weights.
        blocks: its blocks, in their order.
        readout: beginnings of the names of weights that act behind the last block; all others are the stem's.
    """
    layers = {id(module): f"layer {i}" for i, module in enumerate(blocks)}
    places = {name: layers[id(module)] for name, module in model.named_modules() if id(module) in layers}
    parts: dict[str, Weights] = {"stem": {}, **{part: {} for part in layers.values()}, "readout": {}}
    for name, tensor in model.state_dict().items():
        if name.endswith(TRAINING_ONLY):
            continue
        part = next((part for place, part in places.items() if name.startswith(f"{place}.")), None)
        if part is None:
            part = "readout" if name.startswith(readout) else "stem"
        parts[part][name] = tensor
    return parts


def same_weights(left: Mapping[str, Tensor] | None, right: Mapping[str, Tensor] | None) -> bool:
    """Whether two parts hold weights of the same names, alike to the last bit; one that is missing is like no other."""
    if left is None or right is None or set(left) != set(right):
        return False
    return all(same_bits(left[name], right[name]) for name in left)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree to the last bit."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(*(t.detach().cpu().reshape(-1).contiguous().view(torch.uint8) for t in (a, b)))
