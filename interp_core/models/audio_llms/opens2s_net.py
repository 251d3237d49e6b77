"""The network of OpenS2S (CASIA-LM), rebuilt from the library's modules so that its checkpoints open without its code.

Speech goes through a Qwen2-Audio encoder, 30 s at a time, and through an adapter that makes one embedding of four
encoder frames; the embeddings take the place of one placeholder in the prompt of a Qwen3 decoder. The module names are
those of the checkpoint. Its speech output (`tts_lm_model`, `llm2tts`, `llm_ln`) comes behind the text logits and is
left out.

Source: github.com/CASIA-LM/OpenS2S, read in public copies: src/modeling_omnispeech.py (children, splice, left padding),
src/modeling_audio_encoder.py (30 s segments, lengths), src/modeling_adapter.py (the adapter), src/utils.py,
src/configuration_omnispeech.py. Of src/constants.py only the values, as other scripts repeat them, were seen.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, Qwen2AudioEncoderConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from interp_core.errors import InterpError

AUDIO_TOKEN_ID = -200
"""Stands in `input_ids` where a clip goes; no token of the vocabulary."""
NOT_READ = (r"^tts_", r"^llm2tts\.", r"^llm_ln\.")
"""Weights of the speech output."""


class OpenS2SConfig(PreTrainedConfig):
    """The parts of a checkpoint's config.json that the text side needs; everything else is kept as it came."""

    model_type = "omnispeech"
    sub_configs_defaults = {"audio_encoder_config": Qwen2AudioEncoderConfig, "llm_config": Qwen3Config}

    audio_encoder_config: Any = None
    llm_config: Any = None
    adapter_inner_dim: int = 512
    conv_kernel_sizes: str = "5,5"
    audio_token_id: int = AUDIO_TOKEN_ID


class _Halving(nn.Module):
    """Strided convolutions with gated linear units; each halves the frames, rounding up (arXiv:1911.08460)."""

    def __init__(self, d_in: int, d_out: int, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        # The gate eats half of what a convolution puts out: 2 * d_in between two of them, 2 * d_out behind the last.
        last = len(kernel_sizes) - 1
        self.conv_layers = nn.ModuleList(
            nn.Conv1d(d_in, 2 * (d_out if i == last else d_in), size, stride=2, padding=size // 2)
            for i, size in enumerate(kernel_sizes)
        )

    def forward(self, frames: Tensor) -> Tensor:
        x = frames.transpose(1, 2)  # [batch, frames, d_in] -> [batch, d_in, frames]
        for conv in self.conv_layers:
            x = nn.functional.glu(conv(x), dim=1)
        return x.transpose(1, 2)


class OpenS2SAdapter(nn.Module):
    """From encoder frames [batch, frames, d_encoder] to embeddings [batch, positions, d_model]."""

    def __init__(self, d_encoder: int, d_inner: int, d_model: int, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        self.subsampler = _Halving(d_encoder, d_model, kernel_sizes)
        self.fc1 = nn.Linear(d_model, d_inner, bias=False)
        self.fc2 = nn.Linear(d_inner, d_model, bias=False)
        self.ln = nn.LayerNorm(d_model)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.subsampler(frames)
        return self.ln(x + self.fc2(nn.functional.gelu(self.fc1(x))))


class OpenS2SModel(PreTrainedModel):
    """OpenS2S from log-mel frames and token ids to text logits."""

    config_class = OpenS2SConfig
    config: OpenS2SConfig
    main_input_name = "input_ids"
    _no_split_modules = ["Qwen2AudioEncoderLayer", "Qwen3DecoderLayer", "OpenS2SAdapter"]
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: OpenS2SConfig) -> None:
        super().__init__(config)
        encoder, llm = config.audio_encoder_config, config.llm_config
        self.audio_encoder_model = Qwen2AudioEncoder(encoder)
        sizes = [int(size) for size in config.conv_kernel_sizes.split(",")]
        self.audio_adapter = OpenS2SAdapter(encoder.d_model, config.adapter_inner_dim, llm.hidden_size, sizes)
        self.llm_model = Qwen3ForCausalLM(llm)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.llm_model.get_input_embeddings()

    @property
    def window(self) -> int:
        """Mel frames that the encoder takes at a time."""
        return 2 * self.config.audio_encoder_config.max_source_positions

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        speech_values: Tensor | None = None,
        speech_mask: Tensor | None = None,
        use_cache: bool = False,
    ) -> CausalLMOutputWithPast:
        """Return logits [batch, expanded pos, d_vocab]; rows are left-padded to the longest expanded one.

        Args:
            input_ids: [batch, pos] with one -200 a clip; padding is where `attention_mask` is 0, on either side.
            attention_mask: [batch, pos]; all ones when left out.
            speech_values: [clips, mel bands, n * window] log-mel frames, clips in the order of the markers.
            speech_mask: [clips, n * window], 1 on the frames that hold sound; all ones when left out.
        Raises:
            InterpError: not as many clips as markers, or frames that are not whole windows.
        """
        keep = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [ids[kept.bool()] for ids, kept in zip(input_ids, keep, strict=True)]
        clips = [] if speech_values is None else self.speech_embeddings(speech_values, speech_mask)
        markers = [int((ids == AUDIO_TOKEN_ID).sum()) for ids in rows]
        if sum(markers) != len(clips):
            raise InterpError(
                f"{sum(markers)} audio markers ({AUDIO_TOKEN_ID}) in input_ids but {len(clips)} clips in "
                "speech_values; each marker takes one clip."
            )
        waiting = iter(clips)
        spliced = [self._spliced(ids, list(islice(waiting, n))) for ids, n in zip(rows, markers, strict=True)]
        longest = max(len(row) for row in spliced)
        embeds = spliced[0].new_zeros(len(spliced), longest, spliced[0].shape[-1])
        mask = torch.zeros(len(spliced), longest, dtype=torch.long, device=embeds.device)
        for i, row in enumerate(spliced):
            embeds[i, longest - len(row) :] = row
            mask[i, longest - len(row) :] = 1
        return self.llm_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=use_cache,
        )

    def _spliced(self, ids: Tensor, clips: Sequence[Tensor]) -> Tensor:
        """Return the embeddings [expanded pos, d_model] of one row of ids [pos], without padding."""
        embed = self.get_input_embeddings()
        at = (ids == AUDIO_TOKEN_ID).nonzero().flatten().tolist()
        texts = [embed(ids[a:b]) for a, b in zip([0, *(i + 1 for i in at)], [*at, len(ids)], strict=True)]
        pieces = [texts[0]]
        for clip, text in zip(clips, texts[1:], strict=True):
            pieces += [clip.to(text.device, text.dtype), text]
        return torch.cat(pieces)

    def speech_embeddings(self, values: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """Return what stands at each clip's positions, [positions, d_model] a clip.

        Each clip comes out as it does alone. (The original cuts a batch to its longest clip only, so there the last
        positions of a shorter one also see a little of the silence behind it.)
        """
        window = self.window
        if values.shape[-1] == 0 or values.shape[-1] % window:
            raise InterpError(
                f"speech_values has {values.shape[-1]} mel frames; the encoder takes whole windows of {window}, so pad "
                "the clip with silence."
            )
        mask = torch.ones_like(values[:, 0], dtype=torch.long) if mask is None else mask
        return [self._clip_embeddings(clip, heard) for clip, heard in zip(values, mask, strict=True)]

    def _clip_embeddings(self, values: Tensor, mask: Tensor) -> Tensor:
        """One clip: values [mel bands, n * window], mask [n * window] -> [positions, d_model]."""
        window = self.window
        heard = mask.view(-1, window).sum(-1)  # mel frames a window
        heard = heard[: -(-int(heard.sum()) // window)]
        frames = sum(int(n) for n in self.audio_encoder_model._get_feat_extract_output_lengths(heard)[1])
        if frames < 1:
            return values.new_zeros(0, self.config.llm_config.hidden_size)
        segments = values[:, : len(heard) * window].unflatten(-1, (-1, window)).transpose(0, 1)
        hidden = self.audio_encoder_model(segments.contiguous()).last_hidden_state.flatten(0, 1)  # [frames, d_encoder]
        return self.audio_adapter(hidden[None, :frames])[0]
