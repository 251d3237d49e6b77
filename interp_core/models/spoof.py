"""Speech spoofing countermeasures: the backbone's blocks, read through mix, pooling, projection and head."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp_core.models.arch import ENCODERS
from interp_core.models.countermeasure import Countermeasure
from interp_core.models.encoders import Encoder
from interp_core.models.subject import Place, Prompted
from interp_core.sites import Kind


@dataclass(eq=False)
class SpoofDetector(Encoder):
    """A countermeasure checkpoint; `hf` is its net.

    Attributes:
        checkpoint: what was read from the file.
        bonafide_index: which logit stands for bona fide: 0 in the thesis code, 1 in the official baselines.
    """

    checkpoint: Countermeasure = field(default=None, repr=False)  # type: ignore[assignment]
    bonafide_index: int = 0

    @classmethod
    def of(cls, name: str, checkpoint: Countermeasure, device: torch.device) -> "SpoofDetector":
        """Put a loaded checkpoint on a device and make it a subject."""
        net = checkpoint.net.to(device)
        row = replace(ENCODERS[net.layout.hf.model_type], body="backbone.model")
        return cls(name, checkpoint.weights_hash, net, row, checkpoint=checkpoint)

    @property
    def config(self) -> Any:
        return self.hf.layout.hf

    @property
    def body(self) -> nn.Module:
        return self.hf.backbone.model

    @property
    def sample_rate(self) -> int:
        return self.checkpoint.sample_rate

    @property
    def shortest(self) -> int:
        return 1  # every clip is filled up to one length

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        return self.checkpoint.inputs([samples])

    def span(self, n_pos: int, n_samples: int) -> tuple[tuple[int, int], tuple[int, int]]:
        # A short clip is filled up with zeros at its end; of a long one the middle is heard.
        step = math.prod(self.sizes.conv_stride)
        return (0, min(n_pos, math.ceil(n_samples / step))), (1, 0)

    @property
    def by_construction(self) -> bool:
        return False  # layers are mixed; and behind a probe the padding's positions stay the recipient's

    @property
    def classifier(self) -> nn.Module | None:
        return self.hf.task_head

    @property
    def answers(self) -> tuple[str, ...]:
        if self.probe is not None:
            return self.probe.classes
        return ("bonafide", "spoof") if self.bonafide_index == 0 else ("spoof", "bonafide")

    @property
    def stages(self) -> Mapping[Kind, Place]:
        if self.probe is not None:
            return super().stages
        return {
            "mixed": Place(self.hf.backbone.layer_pooling, "output"),
            "pooled": Place(self.hf.pooling, "output", flat=True),
            "projection": Place(self.hf.projection, "output", flat=True),
            "logits": Place(self.hf.task_head, "output", flat=True),
        }

    def layer_shares(self) -> Tensor | None:
        if self.probe is not None:
            return None
        mix = self.hf.backbone
        shares = mix.layer_pooling.weights.new_zeros(self.n_layers + 1)
        # Point l + 1 of the residual stream is what layer l leaves; what enters layer 0 has no part.
        at = torch.tensor(mix.mixed_layers, device=shares.device) + 1
        return shares.index_add(0, at, mix.layer_pooling.weights.softmax(0))  # a layer may be chosen twice

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        if self.probe is not None:
            return self.probe(self.heard(inputs))
        return self.hf(**inputs)["task_logits"].float()

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.body(inputs["waveform"]).last_hidden_state.mean(1)

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        lengths = torch.cat([p.inputs["lengths"] for p in batch]).repeat(len(state) // len(batch))
        return self.hf.task_head(self.hf.projection(self.hf.pooling(state, lengths)))
