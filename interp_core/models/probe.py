"""A fitted linear classifier in the place of one that a checkpoint does not have."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from interp_core.storage import plain


class Probe(nn.Linear):
    """Class logits as an affine map of pooled features; a module, so that hooks reach what it reads and answers.

    Args:
        classes: the labels, in the order of the logits.
        weight, bias: [n_classes, width], [n_classes]; standardisation folded in; kept in float32.
        report: how it was fitted and how well it does on held-out clips.
    """

    def __init__(self, classes: Sequence[str], weight: Tensor, bias: Tensor, report: Mapping[str, Any]) -> None:
        super().__init__(weight.shape[1], weight.shape[0])
        self.classes, self.report = tuple(classes), dict(report)
        self.weight = nn.Parameter(weight.float(), requires_grad=False)
        self.bias = nn.Parameter(bias.float(), requires_grad=False)
        content = hashlib.sha256(repr(self.classes).encode())
        for part in (self.weight, self.bias):
            content.update(part.detach().cpu().contiguous().numpy().tobytes())
        self.key = content.hexdigest()[:12]
        """Names the map: equal probes have equal keys."""

    def content(self) -> dict[str, Any]:
        """All of it as JSON, from which `of` makes an equal one."""
        weight, bias = self.weight.detach().cpu().tolist(), self.bias.detach().cpu().tolist()
        laid_out = {"strides": list(self.weight.stride())}  # the last digits of a product hang on it
        return {"classes": list(self.classes), "weight": weight, "bias": bias, "report": plain(self.report), **laid_out}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Probe":
        """The probe that `content` took apart."""
        values, bias = torch.tensor(content["weight"]), torch.tensor(content["bias"])
        weight = torch.empty_strided(values.shape, content["strides"]).copy_(values)
        return cls(content["classes"], weight, bias, content["report"])

    def forward(self, features: Tensor) -> Tensor:
        """Turn [rows, width] of any dtype into float32 logits [rows, n_classes]."""
        device = features.device
        return torch.addmm(self.bias.to(device), features.float(), self.weight.to(device).T)
