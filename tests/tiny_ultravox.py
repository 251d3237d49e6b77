"""A tiny random Ultravox folder in the layout of the hub: the projector's weights alone, and the two models that its
config names in folders of their own.

Nothing here comes from interp_core: file names, weight names and the config are written out as the original has them.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    TokenizersBackend,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from tests.families.words import words

SPECIAL = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|finetune_right_pad_id|>"]
TEXT, AUDIO = "meta-llama/Llama-3.2-1B-Instruct", "openai/whisper-large-v3-turbo"
MELS, D_AUDIO, HIDDEN, STACK, WINDOW = 16, 24, 48, 8, 400
# What Llama 3's template makes of plain messages; the original's asks for today's date, which must not matter.
TEMPLATE = (
    "{{- '<|begin_of_text|>' }}{{- '<|start_header_id|>system<|end_header_id|>\n\nToday: ' + strftime_now('%d %b %Y')"
    " + '<|eot_id|>' }}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' +"
    " message.content | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)


def tokenizer() -> Any:
    made = words(TokenizersBackend, SPECIAL, eos="<|eot_id|>", pad="<|finetune_right_pad_id|>")
    made.add_tokens([AddedToken("<|audio|>", special=True)])  # behind the embeddings: nothing is ever looked up by it
    made.chat_template = TEMPLATE
    return made


def text_model(vocab_size: int, seed: int = 0, **sizes: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    about = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 0,
        "eos_token_id": 3,
        "tie_word_embeddings": True,
        "initializer_range": 0.5,
    }
    return LlamaForCausalLM(LlamaConfig(**{**about, **sizes})).eval().float()


def audio_model(seed: int = 1) -> WhisperForConditionalGeneration:
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=60,
        num_mel_bins=MELS,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        d_model=D_AUDIO,
        max_source_positions=WINDOW // 2,
        max_target_positions=20,
        pad_token_id=1,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        init_std=0.3,
    )
    return WhisperForConditionalGeneration(config).eval().float()


def projector(d_model: int, *, ln_mid: bool = True, seed: int = 2) -> dict[str, Tensor]:
    """The tensors of the projector by their names in a checkpoint, float32."""
    torch.manual_seed(seed)
    shapes = {
        "ln_pre.weight": (STACK * D_AUDIO,),
        "linear_1.weight": (HIDDEN, STACK * D_AUDIO),
        **({"ln_mid.weight": (HIDDEN // 2,)} if ln_mid else {"ln_post.weight": (d_model,)}),
        "linear_2.weight": (d_model, HIDDEN // 2),
    }
    return {f"multi_modal_projector.{name}": 0.5 * torch.randn(shape) for name, shape in shapes.items()}


def config_json(**changed: Any) -> dict[str, Any]:
    return {
        "architectures": ["UltravoxModel"],
        "audio_latency_block_size": None,
        "audio_model_id": AUDIO,
        "auto_map": {"AutoConfig": "ultravox_config.UltravoxConfig", "AutoModel": "ultravox_model.UltravoxModel"},
        "custom_pipelines": {"ultravox-pipeline": {"impl": "ultravox_pipeline.UltravoxPipeline", "type": "multimodal"}},
        "hidden_size": HIDDEN,
        "ignore_index": -100,
        "initializer_range": 0.02,
        "model_type": "ultravox",
        "norm_init": 0.4,
        "pad_token_id": 3,
        "projector_act": "swiglu",
        "projector_ln_mid": True,
        "stack_factor": STACK,
        "text_model_id": TEXT,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.3",
        **changed,
    }


def save_ultravox(
    folder: Path,
    *,
    n_layers: int = 3,
    d_model: int = 32,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    ln_mid: bool = True,
    own: tuple[str, ...] = (),
    **config: Any,
) -> Path:
    """Write the folder, with the models that it names inside.

    Args:
        own: of "text" and "audio", which were trained and merged: their weights and configs stand in the folder itself
            and its config names no other model for them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = tokenizer()
    made.save_pretrained(folder)
    for name in ("ultravox_model.py", "ultravox_config.py", "ultravox_processing.py", "ultravox_pipeline.py"):
        (folder / name).write_text("raise SystemExit('code of a model folder was run')\n")
    sizes = {"num_hidden_layers": n_layers, "hidden_size": d_model, "intermediate_size": 2 * d_model}
    sizes |= {"num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads}
    text, audio = text_model(len(made) - 1, seed, **sizes).to(dtype), audio_model(seed + 1).to(dtype)
    weights = {name: value.to(dtype) for name, value in projector(d_model, ln_mid=ln_mid, seed=seed + 2).items()}
    if "text" in own:
        weights |= {f"language_model.{n}": v for n, v in text.state_dict().items() if n != "lm_head.weight"}
        config |= {"text_model_id": None, "text_config": text.config.to_dict()}
    else:
        text.save_pretrained(folder / Path(TEXT).name)
    if "audio" in own:
        weights |= {f"audio_tower.{n}": v for n, v in audio.model.encoder.state_dict().items()}
        config |= {"audio_model_id": None, "audio_config": audio.config.to_dict()}
    else:
        audio.save_pretrained(folder / Path(AUDIO).name)
        WhisperFeatureExtractor(feature_size=MELS).save_pretrained(folder / Path(AUDIO).name)
    (folder / "config.json").write_text(json.dumps(config_json(projector_ln_mid=ln_mid, **config), indent=2))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
