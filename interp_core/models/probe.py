"""A fitted linear classifier in the place of one that a checkpoint does not have."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Probe:
    """Class logits as an affine map of pooled features.

    Attributes:
        classes: the labels, in the order of the logits.
        weight, bias: [n_classes, width], [n_classes] float32, standardisation folded in.
        report: how it was fitted and how well it does on held-out clips.
    """

    classes: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    report: dict[str, object]

    @property
    def key(self) -> str:
        """Names the map: equal probes have equal keys."""
        content = hashlib.sha256(repr(self.classes).encode())
        for part in (self.weight, self.bias):
            content.update(part.cpu().contiguous().numpy().tobytes())
        return content.hexdigest()[:12]

    def __call__(self, features: Tensor) -> Tensor:
        """Turn [rows, width] of any dtype into float32 logits [rows, n_classes]."""
        device = features.device
        return torch.addmm(self.bias.to(device), features.float(), self.weight.to(device).T)
