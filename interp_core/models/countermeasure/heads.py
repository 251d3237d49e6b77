"""What published countermeasures have between a self-supervised trunk and their two logits.

A *mix* takes all states of the trunk, a *pooling* frames and the number of samples that they were made of.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerGates(nn.Module):
    """SLS's mix of layers: the sum of all, each times a gate in (0, 1) that the layer's own mean over time sets.

    Source: Zhang et al. 2024, "Audio deepfake detection with self-supervised XLS-R and SLS classifier";
    github.com/QiShanZhang/SLSforASVspoof-2021-DF (commit 82e8af0), model.py.
    """

    last_normed = False
    """Whether what it takes of the last layer has been through the trunk's final norm, where it has one."""

    def __init__(self, d_model: int):
        super().__init__()
        self.fc0 = nn.Linear(d_model, 1)

    def share(self, point: int, state: Tensor) -> Tensor:
        """What a state brings to the mix, [batch, pos, d_model]; nothing where it enters the first layer (point 0)."""
        return state * self.fc0(state.mean(1, keepdim=True)).sigmoid() * min(point, 1)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return the mix of what enters the first layer and what leaves each of them."""
        return torch.stack([self.share(point, state) for point, state in enumerate(states)]).sum(0)


FRAMES = 201
"""Of 4.04 s: to so many SLS over the library's WavLM cuts or fills up every layer."""


class FilledGates(LayerGates):
    """The same over the library's WavLM: what enters the first layer is mixed too, and a mean is that of `FRAMES`
    frames, of which those that a shorter clip has not are 0.

    Source: github.com/Security-FIT/IG_for_SSL_detectors (commit 40cc358), models/sls.py.
    """

    last_normed = True

    def share(self, point: int, state: Tensor) -> Tensor:
        """What a state brings to the mix, [batch, pos, d_model]."""
        return state * self.fc0(state[:, :FRAMES].sum(1, keepdim=True) / FRAMES).sigmoid()


class MixedImage(nn.Module):
    """SLS's pooling: the mix as a normed image, of each 3 by 3 the largest: [batch, pos / 3 * d_model / 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.first_bn = nn.BatchNorm2d(1)

    def forward(self, frames: Tensor, n_samples: int) -> Tensor:
        return F.max_pool2d(F.selu(self.first_bn(frames[:, None])), 3).flatten(1)


class FilledImage(MixedImage):
    """The same of `FRAMES` frames, of which those that a shorter clip has not are 0."""

    def forward(self, frames: Tensor, n_samples: int) -> Tensor:
        frames = frames[:, :FRAMES]
        return super().forward(F.pad(frames, (0, 0, 0, FRAMES - frames.shape[1])), n_samples)


class MixedAnswer(nn.Module):
    """SLS's answer: log probabilities [batch, 2] of what `fc1` left."""

    def __init__(self, width: int):
        super().__init__()
        self.fc3 = nn.Linear(width, 2)

    def forward(self, vector: Tensor) -> Tensor:
        return F.selu(self.fc3(F.selu(vector))).log_softmax(1)


class OneLogit(nn.Module):
    """A logit of spoofed speech beside 0 for bona fide, [batch, 2]: their softmax is the logit's sigmoid.

    Args:
        width: of what is read. bent: whether it goes through a SELU first.
    """

    def __init__(self, width: int, *, bent: bool):
        super().__init__()
        self.fc, self._bent = nn.Linear(width, 1), bent

    def forward(self, vector: Tensor) -> Tensor:
        logit = self.fc(F.selu(vector) if self._bent else vector)
        return torch.cat([torch.zeros_like(logit), logit], 1)


class KeyValueMix(nn.Module):
    """MHFA's mixes of layers, one for keys and one for values, side by side: [batch, pos, 2 d_model].

    Of every state the mean over its width is taken out where s3prl's WavLM is below it, whose cepstral mean
    normalisation does so there.

    Source: Peng et al. 2022, "An attention-based backend allowing efficient fine-tuning of transformer models for
    speaker verification", arXiv:2210.01273; github.com/zlin0/wedefense (commit e7287fe).
    """

    last_normed = True

    def __init__(self, n_states: int, *, centred: bool = True):
        super().__init__()
        self.weights_k, self.weights_v = (nn.Parameter(torch.ones(n_states)) for _ in range(2))
        self._centred = centred

    def share(self, point: int, state: Tensor) -> Tensor:
        """What a state brings to both mixes; point 0 enters the first layer."""
        taken = state - state.mean(-1, keepdim=True) if self._centred else state
        return torch.cat([weights.softmax(-1)[point] * taken for weights in (self.weights_k, self.weights_v)], -1)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        return torch.stack([self.share(point, state) for point, state in enumerate(states)]).sum(0)


class FactorizedAttention(nn.Module):
    """MHFA's pooling: heads that weigh the values' frames by the keys, side by side, and a linear map of them.

    Its code counts a frame for every 320 samples that have begun and repeats the last one where the trunk made fewer.
    """

    STEP = 320

    def __init__(self, d_model: int, compressed: int, heads: int, width: int):
        super().__init__()
        self.cmp_linear_k, self.cmp_linear_v = nn.Linear(d_model, compressed), nn.Linear(d_model, compressed)
        self.att_head = nn.Linear(compressed, heads)
        self.pooling_fc = nn.Linear(heads * compressed, width)

    def forward(self, frames: Tensor, n_samples: int) -> Tensor:
        """[batch, pos, 2 d_model] -> [batch, width]."""
        again = max(0, math.ceil(n_samples / self.STEP) - frames.shape[1])
        frames = torch.cat([frames, frames[:, -1:].expand(-1, again, -1)], 1)
        keys, values = frames.chunk(2, -1)
        share = self.att_head(self.cmp_linear_k(keys)).softmax(1)
        return self.pooling_fc(torch.einsum("bth,btd->bhd", share, self.cmp_linear_v(values)).flatten(1))


class ContextAttention(nn.Module):
    """CA-MHFA's pooling: groups that weigh the values' frames by a convolution over the keys, side by side.

    Source: Peng et al. 2024, "CA-MHFA: a context-aware multi-head factorized attentive pooling for SSL-based speaker
    verification", arXiv:2409.15234; github.com/Security-FIT/IG_for_SSL_detectors (commit 40cc358), models/mhfa.py.

    Args:
        d_model: width of a state. compressed: of keys and values. groups: how many weigh.
        context: frames that one weight is computed from, an odd number.
    """

    def __init__(self, d_model: int, compressed: int, groups: int, context: int):
        super().__init__()
        self.cmp_linear_k, self.cmp_linear_v = nn.Linear(d_model, compressed), nn.Linear(d_model, compressed)
        self.att_head = nn.Conv2d(1, groups, (context, compressed), bias=False, padding=(context // 2, 0))

    def forward(self, frames: Tensor, n_samples: int) -> Tensor:
        """[batch, pos, 2 d_model] -> [batch, groups * compressed]."""
        keys, values = frames.chunk(2, -1)
        share = self.att_head(self.cmp_linear_k(keys)[:, None]).squeeze(-1).softmax(-1)  # [batch, groups, pos]
        return (share @ self.cmp_linear_v(values)).flatten(1)


class TimeMean(nn.Module):
    """The mean over time: [batch, pos, d_model] -> [batch, d_model]."""

    def forward(self, frames: Tensor, n_samples: int) -> Tensor:
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
