"""A hand-made model in which it is known which layer, in which half of the recording, carries the label.

Every position holds which label its stretch of the recording sounds like. One layer's feed-forward part, and that only
in one half of the recording, writes it where the readout looks; all other layers write what nobody reads. So patching
`mlp_out` moves the answer in one cell of a map of two windows, and in no other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from interp_core.cache import ByteCache
from interp_core.data.clips import Clip
from interp_core.data.pairs import build_pairs, parse_kinds
from interp_core.digests import digest_of
from interp_core.experiments.patching.plan import plan
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.run import run_patching
from interp_core.models.arch import EncoderArch
from interp_core.models.prompted import Prompted, Stem
from interp_core.models.subject import Subject
from interp_core.sinks import MEMORY
from interp_core.trace.store import CleanStore

LABELS = ("happy", "sad", "angry")
RATE, FRAME, POSITIONS, JUNK = 1000, 10, 12, 4
LEVELS = (0.1, 0.4, 0.8)
"""How loud a stretch of each label is."""
HEARD, HALF, WRITTEN = slice(0, 3), 3, slice(4, 7)
WIDTH = 7 + JUNK


class Writer(nn.Module):
    """Writes what is heard, in one half of the recording, or junk into columns that nobody reads."""

    def __init__(self, half: int | None, seed: int) -> None:
        super().__init__()
        self.half = half
        weights = torch.randn(WIDTH, JUNK, generator=torch.Generator().manual_seed(seed))
        self.junk = nn.Parameter(weights, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[..., -JUNK:] = torch.tanh(x @ self.junk)
        if self.half is not None:
            out[..., WRITTEN] = 4 * x[..., HEARD] * (x[..., HALF : HALF + 1] == self.half)
        return out


class Block(nn.Module):
    def __init__(self, half: int | None, seed: int) -> None:
        super().__init__()
        self.mlp = Writer(half, seed)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states + self.mlp(hidden_states)


class Net(nn.Module):
    """Frames of samples -> what each sounds like -> blocks -> the mean of what was written."""

    def __init__(self, layer: int, half: int, n_layers: int, seed: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="planted", hidden_size=WIDTH, num_attention_heads=1)
        self.blocks = nn.ModuleList(Block(half if at == layer else None, seed + at) for at in range(n_layers))

    def forward(self, samples: Tensor) -> Tensor:
        frames = samples.view(len(samples), -1, FRAME)
        loud = frames.abs().amax(-1, keepdim=True)  # [batch, pos, 1]
        x = torch.zeros(*frames.shape[:2], WIDTH)
        x[..., HEARD] = torch.softmax(-80 * (loud - torch.tensor(LEVELS)).abs(), -1) * (loud > 0.05)  # silence: none
        x[..., HALF] = (torch.arange(frames.shape[1]) >= frames.shape[1] // 2).float()
        x[..., -JUNK:] = frames[..., :JUNK]
        for block in self.blocks:
            x = block(x)
        return x[..., WRITTEN].mean(1)


@dataclass(eq=False)
class Planted(Subject):
    spans: ClassVar[tuple[str, ...]] = ("audio", "all")
    sample_rate = RATE  # type: ignore[assignment]
    max_seconds = 10.0  # type: ignore[assignment]
    asks = False  # type: ignore[assignment]
    answers = LABELS  # type: ignore[assignment]

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        return {"samples": torch.from_numpy(samples)[None]}

    def seconds_per_position(self) -> float:
        return FRAME / RATE

    def prompted(self, stem: Stem) -> Prompted:
        embeds = stem.args[0][0]
        none = torch.zeros(len(embeds), dtype=torch.long)
        return Prompted(
            stem.key, stem.clip_id, stem.inputs, embeds, none, (0, len(embeds)), FRAME / RATE, worded=False
        )  # fmt: skip

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.hf(inputs["samples"])

    def readout(self, hidden: Tensor, batch: Sequence[Prompted]) -> Tensor:
        return hidden[..., WRITTEN].mean(1)


def planted(layer: int, half: int, *, n_layers: int = 3, seed: int = 0) -> Planted:
    net = Net(layer, half, n_layers, seed).eval()
    arch: Any = EncoderArch(blocks="blocks", sizes="", body="none", attn=None, attn_proj=None, mlp="mlp", mlp_proj=None)
    return Planted("planted", f"{layer}-{half}-{n_layers}-{seed}", net, arch)


def clips(folder, *, texts: int = 12, seed: int = 0, shuffled: bool = False) -> list[Clip]:
    """Every text in every label, of 12 positions; `shuffled`: their labels have nothing to do with how they sound.

    A tenth of a clip's frames sound like another label, so that no two clips are alike.
    """
    rng, found = np.random.default_rng(seed), []
    for text in range(texts):
        sounds = rng.permutation(3) if shuffled else np.arange(3)
        for label, sound in zip(LABELS, sounds, strict=True):
            levels = np.where(rng.random(POSITIONS) < 0.1, rng.choice(LEVELS, POSITIONS), LEVELS[sound])
            wave = np.repeat(levels, FRAME) * np.where(rng.random(POSITIONS * FRAME) < 0.5, -1, 1)
            path = folder / f"{seed}-{int(shuffled)}-{text}-{label}.wav"
            soundfile.write(path, wave, RATE, subtype="FLOAT")
            about = {"text_id": f"t{text}", "prosody_label": label, "semantic_label": LABELS[0]}
            found.append(Clip(path.stem, path, about, digest_of(path)))
    return found


def mapped(subject: Planted, some: Sequence[Clip], *, seed: int = 0, **settings: Any):
    """A run of the time map over pairs of the clips."""
    asked = PatchRequest(
        "planted", "none", kinds="prosody", labels=LABELS, prompts=("",), site="mlp_out", positions="audio",
        controls=("random",), flow=(), checks=False, maps=("time",), windows=2, max_pairs=24, seed=seed, **settings,
    )  # fmt: skip
    made = build_pairs(some, parse_kinds("prosody"), labels=LABELS, max_pairs=asked.max_pairs, seed=seed)
    store = CleanStore(subject, ByteCache(1 << 26))
    config = {"settings": {"labels": LABELS, "prompts": ("",)}, "model": {"id": "planted"}}
    return run_patching(plan(subject, made, some, asked), store, some, config, sink=MEMORY)
