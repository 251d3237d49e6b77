"""The contract of every model here: a stem, a list of blocks on a residual stream, a readout.

The *stem* is what runs before block 0 (feature extractor, audio encoder, embeddings). No edit inside the blocks can
touch it, so it is run once a clip and kept. The *blocks* each add to the residual stream. The *readout* turns
the last block's output at one position into logits. Weights are used through the library's own modules only.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp_core.errors import InterpError
from interp_core.models.arch import SITE_MODULES, Arch, Side
from interp_core.sites import Site


@dataclass(frozen=True, eq=False)
class Prompted:
    """One clip under one prompt: what the model takes, and what enters its first block.

    Attributes:
        key: names the content: clip samples and prompt; with the subject's key it names the run.
        clip_id: for messages.
        inputs: the model's own keyword arguments, batch of one; the reference route uses nothing else.
        embeds: [pos, d_model] what enters block 0.
        token_ids: [pos] ids after expansion of the audio placeholder.
        audio: (start, stop) of the audio positions.
        seconds_per_position: time that one audio position covers.
    """

    key: str
    clip_id: str
    inputs: Mapping[str, Tensor]
    embeds: Tensor
    token_ids: Tensor
    audio: tuple[int, int]
    seconds_per_position: float

    @property
    def n_pos(self) -> int:
        return len(self.embeds)


@dataclass(eq=False)
class Subject:
    """A loaded model: the library's module plus what a sweep must know about it.

    Every forward pass, hooked or plain, holds `lock`: hooks live on the shared module, so a second thread's pass
    would otherwise see them.
    """

    name: str
    """What the user typed: a bundled name, a folder, a hub id."""
    weights_hash: str
    hf: Any
    arch: Arch
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def key(self) -> str:
        """Names all that changes the numbers: weights, dtype, device, attention kernel."""
        kernel = self.hf.config._attn_implementation
        return f"{self.weights_hash[:16]}|{str(self.dtype).removeprefix('torch.')}|{self.device.type}|{kernel}"

    @property
    def text_config(self) -> Any:
        return getattr(self.hf.config, self.arch.text_config)

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def n_heads(self) -> int:
        return self.text_config.num_attention_heads

    @property
    def d_model(self) -> int:
        return self.text_config.hidden_size

    @property
    def d_head(self) -> int:
        return getattr(self.text_config, "head_dim", None) or self.d_model // self.n_heads

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.dtype

    @property
    def device(self) -> torch.device:
        return self.hf.device

    @property
    def blocks(self) -> nn.ModuleList:
        return self.hf.get_submodule(self.arch.blocks)

    @property
    def decoder(self) -> nn.Module:
        return self.hf.get_submodule(self.arch.decoder)

    @property
    def sample_rate(self) -> int:
        raise NotImplementedError

    @property
    def max_seconds(self) -> float:
        """The longest clip that the stem hears whole; it would cut a longer one without a word."""
        raise NotImplementedError

    def locate(self, site: Site) -> tuple[nn.Module, Side]:
        """Return the module that holds a site and whether the site is its input or its output."""
        if not 0 <= site.layer < self.n_layers:
            raise InterpError(
                f"layer={site.layer} is outside {self.name}'s {self.n_layers} layers (valid: 0 to {self.n_layers - 1})."
            )
        if site.head is not None and not 0 <= site.head < self.n_heads:
            raise InterpError(
                f"head={site.head} is outside {self.name}'s {self.n_heads} heads (valid: 0 to {self.n_heads - 1})."
            )
        column, side = SITE_MODULES[site.kind]
        block = self.blocks[site.layer]
        return (block if column is None else block.get_submodule(getattr(self.arch, column))), side

    def check_ready(self) -> None:
        """Refuse to run in training mode, where dropout and layer drop make every number random."""
        if self.hf.training:
            raise InterpError(f"{self.name} is in training mode, which adds dropout; call eval() on it first.")

    def model_inputs(self, samples: np.ndarray, prompt: str) -> dict[str, Tensor]:
        """Return the library model's own keyword arguments for one clip [n_samples] under one prompt."""
        raise NotImplementedError

    def audio_span(self, token_ids: Tensor, clip_id: str) -> tuple[int, int]:
        """Return (start, stop) of the one run of audio positions; InterpError names the clip if there is not one."""
        raise NotImplementedError

    def seconds_per_position(self) -> float:
        raise NotImplementedError

    def shortcut_refusal(self) -> str | None:
        """Say why keys and values of a clean run may not stand in for recomputed ones, or None if they may."""
        return None if self.arch.causal else "attention is not causal"

    def readout(self, hidden: Tensor) -> Tensor:
        """Turn the last block's output [rows, d_model] at the readout position into float32 logits [rows, d_vocab]."""
        norm, head = self.hf.get_submodule(self.arch.norm), self.hf.get_submodule(self.arch.head)
        return head(norm(hidden)).float()

    def padded(self, prompted: Sequence[Prompted]) -> dict[str, Tensor]:
        """Left-pad several clips into the decoder's keyword arguments.

        Position ids are given in full: counted from the mask by the library, they would count the padding.

        Returns:
            inputs_embeds [batch, pos, d_model], attention_mask [batch, pos], position_ids [batch, pos].
        """
        longest = max(p.n_pos for p in prompted)
        embeds = prompted[0].embeds.new_zeros(len(prompted), longest, self.d_model)
        mask = torch.zeros(len(prompted), longest, dtype=torch.long, device=embeds.device)
        for row, p in enumerate(prompted):
            embeds[row, longest - p.n_pos :] = p.embeds
            mask[row, longest - p.n_pos :] = 1
        return {
            "inputs_embeds": embeds,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        }
