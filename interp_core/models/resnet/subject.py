"""Image classifiers: a ResNet's residual units as blocks, places of the picture as positions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from interp_core.errors import InterpError
from interp_core.models.arch import EncoderArch
from interp_core.models.block_model import Place
from interp_core.models.encoders.subject import Encoder
from interp_core.models.prompted import Prompted, Stem
from interp_core.models.resnet.weights import resnet_pixels
from interp_core.sites import STAGES, Kind, Site

RESNET = EncoderArch(
    blocks="resnet.encoder.stages", sizes="", attn=None, attn_proj=None, mlp=None, mlp_proj=None, causal=False
)


@dataclass(eq=False)
class ImageClassifier(Encoder):
    """ResNetForImageClassification. Units of later stages have fewer places and more channels; it hears nothing."""

    size: int = 96
    """Height and width, in pixels, that pictures are scaled to."""

    one_shape: ClassVar[bool] = True
    whole_only: ClassVar[bool] = True
    timed: ClassVar[bool] = False
    takes: ClassVar[Literal["recordings", "pictures"]] = "pictures"

    @property
    def sample_rate(self) -> int:
        raise InterpError(f"{self.name} sees pictures; it cannot be given recordings.")

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        """Scale a picture, uint8 [height, width, 3]."""
        return self.on_device({"pixel_values": resnet_pixels(samples, self.size)[None]})

    def seconds_per_position(self) -> float:
        return 0.0

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [unit for stage in self.hf.resnet.encoder.stages for unit in stage.layers]

    def between(self, layer: int, hidden: Tensor) -> Tensor:
        side = math.isqrt(hidden.shape[1])  # pictures are scaled to squares
        return hidden.transpose(1, 2).unflatten(2, (side, side))

    def rows_of(self, value: Tensor) -> Tensor:
        return value.flatten(2).transpose(1, 2)

    def lens_refusal(self) -> str | None:
        return "its layers differ in width"

    @property
    def n_heads(self) -> int:
        return 0

    @property
    def d_head(self) -> int:
        return 0

    @property
    def d_model(self) -> int:
        """Of the pooled features that the classifier reads."""
        return self.sizes.hidden_sizes[-1]

    def locate(self, site: Site) -> Place:
        place = super().locate(site)
        return place if site.kind in STAGES else place._replace(image=True)

    def prompted(self, stem: Stem) -> Prompted:
        picture, *rest = stem.args
        return super().prompted(replace(stem, args=(self.rows_of(picture), *rest)))

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
