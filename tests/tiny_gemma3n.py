"""A tiny random folder of Gemma 3n, in the layout of google/gemma-3n-E2B-it: the tower that sees lies in it too.

The model that is saved is the library's own class; that tower, which takes timm to make, is a few plain weights under
the names that timm's have.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import TokenizersBackend
from transformers.models.gemma3n import modeling_gemma3n

from tests.families.words import words

MEL = 16
N_POSITIONS = 34
"""Of every clip, 5.44 s; of the real ones 188, 30 s."""
TEXT = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<start_of_audio>"]
PICTURES, SOUNDS = ["<end_of_image>", "<image_soft_token>"], ["<end_of_audio>", "<audio_soft_token>"]
NAMED = {"boi_token": TEXT[5], "eoi_token": PICTURES[0], "image_token": PICTURES[1]}
NAMED |= {"boa_token": TEXT[6], "eoa_token": SOUNDS[0], "audio_token": SOUNDS[1]}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'audio' %}<audio_soft_token>{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


class Sees(nn.Module):
    """In the place of timm's model."""

    def __init__(self) -> None:
        super().__init__()
        self.timm_model = nn.ModuleDict({"conv_stem": nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3)})})
        self.timm_model["blocks"] = nn.ModuleList([nn.ModuleList([nn.Conv2d(4, 4, 1)]) for _ in range(2)])


@contextmanager
def without_timm() -> Iterator[None]:
    """The library makes `Sees` where it would ask for timm."""
    made = hf.AutoModel.from_config

    def from_config(config: Any, **how: Any) -> Any:
        return Sees() if config.model_type == "gemma3n_vision" else made(config, **how)

    with mock.patch.object(modeling_gemma3n.AutoModel, "from_config", from_config):
        yield


def library_model(folder: Path) -> Any:
    """The folder as the library itself opens it, tower and all."""
    with without_timm():
        return hf.Gemma3nForConditionalGeneration.from_pretrained(folder).eval()


def tokenizer_of(folder: Path) -> Any:
    """Ids in the real order: text, then those of pictures, then those of sound."""
    tokenizer = words(TokenizersBackend, TEXT, eos="<eos>", pad="<pad>")
    tokenizer.bos_token = "<bos>"
    tokenizer.add_tokens([AddedToken(token, special=True) for token in (*PICTURES, *SOUNDS)])
    starts = TemplateProcessing(single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", TEXT.index("<bos>"))])
    tokenizer.backend_tokenizer.post_processor = starts
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "extra_special_tokens": NAMED}))
    return hf.AutoTokenizer.from_pretrained(folder)


def save_gemma3n(
    folder: Path,
    *,
    n_layers: int = 5,
    d_model: int = 32,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    seed: int = 0,
    text: dict[str, Any] | None = None,
) -> Path:
    """The last two layers read keys and values of earlier ones; of the first two most neurons are silent."""
    tokenizer = tokenizer_of(folder)
    n_text = tokenizer.convert_tokens_to_ids(PICTURES[0])
    at = {"vision": n_text, "audio": tokenizer.convert_tokens_to_ids(SOUNDS[0])}
    kinds = ["sliding_attention" if i % 2 else "full_attention" for i in reversed(range(n_layers))]
    config = hf.Gemma3nConfig(
        text_config={
            "vocab_size": at["audio"] + 4,
            "vocab_size_per_layer_input": n_text,
            "hidden_size": d_model,
            "hidden_size_per_layer_input": 8,
            "intermediate_size": 2 * d_model,
            "num_hidden_layers": n_layers,
            "num_attention_heads": n_heads,
            "num_key_value_heads": n_kv_heads,
            "head_dim": d_model // n_heads,
            "layer_types": kinds,
            "sliding_window": 16,
            "num_kv_shared_layers": max(0, min(2, n_layers - 2)),
            "laurel_rank": 4,
            "activation_sparsity_pattern": [0.8 if i < 2 else 0.0 for i in range(n_layers)],
            "max_position_embeddings": 2048,
            "initializer_range": 0.15,
            **(text or {}),
        },
        audio_config={
            "vocab_size": 4,
            "vocab_offset": at["audio"],
            "input_feat_size": MEL,
            "hidden_size": 16,
            "conf_num_attention_heads": 2,
            "conf_num_hidden_layers": 1,
            "sscp_conv_channel_size": [8, 4],
        },
        vision_config={"vocab_size": at["audio"] - n_text, "vocab_offset": at["vision"], "hidden_size": 16},
        audio_soft_tokens_per_image=N_POSITIONS,
        **{f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in NAMED.items()},
    )
    torch.manual_seed(seed)
    with without_timm():
        model = hf.Gemma3nForConditionalGeneration(config).eval()
    made = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():  # at the library's initial values scales are 1 or 0, and streams would hardly differ
        for name, weight in model.named_parameters():
            if ".altup." in name and weight.ndim > 1:  # what says how much of one stream goes into another
                weight.normal_(0, 1.5, generator=made)
            elif weight.ndim > 1 and weight.std() < 0.1:
                weight.normal_(0, 0.3 if "embed" in name else 0.5, generator=made)
            elif weight.ndim == 1:
                weight.add_(0.2 * torch.randn(weight.shape, generator=made))
    model.save_pretrained(folder)
    _add_unread_keys(folder / "model.safetensors", n_layers)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    extractor = hf.Gemma3nAudioFeatureExtractor(feature_size=MEL)
    about = {k: v for k, v in json.loads(extractor.to_json_string()).items() if k not in ("mel_filters", "window")}
    images = {"image_processor_type": "SiglipImageProcessorFast", "size": {"height": 768, "width": 768}}
    whole = {**about, **images, "processor_class": "Gemma3nProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(whole))
    lengths = {"audio_seq_length": N_POSITIONS, "image_seq_length": 256, "processor_class": "Gemma3nProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(lengths))
    return folder


def _add_unread_keys(path: Path, n_layers: int) -> None:
    """As on the hub: layers that read keys and values of earlier ones hold some of their own, which nothing reads."""
    weights = load_file(path)
    for layer in range(n_layers):
        for name in ("k_proj", "v_proj", "k_norm"):
            key = f"model.language_model.layers.{layer}.self_attn.{name}.weight"
            weights.setdefault(key, weights[key.replace(f"layers.{layer}.", "layers.0.")].clone())
    save_file(weights, path, metadata={"format": "pt"})
