"""AASIST itself: band-pass filters over the waveform, residual units, and graphs over what they leave.

It has no transformer: its blocks are the six residual units, and their positions the bands of the spectrum by time.

Source: Jung et al. 2022, arXiv:2110.01200; github.com/clovaai/aasist (commit a04c986), models/AASIST.py and config/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from interp_core.errors import InterpError, few
from interp_core.models.countermeasure.graphs import GraphSizes, Residual, SpectroTemporalGraphs
from interp_core.models.torch_file import left_over, unlike

FILTERS, TAPS, RATE = 70, 129, 16_000  # of both published models; the filters follow from them and are not saved
BANDS = FILTERS // 3
UNITS = 6
SIZES = {
    64: GraphSizes(kept_s=0.5, kept_t=0.7, kept=0.5),  # config/AASIST.conf
    24: GraphSizes(kept_s=0.4, kept_t=0.5, kept=0.7),  # config/AASIST-L.conf
}
"""Width of the single graphs' nodes -> what no weight shows."""
_TELLS = {"pos_S", "master1", "GAT_layer_S.att_proj.weight", "encoder.0.0.conv1.weight", "out_layer.weight"}


@dataclass(frozen=True)
class RawConfig:
    """What is said of the net where other models have the library's config."""

    hidden_size: int
    model_type: str = "aasist"


class BandPass(nn.Module):
    """Windowed sinc filters whose edges are equally far apart on the mel scale, and the largest of each 3 by 3."""

    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", torch.from_numpy(_filters()), persistent=False)
        self.first_bn = nn.BatchNorm2d(1)

    def forward(self, waveform: Tensor) -> Tensor:
        """[batch, samples] -> [batch, 1, bands, frames]."""
        heard = F.conv1d(waveform[:, None], self.filters.to(waveform.dtype)[:, None])
        return F.selu(self.first_bn(F.max_pool2d(heard.abs()[:, None], 3)))


class ImageGraphs(SpectroTemporalGraphs):
    """AASIST's pooling: what is loudest in a band over time, and at a time over all bands, become the nodes."""

    def forward(self, image: Tensor) -> Tensor:
        """[batch, width, bands, frames] -> [batch, 5 outer]."""
        loud = image.abs()
        return self.joined(loud.amax(3).transpose(1, 2), loud.amax(2).transpose(1, 2))


class RawNet(nn.Module):
    """AASIST or AASIST-L.

    Args:
        widths: of the residual units, from 1 to that of a node's features.
        inner, outer: see `SpectroTemporalGraphs`. sizes: what the weights do not show.
    """

    def __init__(self, widths: tuple[int, ...], inner: int, outer: int, sizes: GraphSizes):
        super().__init__()
        self.config = RawConfig(widths[-1])
        self.front = BandPass()
        pairs = zip(widths, widths[1:], strict=False)
        self.blocks = nn.ModuleList(Residual(*pair, first=not i, thins=True) for i, pair in enumerate(pairs))
        self.pooling = ImageGraphs(BANDS, widths[-1], inner, outer, sizes)
        self.answer = nn.Linear(5 * outer, 2)

    def forward(self, waveform: Tensor) -> Tensor:
        """Logits [batch, 2] of waveforms [batch, samples] at 16 kHz."""
        image = self.front(waveform)
        for block in self.blocks:
            image = block(image)
        return self.answer(self.pooling(image))


def is_raw(weights: Mapping[str, Tensor]) -> bool:
    """Whether plain names are those of AASIST without a self-supervised model below it."""
    return _TELLS <= set(weights) and "LL.weight" not in weights


def load_raw(file: Path, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> RawNet:
    """Build the net that weights belong to.

    Args:
        file: for messages.
        weights: by their plain names.
        dtype: of the weights.
    Raises:
        InterpError: another size than the two published, or weights that are missing, left over or of other shapes.
    """
    inner = weights["GAT_layer_S.att_proj.weight"].shape[0]
    units = [weights.get(f"encoder.{i}.0.conv1.weight") for i in range(UNITS)]
    joint = weights.get("HtrgGAT_layer_ST11.att_proj.weight")
    if joint is None or any(unit is None for unit in units):
        lacking = [f"encoder.{i}.0.conv1.weight" for i, unit in enumerate(units) if unit is None]
        lacking += [] if joint is not None else ["HtrgGAT_layer_ST11.att_proj.weight"]
        raise InterpError(f"{file} lacks {few(lacking)}; it is no whole checkpoint of AASIST, so fetch it again.")
    if inner not in SIZES:
        raise InterpError(
            f"{file} is an AASIST whose nodes are {inner} wide; how many of them its graphs keep is in no weight, and "
            f"known of the published {' and '.join(map(str, SIZES))} alone, so open one of these."
        )
    widths = (1, *(len(unit) for unit in units if unit is not None))
    with no_init_weights():
        net = RawNet(widths, inner, len(joint), SIZES[inner])
    ours = {_our_name(name): name for name in weights}
    held = {ours.get(name, _their_name(name)): value for name, value in net.state_dict().items()}
    if faults := left_over(weights, held, may_lack=("num_batches_tracked",)):
        raise InterpError(f"{file} {faults}; it does not fit AASIST as its code was published.")
    if wrong := unlike(weights, held):
        raise InterpError(f"{file}: {wrong}; it does not fit AASIST as its code was published.")
    net.load_state_dict({_our_name(name): value for name, value in weights.items()}, strict=False)
    return net.to(dtype).eval().requires_grad_(False)


_FRONTS = (("encoder.", "blocks."), ("first_bn.", "front.first_bn."), ("out_layer.", "answer."), ("", "pooling."))


def _our_name(name: str) -> str:
    theirs, ours = next(pair for pair in _FRONTS if name.startswith(pair[0]))
    return (
        (ours + name.removeprefix(theirs)).replace(".0.", ".", 1) if ours == "blocks." else ours + name[len(theirs) :]
    )


def _their_name(ours: str) -> str:
    theirs, front = next(pair for pair in _FRONTS if ours.startswith(pair[1]))
    rest = ours.removeprefix(front)
    return theirs + (rest.replace(".", ".0.", 1) if front == "blocks." else rest)


def _filters() -> np.ndarray:
    """[FILTERS, TAPS] float32."""
    highest = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, FILTERS + 1) / 2595) - 1)  # Hz
    at = np.arange(TAPS) - (TAPS - 1) / 2
    low_pass = 2 * edges[:, None] / RATE * np.sinc(2 * edges[:, None] * at / RATE)
    return (np.hamming(TAPS) * np.diff(low_pass, axis=0)).astype(np.float32)
