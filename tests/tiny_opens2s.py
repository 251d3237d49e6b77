"""A tiny random OpenS2S folder in the layout of the hub, its weights by name in several files.

Nothing here comes from interp_core: the file names, weight names and the config are written out as the original has
them, and the weights are those of the library's own modules and of plain random tensors.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    Qwen2AudioEncoder,
    Qwen2AudioEncoderConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    WhisperFeatureExtractor,
)

from tests.tiny import tokenizer

ADDED = ("<|im_audio_start|>", "<|im_audio_end|>", "<|im_tts_start|>", "<|im_tts_end|>")
MELS, D_AUDIO, D_MODEL, INNER = 16, 24, 40, 12
# What Qwen3's template makes of plain messages.
TEMPLATE = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def encoder_config() -> dict[str, Any]:
    return {
        "model_type": "qwen2_audio_encoder",
        "num_mel_bins": MELS,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "d_model": D_AUDIO,
        "max_source_positions": 1500,
        "initializer_range": 0.5,
        "torch_dtype": "bfloat16",
    }


def llm_config(vocab_size: int, **changed: Any) -> dict[str, Any]:
    sizes = {
        "model_type": "qwen3",
        "vocab_size": vocab_size,
        "hidden_size": D_MODEL,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
        "initializer_range": 0.5,
        "torch_dtype": "bfloat16",
    }
    return {**sizes, **changed}


def config_json(vocab_size: int, **sizes: int) -> dict[str, Any]:
    """The fields of the hub's config.json; it says its class, but no model type."""
    return {
        "adapter_inner_dim": INNER,
        "architectures": ["OmniSpeechModel"],
        "audio_encoder_config": encoder_config(),
        "conv_kernel_sizes": "5,5",
        "interleave_strategy": "4:8",
        "llm_config": llm_config(vocab_size, **sizes),
        "lora_config": None,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "tts_lm_config": llm_config(50, hidden_size=16, num_hidden_layers=1),
    }


def weights(vocab_size: int, seed: int = 0, **sizes: int) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its name there, float32."""
    torch.manual_seed(seed)
    encoder = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**encoder_config())).float()
    llm = Qwen3ForCausalLM(Qwen3Config(**llm_config(vocab_size, **sizes))).float()
    d_model = llm.config.hidden_size
    speech = Qwen3ForCausalLM(Qwen3Config(**llm_config(50, hidden_size=16, num_hidden_layers=1))).float()
    shapes = {
        "audio_adapter.subsampler.conv_layers.0.weight": (2 * D_AUDIO, D_AUDIO, 5),
        "audio_adapter.subsampler.conv_layers.0.bias": (2 * D_AUDIO,),
        "audio_adapter.subsampler.conv_layers.1.weight": (2 * d_model, D_AUDIO, 5),
        "audio_adapter.subsampler.conv_layers.1.bias": (2 * d_model,),
        "audio_adapter.fc1.weight": (INNER, d_model),
        "audio_adapter.fc2.weight": (d_model, INNER),
        "audio_adapter.ln.weight": (d_model,),
        "audio_adapter.ln.bias": (d_model,),
        "llm2tts.weight": (16, d_model),
        "llm_ln.weight": (16,),
        "llm_ln.bias": (16,),
        "tts_lm_model.spk2tts.weight": (16, 8),
        "tts_lm_model.spk_ln.weight": (16,),
    }
    return (
        {f"audio_encoder_model.{name}": value for name, value in encoder.state_dict().items()}
        | {f"llm_model.{name}": value for name, value in llm.state_dict().items()}
        | {f"tts_lm_model.{name}": value for name, value in speech.state_dict().items()}
        | {name: 0.5 * torch.randn(shape) for name, shape in shapes.items()}
    )


def save_opens2s(
    folder: Path,
    *,
    n_layers: int = 4,
    d_model: int = D_MODEL,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shards: int = 3,
) -> Path:
    """Write the folder; `dtype` is the one that the weights are stored in."""
    folder.mkdir(parents=True)
    sizes = {
        "num_hidden_layers": n_layers,
        "hidden_size": d_model,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
    }
    words = tokenizer()
    words.add_tokens(list(ADDED), special_tokens=True)
    words.chat_template = TEMPLATE
    words.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config_json(len(words), **sizes), indent=2))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "do_sample": True}))
    WhisperFeatureExtractor(feature_size=MELS, return_attention_mask=True).save_pretrained(folder / "audio")
    named = {name: value.to(dtype).contiguous() for name, value in weights(len(words), seed, **sizes).items()}
    names = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    weight_map = {name: names[i * shards // len(named)] for i, name in enumerate(sorted(named))}
    for file in names:
        save_file({n: named[n] for n in named if weight_map[n] == file}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(v.nbytes for v in named.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
