"""What the benchmark runs on: a random model of the real class, random clips, and pairs of them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2AudioForConditionalGeneration, Qwen2Config

from interp_core.models.arch import ARCHS
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.labels import LabelTokens
from interp_core.models.prompted import Prompted
from interp_core.trace.hooks import captured

VOCAB = 2000
AUDIO_TOKEN = VOCAB - 1
BEFORE, AFTER = 16, 24
MEL_FRAMES = 3000
LONGEST = MEL_FRAMES // 4
"""Audio positions of a recording that fills the tower."""
LABELS = LabelTokens(tuple("abcde"), (11, 22, 33, 44, 55), {})


@dataclass(frozen=True)
class Size:
    """The sizes that the command line sets; widths follow Qwen2-Audio's proportions."""

    d_model: int = 512
    n_layers: int = 28
    n_kv_heads: int | None = None

    @property
    def n_heads(self) -> int:
        return max(1, self.d_model // 128)


def random_subject(size: Size, device: str, seed: int) -> AudioLLM:
    """Build a random Qwen2-Audio in float32.

    Heads of 128, as many key heads as heads and an MLP of 2.69 widths as in Qwen2-Audio-7B. There one pass of the
    audio tower (always 30 s of mel frames) costs about 2.3 TFLOP and one pass of the decoder over 160 positions
    about 2.1; the tower here is sized to the same proportion (8 layers of 3/8 width).
    """
    torch.manual_seed(seed)
    heads = size.n_heads
    tower = Qwen2AudioEncoderConfig(
        num_mel_bins=80,
        encoder_layers=8,
        encoder_attention_heads=max(1, 3 * size.d_model // 8 // 32),
        encoder_ffn_dim=4 * (3 * size.d_model // 8),
        d_model=3 * size.d_model // 8,
        max_source_positions=MEL_FRAMES // 2,
    )
    text = Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=size.d_model,
        intermediate_size=int(2.6875 * size.d_model),
        num_hidden_layers=size.n_layers,
        num_attention_heads=heads,
        num_key_value_heads=size.n_kv_heads or heads,
        initializer_range=0.02 * (4096 / size.d_model) ** 0.5,  # the gain of a layer as at the real width
    )
    config = Qwen2AudioConfig(audio_config=tower, text_config=text, audio_token_index=AUDIO_TOKEN)
    hf = Qwen2AudioForConditionalGeneration(config).eval().to(device)
    return AudioLLM(name="random", weights_hash="0" * 64, hf=hf, arch=ARCHS["qwen2_audio"])


def random_inputs(n_audio: int, seed: int, device: torch.device) -> dict[str, Tensor]:
    """Return the model's own arguments for one clip of `n_audio` audio positions; the text is the same in all."""
    text = torch.arange(1, 1 + BEFORE + AFTER)
    noise = torch.Generator().manual_seed(seed)
    ids = torch.cat([text[:BEFORE], torch.full((n_audio,), AUDIO_TOKEN), text[BEFORE:]])[None]
    heard = torch.arange(MEL_FRAMES)[None] < 4 * n_audio  # four mel frames make one audio position
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "input_features": torch.randn(1, 80, MEL_FRAMES, generator=noise) * heard[:, None],
        "feature_attention_mask": heard.long(),
    }
    return {name: value.to(device) for name, value in inputs.items()}


def stem(subject: AudioLLM, inputs: Mapping[str, Tensor], name: str) -> Prompted:
    """Run everything before block 0, audio tower included, and stop there (as `trace.clean.prompt_clip` does)."""
    with torch.inference_mode(), captured(subject, calls=[subject.decoder], stop=True) as store:
        subject.hf(**inputs, use_cache=False)
    embeds = store.calls[subject.decoder][1]["inputs_embeds"][0]
    ids = inputs["input_ids"][0]
    return Prompted(name, name, inputs, embeds, ids, subject.audio_span(ids, name), 0.04)


def clips(subject: AudioLLM, lengths: Sequence[int], seed: int) -> list[Prompted]:
    """Make one random clip a length."""
    return [stem(subject, random_inputs(n, seed + i, subject.device), f"clip{i}") for i, n in enumerate(lengths)]


def draw_pairs(n_clips: int, n_pairs: int, seed: int) -> list[tuple[int, int]]:
    """Draw (recipient, donor) pairs without repetition; every clip is used if there are pairs enough."""
    every = [(a, b) for a in range(n_clips) for b in range(n_clips) if a != b]
    ring = [(i, (i + 1) % n_clips) for i in range(n_clips)] if n_clips > 2 else []
    rest = [pair for pair in every if pair not in ring]
    random.Random(seed).shuffle(rest)
    return (ring + rest)[:n_pairs]
