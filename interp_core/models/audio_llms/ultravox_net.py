"""The network of Ultravox (Fixie), built from the library's modules so that its checkpoints open without its code.

Speech goes through Whisper's encoder, 30 s at a time, and through a projector that makes one embedding of
`stack_factor` encoder frames; the embeddings take the places that the prompt keeps for them. The module names are those
of the checkpoint.

Source: github.com/fixie-ai/ultravox (commit 648efe7, of version 0.6): ultravox/model/ultravox_model.py (projector,
encoder with masks, splice), ultravox_config.py.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.whisper.modeling_whisper import WhisperEncoder

NOT_READ = (r"rotary_emb\.inv_freq$",)
"""Tables that older files hold and the library computes."""
SWIGLU = "swiglu"


class UltravoxConfig(PreTrainedConfig):
    """config.json, whose two towers may stand in it or be named by the two ids."""

    model_type = "ultravox"
    attribute_map = {"audio_token_id": "audio_token_index"}
    sub_configs_defaults = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
        "audio_config": SubConfigSpec(config_class=AutoConfig, model_type="whisper"),
    }

    text_config: Any = None
    audio_config: Any = None
    text_model_id: str | None = None
    audio_model_id: str | None = None
    audio_token_index: int | None = None
    hidden_size: int = 4096
    stack_factor: int = 8
    projector_act: str = SWIGLU
    projector_ln_mid: bool = False
    """Where the projector's second norm stands: behind its first matrix, or as up to version 0.4.1 behind both."""
    audio_latency_block_size: int | None = None
    """Encoder frames of a block that sees itself and what is before it; None for an encoder that sees everything."""


class UltravoxEncoder(WhisperEncoder):
    """Whisper's encoder on any number of frames up to its window, and blind to padding."""

    def __init__(self, config: Any, block: int | None = None) -> None:
        super().__init__(config)
        self.block = block

    @property
    def window(self) -> int:
        """Mel frames that it takes at a time."""
        return int(self.config.max_source_positions * self.conv1.stride[0] * self.conv2.stride[0])

    def forward(self, mel: Tensor, heard: Tensor) -> Tensor:
        """Frames of sound to states.

        Args:
            mel: [windows, mel bands, n] log-mel frames, n at most `window`.
            heard: [windows] how many of them are no padding.
        Returns:
            [windows, ceil(n / 2), d_encoder] behind the final norm; those of padding mean nothing.
        """
        x = nn.functional.gelu(self.conv2(nn.functional.gelu(self.conv1(mel)))).transpose(1, 2)
        hidden = x + self.embed_positions(torch.arange(x.shape[1], device=x.device))
        mask = self._mask(hidden, (heard + 1) // 2)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return self.layer_norm(hidden)

    def _mask(self, hidden: Tensor, heard: Tensor) -> Tensor | None:
        """What is added to the attention's scores, [windows, 1, frames or 1, frames]; None where every frame sees all
        others."""
        at = torch.arange(hidden.shape[1], device=hidden.device)
        seen = (at < heard.to(hidden.device)[:, None])[:, None, None]
        if self.block:
            seen = seen & (at[:, None] // self.block >= at // self.block)
        elif bool(seen.all()):
            return None
        return torch.zeros_like(seen, dtype=hidden.dtype).masked_fill(~seen, torch.finfo(hidden.dtype).min)


class UltravoxProjector(nn.Module):
    """From encoder frames [windows, frames, d_encoder] to embeddings [windows, positions, d_model], of `stack_factor`
    frames each."""

    def __init__(self, config: UltravoxConfig) -> None:
        super().__init__()
        self.stack = config.stack_factor
        self.act_name = config.projector_act
        d_in, d_out = config.audio_config.d_model * self.stack, config.text_config.hidden_size
        d_mid = config.hidden_size // 2 if self.act_name == SWIGLU else config.hidden_size
        self.ln_pre = LlamaRMSNorm(d_in, eps=1e-6)
        self.linear_1 = nn.Linear(d_in, config.hidden_size, bias=False)
        self.linear_2 = nn.Linear(d_mid, d_out, bias=False)
        at_mid = config.projector_ln_mid
        self.ln_mid = LlamaRMSNorm(d_mid, eps=1e-6) if at_mid else nn.Identity()
        self.ln_post = nn.Identity() if at_mid else LlamaRMSNorm(d_out, eps=1e-6)

    def forward(self, frames: Tensor) -> Tensor:
        padded = nn.functional.pad(frames, (0, 0, 0, -frames.shape[1] % self.stack))
        x = self.linear_1(self.ln_pre(padded.unflatten(1, (-1, self.stack)).flatten(2)))
        if self.act_name == SWIGLU:
            value, gate = x.chunk(2, dim=-1)
            x = value * nn.functional.silu(gate)
        else:
            x = ACT2FN[self.act_name](x)
        return self.ln_post(self.linear_2(self.ln_mid(x)))


class UltravoxModel(PreTrainedModel):
    """Ultravox from log-mel frames and token ids to text logits."""

    config_class = UltravoxConfig
    config: UltravoxConfig
    main_input_name = "input_ids"
    _no_split_modules = ["WhisperEncoderLayer", "LlamaDecoderLayer", "UltravoxProjector"]
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: UltravoxConfig) -> None:
        super().__init__(config)
        self.audio_tower = UltravoxEncoder(config.audio_config, config.audio_latency_block_size)
        self.multi_modal_projector = UltravoxProjector(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self._no_split_modules = [*self._no_split_modules, *(self.language_model._no_split_modules or [])]
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        audio_values: Tensor | None = None,
        audio_lens: Tensor | None = None,
        audio_token_start_idx: Tensor | None = None,
        audio_token_len: Tensor | None = None,
        audio_batch_size: Tensor | None = None,
        **more: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits [batch, pos, d_vocab].

        Args:
            input_ids: [batch, pos]; any ids stand at the places of the audio.
            attention_mask: [batch, pos].
            audio_values: [windows, mel bands, frames] log-mel frames of all rows' clips.
            audio_lens: [windows] frames that are no padding.
            audio_token_start_idx, audio_token_len: [windows] where each one's embeddings go, and how many.
            audio_batch_size: [batch] how many windows a row has; all of them the first one's when left out.
            more: for the decoder.
        """
        embeds = self.embedded(
            input_ids, audio_values, audio_lens, audio_token_start_idx, audio_token_len, audio_batch_size
        )
        return self.language_model(inputs_embeds=embeds, attention_mask=attention_mask, **more)

    def embedded(
        self,
        input_ids: Tensor,
        values: Tensor | None,
        heard: Tensor | None,
        starts: Tensor | None,
        lengths: Tensor | None,
        counts: Tensor | None,
    ) -> Tensor:
        """Return [batch, pos, d_model] with the audio at its places; arguments as of `forward`."""
        embeds = self.get_input_embeddings()(input_ids)
        if values is None:
            return embeds
        assert heard is not None and starts is not None and lengths is not None
        embeds = embeds.clone()
        states = self.audio_tower(values.to(self.audio_tower.conv1.weight.dtype), heard)
        audio = self.multi_modal_projector(states.to(embeds.dtype))
        rows = [row for row, n in enumerate([len(values)] if counts is None else counts.tolist()) for _ in range(n)]
        for row, made, start, n in zip(rows, audio, starts.tolist(), lengths.tolist(), strict=True):
            embeds[row, start : start + n] = made[:n].to(embeds.device)
        return embeds

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **more: Any) -> Any:
        """As in the original: the decoder's own `generate()`, given ids and embeddings."""
        audio = {name: more.pop(name, None) for name in _AUDIO}
        embeds = self.embedded(input_ids, *audio.values())
        return self.language_model.generate(
            input_ids=input_ids, inputs_embeds=embeds, attention_mask=attention_mask, **more
        )


_AUDIO = ("audio_values", "audio_lens", "audio_token_start_idx", "audio_token_len", "audio_batch_size")
