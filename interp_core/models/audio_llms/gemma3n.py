"""Gemma 3n: four streams run between its blocks (AltUp), and its eyes are left out.

The residual stream of a position is all four streams side by side, [.., 4 * hidden_size]: each block predicts every
stream from all of them and corrects every one by what attention and MLP make of the first, so that one stream alone is
no state from which the rest of the forward pass follows. What is added inside a block (`attn_out`, `mlp_out`) is added
to the active stream, and `resid_mid` is that stream, each [.., hidden_size].

The tower that sees is made by the package timm, which takes torchvision, and hears nothing; so the model is built
without it, and its weights are left out by name.

Source: Baykal et al. 2023, arXiv:2301.13310 (AltUp); transformers/models/gemma3n/modeling_gemma3n.py.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nConfig
from transformers.models.gemma3n.modeling_gemma3n import (
    Gemma3nForConditionalGeneration,
    Gemma3nModel,
    Gemma3nMultimodalEmbedder,
    Gemma3nPreTrainedModel,
)

from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.block_model import Place, in_streams, side_by_side
from interp_core.models.prompted import Stem
from interp_core.sites import Site


class Gemma3nHearing(Gemma3nModel):
    """The library's model without the tower that sees."""

    def __init__(self, config: Gemma3nConfig) -> None:
        # Not the library's own constructor, which makes that tower; the other parts and their names are the same.
        Gemma3nPreTrainedModel.__init__(self, config)
        self.vocab_size = config.text_config.vocab_size
        self.language_model = AutoModel.from_config(config.text_config)
        self.vocab_size_per_layer_input = config.text_config.vocab_size_per_layer_input
        self.audio_tower = AutoModel.from_config(config.audio_config)
        # Tokens of pictures are looked up in every forward pass, pictures or not.
        self.embed_vision = Gemma3nMultimodalEmbedder(config.vision_config, config.text_config)
        self.embed_audio = Gemma3nMultimodalEmbedder(config.audio_config, config.text_config)
        self.post_init()


class Gemma3nThatHears(Gemma3nForConditionalGeneration):
    """Gemma 3n from sound and words to words."""

    _keys_to_ignore_on_load_unexpected = [r"^model\.vision_tower\."]

    def __init__(self, config: Gemma3nConfig) -> None:
        Gemma3nPreTrainedModel.__init__(self, config)
        self.model = Gemma3nHearing(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


@dataclass(eq=False)
class Gemma3n(AudioLLM):
    """See the module."""

    @property
    def streams(self) -> int:
        """How many run between two blocks."""
        return self.sizes.altup_num_inputs

    @property
    def d_model(self) -> int:
        """Of all streams of a position."""
        return self.streams * super().d_model

    @property
    def max_seconds(self) -> float:
        return min(super().max_seconds, self.hf.config.audio_soft_tokens_per_image * self.seconds_per_position())

    def rows_of(self, value: Tensor) -> Tensor:
        return side_by_side(value)

    def between(self, layer: int, hidden: Tensor) -> Tensor:
        return in_streams(hidden, self.streams)

    def locate(self, site: Site) -> Place:
        place = super().locate(site)
        return place._replace(streams=self.streams) if site.kind in ("resid_pre", "resid_post") else place

    def normed(self, hidden: Tensor) -> Tensor:
        """Turn all streams into the one that the head reads: [.., streams * hidden_size] -> [.., hidden_size].

        Each further stream is projected and brought to the first one's size; then the mean over all is normed.
        """
        first, *others = hidden.unflatten(-1, (self.streams, -1)).unbind(-2)
        size, merged = _size(first), [first]
        for project, stream in zip(self.decoder.altup_unembed_projections, others, strict=True):  # type: ignore[arg-type]
            made = project(stream)
            merged.append(made * size / made.square().mean(-1, keepdim=True).clamp(min=1e-5).sqrt())
        return super().normed(torch.stack(merged).mean(0))

    def positions_heard(self, stem: Stem, made: int) -> int:
        """Of the positions, which are as many for every clip, those that the tower makes of sound."""
        frames = int(stem.inputs["input_features_mask"].sum())
        return max(1, math.ceil(frames / self.arch.frames_per_position(self.hf.config)))


def _size(stream: Tensor) -> Any:
    return stream.square().mean(-1, keepdim=True).sqrt()
