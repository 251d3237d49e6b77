"""What published countermeasures have between a self-supervised trunk and their two logits."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerGates(nn.Module):
    """SLS's mix of layers: the sum of all, each times a gate in (0, 1) that the layer's own mean over time sets.

    Source: Zhang et al. 2024, "Audio deepfake detection with self-supervised XLS-R and SLS classifier";
    github.com/QiShanZhang/SLSforASVspoof-2021-DF (commit 82e8af0), model.py.
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.fc0 = nn.Linear(d_model, 1)

    def gated(self, state: Tensor) -> Tensor:
        """One layer's share of the mix, [batch, pos, d_model]."""
        return state * self.fc0(state.mean(1, keepdim=True)).sigmoid()

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        return torch.stack([self.gated(state) for state in states]).sum(0)


class MixedImage(nn.Module):
    """SLS's pooling: the mix as a normed image, of each 3 by 3 the largest: [batch, pos / 3 * d_model / 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.first_bn = nn.BatchNorm2d(1)

    def forward(self, frames: Tensor) -> Tensor:
        return F.max_pool2d(F.selu(self.first_bn(frames[:, None])), 3).flatten(1)


class MixedAnswer(nn.Module):
    """SLS's answer: log probabilities [batch, 2] of what `fc1` left."""

    def __init__(self, width: int):
        super().__init__()
        self.fc3 = nn.Linear(width, 2)

    def forward(self, vector: Tensor) -> Tensor:
        return F.selu(self.fc3(F.selu(vector))).log_softmax(1)


class TimeMean(nn.Module):
    """The mean over time: [batch, pos, d_model] -> [batch, d_model]."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean(1)


class AngleAnswer(nn.Module):
    """Minus and plus the cosine between a vector and the direction of bona fide speech, [batch, 2]: one-class softmax.

    Source: Zhang et al. 2021, arXiv:2010.13995; nii-yamagishilab/AntiDeepfake (commit 0dea622), models/oc_softmax.py.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, 1))

    def forward(self, vector: Tensor) -> Tensor:
        cosine = (vector @ F.normalize(self.weight, dim=0) / vector.norm(dim=1, keepdim=True)).clamp(-1, 1)
        return torch.cat([-cosine, cosine], 1)
