"""Tiny random models of the real classes, saved in the real layout, and clips for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
LABELS = ("neutral", "happy", "sad", "angry", "surprised")
CORPUS = [
    "What is the emotion of this audio? Answer with exactly one word: neutral, happy, sad, angry, or surprised.",
    "system\nYou are a helpful assistant. user\nAudio 1: assistant\n",
    "neutral\nhappy\nsad\nangry\nsurprised\n",
]
RATE = 16_000


def tokenizer() -> Qwen2Tokenizer:
    """A byte-level BPE of the class that real Qwen2-Audio folders hold; whole words are single tokens."""
    base = Qwen2Tokenizer()._tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer, bpe.decoder = base.normalizer, base.pre_tokenizer, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS * 20, trainer)
    saved = json.loads(bpe.to_str())["model"]
    return Qwen2Tokenizer(
        vocab=saved["vocab"],
        merges=[tuple(m) for m in saved["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[1:],
        padding_side="left",
        model_max_length=512,
    )


def save_qwen2_audio(
    folder: Path,
    *,
    n_layers: int = 5,
    d_model: int = 48,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **text_config: Any,
) -> Path:
    """Write a random Qwen2-Audio folder; initializer_range 0.5 so that a wrong edit shows in the logits."""
    torch.manual_seed(seed)
    words = tokenizer()
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=4, return_attention_mask=True)
    audio = Qwen2AudioEncoderConfig(
        num_mel_bins=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        d_model=32,
        max_source_positions=extractor.nb_max_frames // 2,
        initializer_range=0.5,
    )
    text = Qwen2Config(
        vocab_size=len(words),
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads,
        max_position_embeddings=512,
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
        bos_token_id=None,
        initializer_range=0.5,
        **text_config,
    )
    config = Qwen2AudioConfig(
        audio_config=audio, text_config=text, audio_token_index=words.convert_tokens_to_ids("<|AUDIO|>")
    )
    model = Qwen2AudioForConditionalGeneration(config).eval().to(dtype)
    model.generation_config.pad_token_id = words.pad_token_id
    model.generation_config.eos_token_id = words.eos_token_id
    model.save_pretrained(folder)
    Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=words).save_pretrained(folder)
    return folder


def tone(seconds: float, hertz: float, seed: int = 0) -> np.ndarray:
    """A sine with a little noise, float32 at 16 kHz."""
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * hertz * time) + 0.02 * noise).astype(np.float32)
