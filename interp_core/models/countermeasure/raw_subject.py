"""AASIST as a subject: its residual units as blocks, bands of the spectrum by time as positions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from interp_core.errors import InterpError
from interp_core.models.arch import EncoderArch
from interp_core.models.block_model import Place
from interp_core.models.countermeasure.detector import Detector
from interp_core.models.countermeasure.raw import BANDS, RATE, RawNet
from interp_core.models.countermeasure.systems import CUT
from interp_core.models.encoders.images import ImageBlocks
from interp_core.models.prompted import Prompted
from interp_core.sites import Kind

RAW = EncoderArch(blocks="blocks", sizes="", attn=None, attn_proj=None, mlp=None, mlp_proj=None, causal=False)


@dataclass(eq=False)
class RawDetector(ImageBlocks, Detector):
    """AASIST or AASIST-L; `hf` is its `RawNet`. Later units have a third of the frames and other widths, so
    a frame means another time behind every unit."""

    @classmethod
    def of(cls, name: str, weights_hash: str, net: RawNet, device: torch.device) -> "RawDetector":
        """Put an opened net on a device and make it a subject."""
        return cls(name, weights_hash, net.to(device), RAW)

    @property
    def sample_rate(self) -> int:
        return RATE

    @property
    def shortest(self) -> int:
        return 1

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        if not len(samples):
            raise InterpError("the clip is empty; give one with sound.")
        return self.on_device({"waveform": torch.from_numpy(np.resize(samples, CUT))[None]})

    # ---- the blocks --------------------------------------------------------------------------------------------------

    def between(self, layer: int, hidden: Tensor) -> Tensor:
        return hidden.transpose(1, 2).unflatten(2, (BANDS, -1))

    # ---- the readout -------------------------------------------------------------------------------------------------

    @property
    def bonafide_index(self) -> int:
        return 1

    @property
    def default_site(self) -> Kind:
        return "resid_post"  # there is no site inside a unit

    @property
    def readout_of(self) -> str:
        return "" if self.probe is not None else "AASIST"

    @property
    def classifier(self) -> nn.Module | None:
        return self.hf.answer

    @property
    def stages(self) -> Mapping[Kind, Place]:
        if self.probe is not None:
            return super().stages
        return {
            "pooled": Place(self.hf.pooling, "output", flat=True),
            "logits": Place(self.hf.answer, "output", flat=True),
        }

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return (self.probe(self.heard(inputs)) if self.probe is not None else self.hf(**inputs)).float()

    def heard(self, inputs: Mapping[str, Tensor]) -> Tensor:
        image = self.hf.front(inputs["waveform"])
        for block in self.hf.blocks:
            image = block(image)
        return self.rows_of(image).mean(1)

    def classify(self, state: Tensor, batch: Sequence[Prompted]) -> Tensor:
        return self.hf.answer(self.hf.pooling(self.between(self.n_layers, state)))
