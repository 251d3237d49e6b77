"""The network of Kimi-Audio (Moonshot AI), built from the library's modules so that its checkpoints open without code.

Each position of the decoder, whose blocks are Qwen2's, is the sum of two streams: one of sound, one of text. Where the
clip is, the stream of sound holds the embedding of a code of GLM-4-Voice's tokenizer and what an adaptor makes of four
frames of Whisper's encoder, both together times the root of 2; everywhere else it holds a token, mostly the blank. The
text stream holds the question and what is written, elsewhere the blank. Text is read off the last block by `lm_head`.

What comes out as sound (`mimo_layers`, which branch off behind layer `kimia_mimo_transformer_from_layer_index`,
`mimo_norm`, `mimo_output`) has no part in the text and is left out.

Source: github.com/MoonshotAI/Kimi-Audio (commit 2607d51): kimia_infer/api/kimia.py (which logits are of text, what is
fed back), models/tokenizer/whisper_Lv3/whisper.py (30 s pieces, lengths); of the checkpoint's own
modeling_moonshot_kimia.py (streams, adaptor, names) public copies in three projects, which agree.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Model, WhisperConfig
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from interp_core.errors import InterpError
from interp_core.models.audio_llms.glm_tokenizer import CONV_STRIDE, GlmSpeechTokenizer

AUDIO_TOKEN_ID = -1
"""Stands in the stream of sound where a code of the clip goes; no token of the vocabulary."""
FRAMES_STACKED = 4
"""Frames of Whisper's encoder that the adaptor takes for one position."""
NOT_READ = (r"^model\.mimo_(layers|norm)\.", r"^mimo_output\.", r"rotary_emb\.inv_freq$")
"""Weights of the speech output, and tables that the library computes."""


class KimiAudioConfig(Qwen2Config):
    """config.json with those of its Whisper and of GLM-4-Voice's tokenizer, which lie in folders of their own."""

    model_type = "kimi_audio"
    sub_configs_defaults = {"whisper_config": WhisperConfig, "audio_tokenizer_config": WhisperConfig}

    whisper_config: Any = None
    audio_tokenizer_config: Any = None
    kimia_token_offset: int = 152064
    """The token of code 0; all text is below."""
    kimia_adaptor_input_dim: int = 5120
    kimia_text_blank: int = 151666
    """The token of a stream that holds nothing, by the tokenizer."""
    audio_token_id: int = AUDIO_TOKEN_ID


class Adaptor(nn.Module):
    """From stacked frames of Whisper's encoder [n, kimia_adaptor_input_dim] to [n, d_model]."""

    def __init__(self, config: KimiAudioConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.layers = nn.Sequential(
            nn.Linear(config.kimia_adaptor_input_dim, width),
            nn.SiLU(),
            nn.Dropout(0.0),  # counts among the names of the checkpoint
            nn.Linear(width, width),
            nn.LayerNorm(width, eps=config.rms_norm_eps),
        )

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(frames)


class KimiDecoder(Qwen2Model):
    """Qwen2's decoder; given ids it takes them for written text, beside which the stream of sound is blank."""

    def __init__(self, config: KimiAudioConfig) -> None:
        super().__init__(config)
        self.vq_adaptor = Adaptor(config)

    def forward(self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **more: Any) -> Any:
        if inputs_embeds is None and input_ids is not None:
            blank = torch.full_like(input_ids, self.config.kimia_text_blank)
            inputs_embeds = self.embed_tokens(blank) + self.embed_tokens(input_ids)
        return super().forward(inputs_embeds=inputs_embeds, **more)


class KimiAudioModel(Qwen2ForCausalLM):
    """Kimi-Audio from two streams and log-mel frames to text logits."""

    config_class = KimiAudioConfig
    config: KimiAudioConfig
    _no_split_modules = ["Qwen2DecoderLayer", "WhisperEncoderLayer", "Adaptor", "GlmSpeechTokenizer"]
    _keep_in_fp32_modules_strict = ["audio_tokenizer"]

    def __init__(self, config: KimiAudioConfig) -> None:
        super().__init__(config)
        self.model = KimiDecoder(config)
        self.whisper = WhisperEncoder(config.whisper_config)
        self.audio_tokenizer = GlmSpeechTokenizer(config.audio_tokenizer_config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_input_ids: Tensor | None = None,
        whisper_features: Tensor | None = None,
        code_features: Tensor | None = None,
        code_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **more: Any,
    ) -> CausalLMOutputWithPast:
        """Return text logits [batch, pos, d_vocab].

        Args:
            input_ids: [batch, pos] the stream of sound, -1 where a code goes; without `text_input_ids`, text that was
                written.
            attention_mask: [batch, pos].
            text_input_ids: [batch, pos] the stream of text.
            whisper_features, code_features, code_mask: as of `embedded`.
            inputs_embeds: [batch, pos, d_model] instead of all of these.
            more: for the decoder.
        """
        if inputs_embeds is None and input_ids is not None and text_input_ids is not None:
            inputs_embeds = self.embedded(input_ids, text_input_ids, whisper_features, code_features, code_mask)
            input_ids = None
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **more)

    def embedded(
        self,
        sound_ids: Tensor,
        text_ids: Tensor,
        whisper_features: Tensor | None = None,
        code_features: Tensor | None = None,
        code_mask: Tensor | None = None,
    ) -> Tensor:
        """Return what enters the first block, [batch, pos, d_model].

        Args:
            sound_ids, text_ids: [batch, pos] the two streams.
            whisper_features: [pieces, mel bands, 3000] log-mel frames for Whisper, filled up with silence to 30 s; the
                pieces of all rows' clips, in their order.
            code_features: [pieces, mel bands, frames] the same sound for GLM-4-Voice's tokenizer.
            code_mask: [pieces, frames] 1 on those that hold sound.
        Raises:
            InterpError: not as many codes as places for one.
        """
        embed = self.model.embed_tokens
        at = sound_ids == AUDIO_TOKEN_ID
        sound = embed(sound_ids.masked_fill(at, self.config.kimia_text_blank))
        made = sound.new_zeros(0, sound.shape[-1])
        if whisper_features is not None and code_features is not None and code_mask is not None and len(code_mask):
            made = self.clip_embeddings(whisper_features, code_features, code_mask).to(sound)
        if len(made) != int(at.sum()):
            raise InterpError(
                f"the two streams have {int(at.sum())} places for codes, but the clips give {len(made)}; each place "
                f"({AUDIO_TOKEN_ID}) takes one."
            )
        sound[at] = made
        return sound + embed(text_ids)

    def clip_embeddings(self, whisper_features: Tensor, code_features: Tensor, code_mask: Tensor) -> Tensor:
        """What the stream of sound holds at the places of the codes, [codes, d_model]; arguments as of `embedded`."""
        codes = self.audio_tokenizer(code_features.to(self.audio_tokenizer.conv1.weight.dtype), code_mask)
        whole = code_mask[:, :: CONV_STRIDE * self.config.audio_tokenizer_config.pooling_kernel_size].bool()
        embeds = self.model.embed_tokens(codes[whole] + self.config.kimia_token_offset)
        states = self.whisper(whisper_features.to(self.whisper.conv1.weight.dtype)).last_hidden_state
        stacked = states.unflatten(1, (-1, FRAMES_STACKED)).flatten(2)  # [pieces, codes of 30 s, 4 * d_encoder]
        heard = torch.cat([piece[: int(n)] for piece, n in zip(stacked, whole.sum(-1), strict=True)])
        continuous = self.model.vq_adaptor(heard.to(embeds.dtype)).to(embeds.device)
        return (embeds + continuous) * torch.tensor(2.0, dtype=embeds.dtype, device=embeds.device).sqrt()
