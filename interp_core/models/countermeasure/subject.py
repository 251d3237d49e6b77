"""Speech spoofing countermeasures: the backbone's blocks, read through mix, pooling, projection and head."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from interp_core.models.arch import ENCODERS
from interp_core.models.block_model import Place
from interp_core.models.countermeasure.checkpoint import Countermeasure
from interp_core.models.countermeasure.detector import Detector
from interp_core.models.prompted import Prompted, RecordingSpan
from interp_core.models.weights import TRAINING_ONLY, Weights
from interp_core.sites import Kind

FORWARD_SETTINGS = (  # what changes a backbone's output and does not show in its weights
    *("model_type", "conv_stride", "feat_extract_norm", "feat_extract_activation", "num_attention_heads"),
    *("hidden_act", "layer_norm_eps", "do_stable_layer_norm", "max_bucket_distance"),
)


@dataclass(eq=False)
class SpoofDetector(Detector):
    """A countermeasure checkpoint; `hf` is its net.

    Attributes:
        checkpoint: what was read from the file.
        bonafide_index: which logit stands for bona fide: 0 in the thesis code, 1 in the official baselines.
    """

    one_shape: ClassVar[bool] = True

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

    def span(self, n_pos: int, n_samples: int) -> RecordingSpan:
        # A short clip is filled up with zeros at its end; of a long one the middle is heard.
        step = math.prod(self.sizes.conv_stride)
        return RecordingSpan(0, min(n_pos, math.ceil(n_samples / step)), n_pos)

    @property
    def by_construction(self) -> bool:
        return False  # layers are mixed; and behind a probe the padding's positions stay the recipient's

    @property
    def padding_stays(self) -> bool:
        return self.layer_shares() is None

    @property
    def classifier(self) -> nn.Module | None:
        return self.hf.task_head

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

    @property
    def mix_weights(self) -> nn.Parameter | None:
        return None if self.probe is not None else self.hf.backbone.layer_pooling.weights

    @property
    def mixed_layers(self) -> tuple[int, ...]:
        return () if self.probe is not None else tuple(self.hf.backbone.mixed_layers)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        if self.probe is not None:
            return self.probe(self.heard(inputs))
        return self.hf(**inputs)["task_logits"].float()

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.body(inputs["waveform"]).last_hidden_state.mean(1)

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        lengths = torch.cat([p.inputs["lengths"] for p in batch]).repeat(len(state) // len(batch))
        return self.hf.task_head(self.hf.projection(self.hf.pooling(state, lengths)))

    # ---- its parts ---------------------------------------------------------------------------------------------------

    def weights_by_part(self) -> dict[str, Weights]:
        """Of the checkpoint's own readout: `stem` (the backbone before its blocks), `layer 0` to the last,
        `after_layers` where the backbone has weights there that the mix never reads, `layer_pooling`, `pooling`,
        `projection`, `task_head`, and `domain_discriminator` where there is one."""
        if self.probe is not None:
            return super().weights_by_part()
        order = ["stem", *(f"layer {i}" for i in range(self.n_layers)), "after_layers"]
        order += ["layer_pooling", "pooling", "projection", "task_head", "domain_discriminator"]
        parts: dict[str, Weights] = {part: {} for part in order}
        for name, tensor in self.hf.state_dict().items():
            if name.endswith(TRAINING_ONLY):
                continue
            first, _, rest = name.removeprefix("backbone.").partition(".")
            if layer := re.match(r"encoder\.layers\.(\d+)\.", rest):
                first = f"layer {layer[1]}"
            elif first == "model":
                stable = self.config.do_stable_layer_norm and rest.startswith("encoder.layer_norm.")
                first = "after_layers" if stable or rest.startswith("adapter.") else "stem"
            parts[first][name] = tensor
        return {part: held for part, held in parts.items() if held or part == "pooling"}

    def settings_by_part(self) -> Mapping[str, Any]:
        if self.probe is not None:
            return super().settings_by_part()
        stem = {name: getattr(self.config, name, None) for name in FORWARD_SETTINGS}
        return {
            "stem": {name: list(value) if isinstance(value, tuple) else value for name, value in stem.items()},
            "layer_pooling": self.mixed_layers,
            "pooling": self.hf.layout.pooling,
        }

    @property
    def stage_parts(self) -> Mapping[Kind, str]:
        if self.probe is not None:
            return {}
        return {"mixed": "layer_pooling", "pooled": "pooling", "projection": "projection", "logits": "task_head"}
