"""A decoder type that the library has not, under names of its own: one row of the table has to be enough for it."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from tests.families.audio_llms import Sizes, save_model, tower, whisper
from tests.families.words import chatml, qwen


class MadeUpConfig(PreTrainedConfig):
    model_type = "made_up"
    sub_configs = {"talks": LlamaConfig, "listens": hf.AudioFlamingo3EncoderConfig}

    def __init__(self, talks: Any = None, listens: Any = None, sound: int = 3, **more: Any) -> None:
        self.talks = LlamaConfig(**talks) if isinstance(talks, dict) else talks
        self.listens = hf.AudioFlamingo3EncoderConfig(**listens) if isinstance(listens, dict) else listens
        self.sound = sound
        super().__init__(**more)


class Mixing(nn.Module):
    """Attention under other names; heads of d_model / 2 n_heads, so that their width is not the usual quotient."""

    def __init__(self, about: Any, layer: int) -> None:
        super().__init__()
        self.heads, self.width, self.layer = about.num_attention_heads, about.head_dim, layer
        wide = self.heads * self.width
        self.into = nn.Linear(about.hidden_size, 3 * wide)
        self.back = nn.Linear(wide, about.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None, angles: tuple[Tensor, Tensor], cache: Any) -> Tensor:
        n, pos, _ = x.shape
        q, k, v = self.into(x).view(n, pos, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        q, k = apply_rotary_pos_emb(q, k, *angles)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and pos > 1)
        return self.back(out.transpose(1, 2).reshape(n, pos, -1))


class Stage(nn.Module):
    """A block whose two halves run side by side, unlike Llama's."""

    def __init__(self, about: Any, layer: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(about.hidden_size)
        self.mixing = Mixing(about, layer)
        self.thinking = nn.Sequential(
            nn.Linear(about.hidden_size, about.intermediate_size),
            nn.GELU(),
            nn.Linear(about.intermediate_size, about.hidden_size),
        )

    def forward(self, hidden_states: Tensor, attention_mask=None, position_embeddings=None, past_key_values=None, **_):
        x = self.before(hidden_states)
        mixed = self.mixing(x, attention_mask, position_embeddings, past_key_values)
        return hidden_states + mixed + self.thinking(x)


class MadeUpPreTrained(PreTrainedModel):
    config_class = MadeUpConfig
    base_model_prefix = ""
    _supports_sdpa = True


class Talker(nn.Module):
    def __init__(self, about: Any) -> None:
        super().__init__()
        self.about = about
        self.stages = nn.ModuleList(Stage(about, layer) for layer in range(about.num_hidden_layers))
        self.last = nn.LayerNorm(about.hidden_size)
        self.turn = LlamaRotaryEmbedding(about)

    def forward(self, inputs_embeds, attention_mask=None, position_ids=None, past_key_values=None, use_cache=False):
        if position_ids is None:
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None]
        mask = hf.masking_utils.create_causal_mask(
            config=self.about,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        angles, x = self.turn(inputs_embeds, position_ids), inputs_embeds
        for stage in self.stages:
            x = stage(x, attention_mask=mask, position_embeddings=angles, past_key_values=past_key_values)
        return hf.modeling_outputs.BaseModelOutputWithPast(last_hidden_state=self.last(x))


class MadeUpForConditionalGeneration(MadeUpPreTrained):
    def __init__(self, config: MadeUpConfig) -> None:
        super().__init__(config)
        config.talks._attn_implementation = config._attn_implementation
        self.names = nn.Embedding(config.talks.vocab_size, config.talks.hidden_size)
        self.listener = AutoModel.from_config(config.listens)
        self.bridge = nn.Linear(config.listens.hidden_size, config.talks.hidden_size)
        self.talker = Talker(config.talks)
        self.spell = nn.Linear(config.talks.hidden_size, config.talks.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, input_features=None, input_features_mask=None, use_cache=False):
        embeds, at = self.names(input_ids), input_ids == self.config.sound
        heard = self.listener(input_features, input_features_mask=input_features_mask).last_hidden_state
        embeds = embeds.masked_scatter(at[..., None], self.bridge(heard[0, : int(at.sum())]))
        out = self.talker(inputs_embeds=embeds, attention_mask=attention_mask, use_cache=use_cache)
        return CausalLMOutputWithPast(logits=self.spell(out.last_hidden_state))


ROW = {
    "blocks": "talker.stages",
    "sizes": "talks",
    "decoder": "talker",
    "norm": "talker.last",
    "head": "spell",
    "rotary": "talker.turn",
    "audio_token_id": "sound",
    "attn": "mixing",
    "attn_proj": "mixing.back",
    "mlp": "thinking",
    "mlp_proj": "thinking.2",
    "mid": None,  # its two halves run side by side, so there is nothing between them
}
"""The row that describes it."""


def save_made_up(folder: Path, **sizes: Any) -> Path:
    """Write a folder whose processor is the library's for Audio Flamingo 3, which hears alike."""
    given, tokenizer = Sizes(**sizes), qwen(["<sound>"])
    talks = given.text(tokenizer, head_dim=2 * (given.d_model // given.n_heads // 2 // 2), num_key_value_heads=4)
    config = MadeUpConfig(talks=talks, listens=tower(), sound=tokenizer.convert_tokens_to_ids("<sound>"))
    save_model(folder, MadeUpForConditionalGeneration, config, given)
    extractor = whisper(return_attention_mask=True)
    hf.AudioFlamingo3Processor(extractor, tokenizer, chat_template=chatml("<sound>")).save_pretrained(folder)
    return folder


def register() -> None:
    """Make the type known to the library."""
    AutoConfig.register("made_up", MadeUpConfig, exist_ok=True)
    AutoModelForCausalLM.register(MadeUpConfig, MadeUpForConditionalGeneration, exist_ok=True)
