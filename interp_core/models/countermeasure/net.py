"""The module tree of the ASVspoof 5 countermeasures, with the names of their state dicts.

waveform -> self-supervised backbone -> mix of its layers -> pooling over time -> projection -> bona fide or spoof.
The backbone is the library's own WavLM or wav2vec 2.0. Every later stage is a module that is called, so that a hook
on `backbone.layer_pooling`, `pooling`, `projection` or `task_head` reads and edits what it hands on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Model, WavLMModel

from interp_core.errors import InterpError

Pool = Literal["stats", "mean", "attention"]
BACKBONES = {"wavlm": WavLMModel, "wav2vec2": Wav2Vec2Model}


@dataclass(frozen=True)
class Layout:
    """Sizes and choices that make one module tree.

    Attributes:
        hf: the backbone's WavLMConfig or Wav2Vec2Config.
        mixed_layers: the backbone layers that the mix weighs, in the order of its weights.
        pooling: how frames become one vector.
        projection: widths from the pooled vector to the representation, such as (1536, 512, 256).
        classifier: widths from the representation to the logits, such as (256, 2).
        discriminator: widths of the domain discriminator's shared layers, such as (1536, 512, 512); empty without one.
        n_codecs: codec classes of the discriminator.
        n_codec_qs: codec quality classes of the discriminator.
        reads_pooled: the discriminator reads the pooled vector; False where it reads the representation.
        attention_width: hidden width of attention pooling.
        dropout: of every stage after the backbone; acts in training only.
        frozen: the backbone stays in eval mode, whatever `train()` says.
    """

    hf: Any
    mixed_layers: tuple[int, ...]
    pooling: Pool = "stats"
    projection: tuple[int, ...] = (1536, 512, 256)
    classifier: tuple[int, ...] = (256, 2)
    discriminator: tuple[int, ...] = ()
    n_codecs: int = 0
    n_codec_qs: int = 0
    reads_pooled: bool = True
    attention_width: int = 128
    dropout: float = 0.1
    frozen: bool = True


class LayerMix(nn.Module):
    """Softmax-weighted sum of backbone layers; `weights` [n_mixed] start out falling from 1 to 0.1."""

    def __init__(self, n_mixed: int):
        super().__init__()
        self.weights = nn.Parameter(torch.linspace(1.0, 0.1, n_mixed))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return the mix [batch, pos, d_model] of n_mixed tensors of that shape."""
        share = self.weights.softmax(0).view(-1, 1, 1, 1)
        return (torch.stack(list(states)) * share).sum(0)


class Backbone(nn.Module):
    """The library's model and the mix of its layers."""

    def __init__(self, layout: Layout):
        super().__init__()
        self.model = BACKBONES[layout.hf.model_type](layout.hf)
        self.layer_pooling = LayerMix(len(layout.mixed_layers))
        self.mixed_layers = layout.mixed_layers
        self.frozen = layout.frozen
        if layout.frozen:
            self.model.requires_grad_(False)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def forward(self, waveform: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the mix [batch, pos, d_model] and the outputs of all layers, each of that shape.

        The library records layer outputs with forward hooks of its own: an edit has to be registered in front of
        them (as interp_core.trace.hooks does) for the mix to see it.
        """
        states = self.model(waveform, attention_mask=attention_mask, output_hidden_states=True).hidden_states[1:]
        return self.layer_pooling([states[layer] for layer in self.mixed_layers]), list(states)


class StatsPooling(nn.Module):
    """Mean and standard deviation over time, side by side: [batch, pos, d] -> [batch, 2 d]."""

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool; with lengths the deviation is the population's, without them torch's unbiased one, as in training."""
        if lengths is None:
            return torch.cat([frames.mean(1), frames.std(1)], -1)
        mask = _frame_mask(frames, lengths)
        count = mask.sum(1).clamp(min=1)
        mean = (frames * mask).sum(1) / count
        variance = (((frames - mean[:, None]) * mask) ** 2).sum(1) / count
        return torch.cat([mean, (variance + 1e-8).sqrt()], -1)


class MeanPooling(nn.Module):
    """Mean over time: [batch, pos, d] -> [batch, d]."""

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool; with lengths the sum is divided by them, which are samples and not frames, as in training."""
        if lengths is None:
            return frames.mean(1)
        return (frames * _frame_mask(frames, lengths)).sum(1) / lengths[:, None].to(frames.dtype).clamp(min=1)


class AttentionPooling(nn.Module):
    """Mean over time weighted by a small network's softmax: [batch, pos, d] -> [batch, d]."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        scores = self.attention(frames)  # [batch, pos, 1]
        if lengths is not None:
            scores = scores.masked_fill(_frame_mask(frames, lengths) == 0, float("-inf"))
        return (frames * scores.softmax(1)).sum(1)


class Projection(nn.Module):
    """The network from the pooled vector to the representation that the classifier reads."""

    def __init__(self, widths: Sequence[int], dropout: float):
        super().__init__()
        self.mlp = nn.Sequential(*_stack(widths, dropout))

    def forward(self, pooled: Tensor) -> Tensor:
        return self.mlp(pooled)


class TaskHead(nn.Module):
    """The classifier: one linear map, or a stack of them where it has a hidden layer."""

    def __init__(self, widths: Sequence[int], dropout: float):
        super().__init__()
        layers = _stack(widths, dropout)
        self.classifier = layers[0] if len(layers) == 1 else nn.Sequential(*layers)

    def forward(self, representation: Tensor) -> Tensor:
        return self.classifier(representation)


class DomainDiscriminator(nn.Module):
    """Guesses the codec and the codec's quality; training makes the features useless to it."""

    def __init__(self, layout: Layout):
        super().__init__()
        layers = [part for pair in pairwise(layout.discriminator) for part in _hidden(*pair, layout.dropout)]
        self.shared = nn.Sequential(*layers)
        self.codec_head = nn.Linear(layout.discriminator[-1], layout.n_codecs)
        self.codec_q_head = nn.Linear(layout.discriminator[-1], layout.n_codec_qs)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return codec logits [batch, n_codecs] and quality logits [batch, n_codec_qs]."""
        shared = self.shared(features)
        return self.codec_head(shared), self.codec_q_head(shared)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return features.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


class GradientReversal(nn.Module):
    """Hands features on as they are and turns their gradient round, times lambda_; no state-dict key."""

    def __init__(self, lambda_: float = 1.0):
        super().__init__()
        self.lambda_ = lambda_

    def forward(self, features: Tensor) -> Tensor:
        return _Reversed.apply(features, self.lambda_)


class CountermeasureNet(nn.Module):
    """A countermeasure without (ERM) or with (DANN) a domain discriminator."""

    def __init__(self, layout: Layout):
        super().__init__()
        self.layout = layout
        self.backbone = Backbone(layout)
        self.pooling = _pooling(layout)
        self.projection = Projection(layout.projection, layout.dropout)
        self.task_head = TaskHead(layout.classifier, layout.dropout)
        self.grl: GradientReversal | None = None
        self.domain_discriminator: DomainDiscriminator | None = None
        if layout.discriminator:
            self.grl = GradientReversal()
            self.domain_discriminator = DomainDiscriminator(layout)

    @property
    def layers(self) -> nn.ModuleList:
        """The backbone's blocks."""
        return self.backbone.model.encoder.layers

    def forward(
        self, waveform: Tensor, attention_mask: Tensor | None = None, lengths: Tensor | None = None
    ) -> dict[str, Any]:
        """Run a batch.

        Args:
            waveform: [batch, samples] at 16 kHz, not normalised, all of one length.
            attention_mask: [batch, samples], 1 where there is sound; None: everywhere.
            lengths: [batch] samples; pass them, as training did, or the pooled deviation is another one.
        Returns:
            task_logits [batch, 2], repr, pooled, mixed [batch, pos, d_model], all_hidden_states (a list, one
            [batch, pos, d_model] a layer), and of a DANN also codec_logits and codec_q_logits.
        """
        if waveform.ndim != 2:
            raise InterpError(f"waveform is {tuple(waveform.shape)}, expected [batch, samples]; add a batch axis.")
        mixed, states = self.backbone(waveform, attention_mask)
        pooled = self.pooling(mixed, lengths)
        representation = self.projection(pooled)
        found = {
            "task_logits": self.task_head(representation),
            "repr": representation,
            "pooled": pooled,
            "mixed": mixed,
            "all_hidden_states": states,
        }
        if self.domain_discriminator is not None and self.grl is not None:
            read = self.grl(pooled if self.layout.reads_pooled else representation)
            found["codec_logits"], found["codec_q_logits"] = self.domain_discriminator(read)
        return found


def _frame_mask(frames: Tensor, lengths: Tensor) -> Tensor:
    """[batch, pos, 1], 1 where the frame's index is below the length.

    Lengths count samples, so under the training pipeline no frame is ever masked; checkpoints were made that way.
    """
    index = torch.arange(frames.shape[1], device=frames.device)
    return (index < lengths.to(frames.device)[:, None]).to(frames.dtype)[..., None]


def _pooling(layout: Layout) -> nn.Module:
    if layout.pooling == "attention":
        return AttentionPooling(layout.hf.hidden_size, layout.attention_width)
    return StatsPooling() if layout.pooling == "stats" else MeanPooling()


def _hidden(width_in: int, width_out: int, dropout: float) -> list[nn.Module]:
    return [nn.Linear(width_in, width_out), nn.ReLU(), nn.Dropout(dropout)]


def _stack(widths: Sequence[int], dropout: float) -> list[nn.Module]:
    """Linear maps with ReLU and dropout between them, none after the last: linear maps at 0, 3, 6 …"""
    *hidden, last = pairwise(widths)
    return [part for pair in hidden for part in _hidden(*pair, dropout)] + [nn.Linear(*last)]
