"""Image classifiers: a ResNet's residual units as blocks, places of the picture as positions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from interp_core.errors import InterpError
from interp_core.models.arch import EncoderArch
from interp_core.models.block_model import Place
from interp_core.models.encoders.images import ImageBlocks
from interp_core.models.prompted import Prompted
from interp_core.models.resnet.weights import resnet_pixels
from interp_core.sites import Kind

RESNET = EncoderArch(
    blocks="resnet.encoder.stages", sizes="", attn=None, attn_proj=None, mlp=None, mlp_proj=None, causal=False
)


@dataclass(eq=False)
class ImageClassifier(ImageBlocks):
    """ResNetForImageClassification. Units of later stages have fewer places and more channels; it hears nothing."""

    size: int = 96
    """Height and width, in pixels, that pictures are scaled to."""

    takes: ClassVar[Literal["recordings", "pictures"]] = "pictures"

    @property
    def sample_rate(self) -> int:
        raise InterpError(f"{self.name} sees pictures; it cannot be given recordings.")

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        """Scale a picture, uint8 [height, width, 3]."""
        return self.on_device({"pixel_values": resnet_pixels(samples, self.size)[None]})

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [unit for stage in self.hf.resnet.encoder.stages for unit in stage.layers]

    def between(self, layer: int, hidden: Tensor) -> Tensor:
        side = math.isqrt(hidden.shape[1])  # pictures are scaled to squares
        return hidden.transpose(1, 2).unflatten(2, (side, side))

    @property
    def d_model(self) -> int:
        """Of the pooled features that the classifier reads."""
        return self.sizes.hidden_sizes[-1]

    @property
    def stages(self) -> Mapping[Kind, Place]:
        if self.probe is not None:
            return super().stages
        return {
            "pooled": Place(self.hf.resnet.pooler, "output", image=True),
            "logits": Place(self.hf.classifier, "output", flat=True),
        }

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.hf.resnet(**inputs).pooler_output.flatten(1)

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        return self.hf.classifier(state.mean(1)[..., None, None])
