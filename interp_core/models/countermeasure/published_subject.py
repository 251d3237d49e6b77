"""Published countermeasures as subjects: the trunk's blocks, read by the system's own pooling and classifier."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp_core.errors import InterpError
from interp_core.models.arch import ENCODERS
from interp_core.models.block_model import Place
from interp_core.models.countermeasure.detector import Detector
from interp_core.models.countermeasure.heads import KeyValueMix, LayerGates
from interp_core.models.countermeasure.published import Published
from interp_core.models.countermeasure.subject import FORWARD_SETTINGS
from interp_core.models.countermeasure.systems import System
from interp_core.models.prompted import Prompted, RecordingSpan
from interp_core.models.weights import TRAINING_ONLY, Weights
from interp_core.sites import Kind

RATE = 16_000


@dataclass(eq=False)
class PublishedDetector(Detector):
    """A published system that hears clips whole; `hf` is its net.

    Attributes:
        system: whose code it is.
    """

    system: System = field(default=None, repr=False)  # type: ignore[assignment]

    @classmethod
    def of(cls, name: str, opened: Published, device: torch.device) -> "PublishedDetector":
        """Put an opened file on a device and make it a subject."""
        net = opened.net.to(device)
        row = replace(ENCODERS[net.trunk.config.model_type], body="trunk", last_mixed_normed=net.last_normed)  # type: ignore[union-attr, index]
        kind = FixedLengthDetector if opened.system.cut else PublishedDetector
        return kind(name, opened.weights_hash, net, row, system=opened.system)

    @property
    def config(self) -> Any:
        return self.hf.trunk.config

    @property
    def sample_rate(self) -> int:
        return RATE

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        clip = torch.from_numpy(np.pad(samples, (0, max(0, self.shortest - len(samples)))))
        large = self.config.feat_extract_norm == "layer"
        normed = self.system.normed == "always" or self.system.normed == "large" and large
        return self.on_device({"waveform": (F.layer_norm(clip, clip.shape) if normed else clip)[None]})

    # ---- the readout -------------------------------------------------------------------------------------------------

    @property
    def bonafide_index(self) -> int:
        return self.system.bonafide_index

    @property
    def readout_of(self) -> str:
        return "" if self.probe is not None else self.system.name

    @property
    def classifier(self) -> nn.Module | None:
        return self.hf.answer

    @property
    def stages(self) -> Mapping[Kind, Place]:
        if self.probe is not None:
            return super().stages
        places: dict[Kind, Place | None] = {
            "mixed": _output(self.hf.mix, flat=False),
            "pooled": _output(self.hf.pooling),
            "projection": _output(self.hf.projection),
            "logits": _output(self.hf.answer),
        }
        return {kind: place for kind, place in places.items() if place is not None}

    @property
    def _mix(self) -> LayerGates | KeyValueMix | None:
        return None if self.probe is not None else self.hf.mix

    def layer_shares(self) -> Tensor | None:
        # What a state weighs stands in `mixed_state`: more than one number, or one that the state itself sets.
        return None if self._mix is None else torch.ones(self.n_layers + 1, device=self.device)

    def mixed_state(self, point: int, hidden: Tensor) -> Tensor:
        return hidden if self._mix is None else self._mix.share(point, super().mixed_state(point, hidden))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return (self.probe(self.heard(inputs)) if self.probe is not None else self.hf(**inputs)).float()

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.body(inputs["waveform"]).last_hidden_state.mean(1)

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        return self.hf.read(state, batch[0].inputs["waveform"].shape[1])  # clips of a batch are equally long

    # ---- its parts ---------------------------------------------------------------------------------------------------

    def weights_by_part(self) -> dict[str, Weights]:
        """Of the system's own readout: `stem` (the trunk before its blocks), `layer 0` to the last, `after_layers`
        where the trunk has a norm there that nothing reads, and the readout's parts, that norm with the first of them
        where it is read."""
        if self.probe is not None:
            return super().weights_by_part()
        reads = "pooling" if self.hf.mix is None else "mix"
        behind = reads if self.hf.last_normed else "after_layers"
        order = ["stem", *(f"layer {i}" for i in range(self.n_layers)), "after_layers", *self.stage_parts.values()]
        parts: dict[str, Weights] = {part: {} for part in order}
        for name, tensor in self.hf.state_dict().items():
            if name.endswith(TRAINING_ONLY):
                continue
            part, _, rest = name.partition(".")
            if layer := re.match(r"encoder\.layers\.(\d+)\.", rest):
                part = f"layer {layer[1]}" if part == "trunk" else part
            elif part == "trunk":
                stable = self.config.do_stable_layer_norm and rest.startswith("encoder.layer_norm.")
                part = behind if stable else "stem"
            parts[part][name] = tensor
        return {part: held for part, held in parts.items() if held or part != "after_layers"}

    def settings_by_part(self) -> Mapping[str, Any]:
        if self.probe is not None:
            return super().settings_by_part()
        stem = {name: getattr(self.config, name, None) for name in FORWARD_SETTINGS}
        said = {name: list(value) if isinstance(value, tuple) else value for name, value in stem.items()}
        return {"stem": {**said, "samples": self.system.cut}, "pooling": self.system.name}

    @property
    def stage_parts(self) -> Mapping[Kind, str]:
        parts: dict[Kind, str] = {"mixed": "mix", "pooled": "pooling", "projection": "projection", "logits": "answer"}
        return {} if self.probe is not None else {kind: part for kind, part in parts.items() if kind in self.stages}


class FixedLengthDetector(PublishedDetector):
    """A published system that hears the beginning of a clip, or a short one over and over, up to one length.

    The recording is the first time that it is heard; what is heard again behind it stays the recipient's.
    """

    one_shape: ClassVar[bool] = True

    @property
    def shortest(self) -> int:
        return 1

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        if not len(samples):
            raise InterpError("the clip is empty; give one with sound.")
        return self.on_device({"waveform": torch.from_numpy(np.resize(samples, self.system.cut))[None]})

    def span(self, n_pos: int, n_samples: int) -> RecordingSpan:
        return RecordingSpan(0, min(n_pos, math.ceil(n_samples / math.prod(self.sizes.conv_stride))), n_pos)

    @property
    def by_construction(self) -> bool:
        return False

    @property
    def padding_stays(self) -> bool:
        return self.layer_shares() is None


def _output(module: nn.Module | None, flat: bool = True) -> Place | None:
    return None if module is None else Place(module, "output", flat=flat)
