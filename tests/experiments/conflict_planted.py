"""Hand-made models that are asked in words, of which it is known whom they follow, at which layer, what comes late.

A clip's first half sounds like its voice's label and its second half like its words'. A prompt holds words; a label
among them is what it states. Block TAKE carries what is stated to the words behind it, block READ writes an answer
where the readout looks: what is stated (text), what the voice or the words say. In a model of which the voice comes too
late, the block behind the reader writes it at the recording's positions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from interp_core.experiments.patching.plan import Plan, plan
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.result import PatchingResult
from interp_core.experiments.patching.run import run_patching
from interp_core.models.arch import EncoderArch
from interp_core.models.prompted import Prompted, Stem
from interp_core.models.subject import Subject
from interp_core.sinks import MEMORY, Sink
from interp_core.trace.store import CleanStore

LABELS = ("happy", "sad", "angry")
QUESTION = "Which is it ?"
RATE, FRAME, HALF_FRAMES = 1000, 10, 6
LEVELS = (0.1, 0.4, 0.8)
VOICE, WORDS, STATED, CARRIED, OUT = (slice(3 * at, 3 * at + 3) for at in range(5))
HEARD, READS, LAST = 15, 16, 17  # where the recording is, where words are, the last position
WIDTH, N_LAYERS, TAKE, READ = 18, 4, 1, 2


class Block(nn.Module):
    def __init__(self, layer: int, follows: str) -> None:
        super().__init__()
        self.layer, self.follows = layer, follows

    def forward(self, hidden_states: Tensor) -> Tensor:
        x, out = hidden_states, torch.zeros_like(hidden_states)
        words, heard, last = (x[..., at : at + 1] for at in (READS, HEARD, LAST))

        def over(mask: Tensor, of: slice) -> Tensor:
            """[batch, 1, 3] the mean of some columns over some positions."""
            return (mask * x[..., of]).sum(1, keepdim=True) / mask.sum(1, keepdim=True)

        if self.layer == TAKE and self.follows != "late":
            out[..., CARRIED] = (words - last) * over(words, STATED)
        if self.layer == READ - (self.follows == "late"):
            read = {"text": 9 * over(words - last, CARRIED) + over(heard, VOICE), "late": over(heard, CARRIED)}
            read |= {"voice": over(heard, VOICE), "words": over(heard, WORDS)}
            out[..., OUT] = last * read[self.follows]
        if self.layer == READ and self.follows == "late":
            out[..., CARRIED] = heard * over(heard, VOICE)
        return x + out


class Net(nn.Module):
    def __init__(self, follows: str) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="planted", hidden_size=WIDTH, num_attention_heads=1)
        self.blocks = nn.ModuleList(Block(layer, follows) for layer in range(N_LAYERS))
        self.unused = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, samples: Tensor, ids: Tensor) -> Tensor:
        frames = samples.view(len(samples), -1, FRAME).abs().amax(-1, keepdim=True)  # [batch, frames, 1]
        label = torch.softmax(-80 * (frames - torch.tensor(LEVELS)).abs(), -1)
        n = frames.shape[1]
        x = torch.zeros(len(samples), n + ids.shape[1], WIDTH)
        x[:, : n // 2, VOICE], x[:, n // 2 : n, WORDS] = label[:, : n // 2], label[:, n // 2 :]
        x[:, n:, STATED] = torch.eye(4)[ids.clamp(max=3)][..., :3] * (ids < 3)[..., None]
        x[:, :n, HEARD], x[:, n:, READS], x[:, -1, LAST] = 1, 1, 1
        for block in self.blocks:
            x = block(x)
        return x[:, -1, OUT]


@dataclass(eq=False)
class Asked(Subject):
    spans: ClassVar[tuple[str, ...]] = ("audio", "question", "last", "all")
    sample_rate = RATE  # type: ignore[assignment]
    max_seconds = 10.0  # type: ignore[assignment]
    answers = LABELS  # type: ignore[assignment]

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        words = [*prompt.replace(".", " .").split(), "<answer>"]
        known = dict(zip(LABELS, range(3), strict=True))
        ids = [known.get(word, 5 + sum(map(ord, word)) % 90) for word in words]
        return {"samples": torch.from_numpy(samples)[None], "ids": torch.tensor([ids])}

    def seconds_per_position(self) -> float:
        return FRAME / RATE

    def prompted(self, stem: Stem) -> Prompted:
        embeds, ids = stem.args[0][0], stem.inputs["ids"][0]
        n = len(embeds) - len(ids)
        every = torch.cat([torch.full((n,), 99), ids])
        return Prompted(stem.key, stem.clip_id, stem.inputs, embeds, every, (0, n), FRAME / RATE)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.hf(**inputs)

    def readout(self, hidden: Tensor, batch: Sequence[Prompted]) -> Tensor:
        return hidden[:, -1, OUT]


def planted(follows: str) -> Asked:
    """`follows`: text, voice, words, or late (the voice, which comes behind the block that reads it)."""
    arch: Any = EncoderArch(blocks="blocks", sizes="", body="none", attn=None, attn_proj=None, mlp=None, mlp_proj=None)
    return Asked("planted", follows, Net(follows).eval(), arch)


def clips(folder: Any, texts: int = 12) -> list[Clip]:
    """Every text in every voice; a text's words are one of the labels."""
    found = []
    for text in range(texts):
        for voice, label in enumerate(LABELS):
            levels = np.repeat([LEVELS[voice], LEVELS[text % 3]], HALF_FRAMES)
            path = folder / f"{text}-{label}.wav"
            wave = np.repeat(levels, FRAME) * np.where(np.arange(2 * HALF_FRAMES * FRAME) % 2, -1, 1)
            soundfile.write(path, wave + 1e-4 * (3 * text + voice), RATE, subtype="FLOAT")
            about = {"text_id": f"t{text}", "prosody_label": label, "semantic_label": LABELS[text % 3]}
            found.append(Clip(path.stem, path, about, digest_of(path)))
    return found


def laid_out(subject: Asked, some: Sequence[Clip], **settings: Any) -> tuple[Plan, CleanStore]:
    asked = PatchRequest(
        "planted", "none", kinds="prosody", labels=LABELS, prompts=(QUESTION,), site="resid_post", positions="audio",
        controls=(), flow=(), checks=False, max_pairs=24,
    )  # fmt: skip
    asked = replace(asked, **settings)
    made = build_pairs(some, parse_kinds("prosody"), labels=LABELS, max_pairs=asked.max_pairs, seed=asked.seed)
    return plan(subject, made, some, asked), CleanStore(subject, ByteCache(1 << 26))


def conflicted(subject: Asked, some: Sequence[Clip], sink: Sink = MEMORY, **settings: Any) -> PatchingResult:
    """A run over pairs of the clips."""
    made, store = laid_out(subject, some, **settings)
    config = {"settings": {"labels": LABELS, "prompts": made.settings.prompts}, "model": {"id": "planted"}}
    return run_patching(made, store, some, config, sink=sink)
