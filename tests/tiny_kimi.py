"""A tiny random Kimi-Audio folder in the layout of the hub: weights by name in several files, tiktoken's words, the
Whisper that it hears with in a folder inside; and GLM-4-Voice's tokenizer, which published code fetches by itself.

Nothing here comes from interp_core: file names, weight names and configs are written out as the originals have them.
"""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.families.words import bpe

WHISPER, TOKENIZER = "whisper-large-v3", "glm-4-voice-tokenizer"
MELS, D_AUDIO, N_CODES, D_CODES, N_SPECIAL, MIMO = 16, 24, 40, 20, 421, 2
CODE_LAYERS, BLOCK = 2, 20
PLACES = {"msg_end": 2, "media_begin": 18, "media_end": 20, "blank": 23, "text_end": 24, "user": 27, "assistant": 28}
PLACES |= {"to_text": 32}
"""Of the special tokens that a prompt takes, behind the last byte string."""


def ranks() -> list[bytes]:
    """The byte strings of the vocabulary in the order of their ids, merges included."""
    to_byte = {sign: byte for byte, sign in bytes_to_unicode().items()}
    pieces = [bytes(to_byte[sign] for sign in token) for token in bpe(())["model"]["vocab"]]
    return [bytes([i]) for i in range(256)] + [piece for piece in pieces if len(piece) > 1]


def special(name: str) -> int:
    return len(ranks()) + PLACES[name]


def sizes_of(**changed: Any) -> dict[str, Any]:
    """The entries of config.json that say how large the decoder is."""
    about = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "vocab_size": len(ranks()) + N_SPECIAL + N_CODES,
    }
    return {**about, **changed}


def config_json(**changed: Any) -> dict[str, Any]:
    return {
        "architectures": ["MoonshotKimiaForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_moonshot_kimia.KimiAudioConfig",
            "AutoModel": "modeling_moonshot_kimia.MoonshotKimiaModel",
            "AutoModelForCausalLM": "modeling_moonshot_kimia.MoonshotKimiaForCausalLM",
        },
        "bos_token_id": len(ranks()),
        "eos_token_ids": [special("msg_end"), special("media_end")],
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "kimia_adaptor_input_dim": 4 * D_AUDIO,
        "kimia_audio_output_vocab": N_CODES + 512,
        "kimia_media_begin": special("media_begin"),
        "kimia_media_end": special("media_end"),
        "kimia_mimo_audiodelaytokens": 6,
        "kimia_mimo_layers": MIMO,
        "kimia_mimo_transformer_from_layer_index": 1,
        "kimia_text_output_vocab": len(ranks()) + N_SPECIAL,
        "kimia_token_offset": len(ranks()) + N_SPECIAL,
        "model_type": "kimi_audio",
        "num_audio_special_tokens": 512,
        "num_base_tokens": len(ranks()),
        "pad_token_id": len(ranks()) + N_SPECIAL - 1,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.44.1",
        "use_cache": True,
        "use_whisper_feature": True,
        **sizes_of(),
        **changed,
    }


def weights(seed: int = 0, **sizes: Any) -> dict[str, Tensor]:
    """Every tensor of the folder itself by its name there, float32."""
    torch.manual_seed(seed)
    about = sizes_of(**sizes)
    d = about["hidden_size"]
    made = Qwen2ForCausalLM(Qwen2Config(**about, initializer_range=0.5)).float().state_dict()
    rest = Qwen2ForCausalLM(Qwen2Config(**{**about, "num_hidden_layers": MIMO}, initializer_range=0.5)).float()
    made |= {
        name.replace("model.layers", "model.mimo_layers").replace("model.norm", "model.mimo_norm"): value
        for name, value in rest.state_dict().items()
        if name.startswith(("model.layers", "model.norm"))
    }
    made["mimo_output.weight"] = rest.lm_head.weight.detach()
    shapes = {"0.weight": (d, 4 * D_AUDIO), "0.bias": (d,), "3.weight": (d, d), "3.bias": (d,)}
    made |= {f"model.vq_adaptor.layers.{name}": 0.5 * torch.randn(shape) for name, shape in shapes.items()}
    made |= {"model.vq_adaptor.layers.4.weight": 1 + 0.2 * torch.randn(d)}
    made |= {"model.vq_adaptor.layers.4.bias": 0.2 * torch.randn(d)}
    for kind, number in (("layers", about["num_hidden_layers"]), ("mimo_layers", MIMO)):
        for layer in range(number):
            table = 1 / about["rope_theta"] ** (torch.arange(0, 8, 2) / 8)
            made[f"model.{kind}.{layer}.self_attn.rotary_emb.inv_freq"] = table
    return {name: value.contiguous() for name, value in made.items()}


def whisper(seed: int = 1) -> WhisperForConditionalGeneration:
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=60,
        num_mel_bins=MELS,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        d_model=D_AUDIO,
        max_source_positions=1500,
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


def tokenizer_json(**changed: Any) -> dict[str, Any]:
    """GLM-4-Voice's own entries, and those that it takes over from Whisper."""
    return {
        "activation_function": "gelu",
        "architectures": ["WhisperVQEncoder"],
        "attention_dropout": 0.0,
        "d_model": D_CODES,
        "dropout": 0.0,
        "encoder_attention_heads": 2,
        "encoder_causal_attention": False,
        "encoder_causal_convolution": True,
        "encoder_ffn_dim": 24,
        "encoder_layers": CODE_LAYERS + 1,
        "max_source_positions": 1500,
        "model_type": "whisper",
        "num_mel_bins": MELS,
        "pooling_kernel_size": 4,
        "pooling_position": CODE_LAYERS,
        "pooling_type": "avg",
        "quantize_causal_block_size": BLOCK,
        "quantize_causal_encoder": False,
        "quantize_commit_coefficient": 0.25,
        "quantize_ema_decay": 0.99,
        "quantize_encoder_only": True,
        "quantize_position": CODE_LAYERS,
        "quantize_vocab_size": N_CODES,
        "scale_embedding": False,
        "torch_dtype": "float32",
        **changed,
    }


def tokenizer_weights(seed: int = 2) -> dict[str, Tensor]:
    """Every tensor of the tokenizer's folder by its name there, float32."""
    torch.manual_seed(seed)
    modules: dict[str, nn.Module] = {
        "conv1": nn.Conv1d(MELS, D_CODES, 3),
        "conv2": nn.Conv1d(D_CODES, D_CODES, 3, stride=2),
        "embed_positions": nn.Embedding(1500, D_CODES),
        "embed_positions2": nn.Embedding(375, D_CODES),
        "codebook": nn.Embedding(N_CODES, D_CODES),
    }
    for layer in range(CODE_LAYERS):
        at = f"layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            modules[f"{at}.self_attn.{name}"] = nn.Linear(D_CODES, D_CODES, bias=name != "k_proj")
        modules |= {f"{at}.{name}": nn.LayerNorm(D_CODES) for name in ("self_attn_layer_norm", "final_layer_norm")}
        modules |= {f"{at}.fc1": nn.Linear(D_CODES, 24), f"{at}.fc2": nn.Linear(24, D_CODES)}
    made = {f"{at}.{name}": value.detach() for at, one in modules.items() for name, value in one.state_dict().items()}
    made = {
        name: 2 * value if value.ndim > 1 else value + 0.1 * torch.randn(value.shape) for name, value in made.items()
    }
    return made | {"ema_count": torch.ones(N_CODES), "ema_weight": made["codebook.weight"].clone()}


def save_tokenizer(folder: Path, seed: int = 2, **changed: Any) -> Path:
    """Write GLM-4-Voice's tokenizer."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(tokenizer_json(**changed), indent=2))
    WhisperFeatureExtractor(feature_size=MELS).save_pretrained(folder)
    save_file(tokenizer_weights(seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def save_kimi(
    folder: Path,
    *,
    n_layers: int = 4,
    d_model: int = 32,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shards: int = 3,
    **config: Any,
) -> Path:
    """Write the folder, GLM-4-Voice's tokenizer inside it; `dtype` is the one that the decoder is stored in."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"num_hidden_layers": n_layers, "hidden_size": d_model, "intermediate_size": 2 * d_model}
    sizes |= {"num_attention_heads": n_heads, "num_key_value_heads": n_kv_heads}
    lines = [base64.b64encode(piece) + b" %d" % rank for rank, piece in enumerate(ranks())]
    (folder / "tiktoken.model").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["tokenization_kimia.TikTokenTokenizer", None]}})
    )
    for name in ("configuration_moonshot_kimia.py", "modeling_moonshot_kimia.py", "tokenization_kimia.py"):
        (folder / name).write_text("raise SystemExit('code of a model folder was run')\n")
    (folder / "config.json").write_text(json.dumps(config_json(**sizes, **config), indent=2))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "do_sample": True}))
    for name in ("audio_detokenizer", "vocoder"):  # for speech output: never read
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "model.pt").write_bytes(b"no weights")
    whisper(seed + 1).to(dtype).save_pretrained(folder / WHISPER)
    shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
    save_tokenizer(folder / TOKENIZER, seed + 2)
    named = {name: value.to(dtype) for name, value in weights(seed, **sizes).items()}
    files = [f"model-{i + 1}-of-{shards - 1}.safetensors" for i in range(shards - 1)]
    files.append(f"model-{shards}-of-{shards}.safetensors")  # the last one counts itself, the others do not
    weight_map = {name: files[i * shards // len(named)] for i, name in enumerate(sorted(named))}
    for file in files:
        save_file({n: named[n] for n in named if weight_map[n] == file}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(v.nbytes for v in named.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
