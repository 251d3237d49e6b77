"""Tiny random encoder folders of the real classes, written with save_pretrained in the layout of real checkpoints.

Clips are 16 kHz tones of a second or two (`tests.tiny.tone`); CLAP wants 48 kHz. Every weight is random, biases, norms
and layer weights too: at the library's initial values (zeros and ones) leaving one out would change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import nn

from tests.families.encoder_words import (
    LANGUAGES,
    canary_tokenizer,
    clap_tokenizer,
    llama_tokenizer,
    save_seamless_tokenizer,
    save_speech2text_tokenizer,
    save_speecht5_tokenizer,
    whisper_tokenizer,
)

EMOTIONS = ("neutral", "happy", "sad", "angry")
SOUNDS = ("dog", "rain", "siren", "laughter")
STD = 0.5
# The convolutions of every real wav2vec 2.0, HuBERT and WavLM: a frame of 400 samples every 320, so 20 ms a position.
CONV_KERNEL = (10, 3, 3, 3, 3, 2, 2)
CONV_STRIDE = (5, 2, 2, 2, 2, 2, 2)


WITHOUT_A_CHOICE = ("Data2VecAudio", "Wav2Vec2Conformer", "SEW", "SEWD")
"""Types whose norms stand in one place whatever the config says."""


def roughen(model: nn.Module, seed: int) -> None:
    """Give what the library leaves at 0, 1 or nearly 0 a random value: biases, norms, positions, running statistics."""
    made = torch.Generator().manual_seed(seed + 1000)

    def normal(like: torch.Tensor, std: float) -> torch.Tensor:
        return std * torch.randn(like.shape, generator=made)

    with torch.no_grad():
        for name, weight in model.named_parameters():
            last = name.rsplit(".", 1)[-1]
            if last.startswith("logit_scale") or "embed_positions" in name or "parametrizations" in name:
                continue  # a temperature; Whisper's sines; a weight norm's own parts
            if last == "layer_weights":
                weight.copy_(normal(weight, 1.0))
            elif weight.ndim <= 1:
                weight.copy_(normal(weight, 0.2) + (1.0 if last == "weight" else 0.0))
            elif last in ("pos_bias_u", "pos_bias_v", "bias_u", "bias_v"):
                weight.copy_(normal(weight, STD))
            elif last in ("gru_rel_pos_const",):
                weight.copy_(1 + normal(weight, 0.2))
            elif last in ("cls_token", "distillation_token", "position_embeddings", "relative_position_bias_table"):
                weight.copy_(normal(weight, STD))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(normal(buffer, 0.2))
            elif name.endswith("running_var"):
                buffer.copy_(1 + normal(buffer, 0.2).abs())


def names(labels: Sequence[str]) -> dict[str, Any]:
    """The config's two label tables."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def write(folder: Path, model: nn.Module, seed: int, *parts: Any) -> Path:
    """Save a model and its preprocessor and tokenizer, each by its own save_pretrained."""
    roughen(model, seed)
    for part in (model.eval(), *parts):
        part.save_pretrained(folder)
    return folder


# ---- wav2vec 2.0, HuBERT, WavLM --------------------------------------------------------------------------------------


def save_wave(
    family: Literal[
        "WavLM", "Wav2Vec2", "Hubert", "UniSpeech", "UniSpeechSat", "Data2VecAudio", "Wav2Vec2Conformer", "SEW", "SEWD"
    ],
    folder: Path,
    *,
    stable: bool = False,
    weighted: bool = False,
    bare: bool = False,
    n_layers: int = 3,
    d_model: int = 32,
    n_heads: int = 4,
    d_mlp: int = 48,
    labels: Sequence[str] = EMOTIONS,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write an encoder that reads the waveform.

    Args:
        family: the library's prefix.
        folder: where to.
        stable: the layout of the large models (norm before attention, layer norm in every convolution) instead of the
            base ones' (norm after, one group norm, which makes padded clips come out differently).
        weighted: the classifier reads a weighted sum of all layers.
        bare: the encoder alone, without a classifier.
    """
    torch.manual_seed(seed)
    relative = {"num_buckets": 32, "max_bucket_distance": 80} if family == "WavLM" else {}
    settings = getattr(transformers, f"{family}Config")(
        hidden_size=d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        intermediate_size=d_mlp,
        conv_dim=(16,) * len(CONV_KERNEL),
        conv_kernel=CONV_KERNEL,
        conv_stride=CONV_STRIDE,
        conv_bias=stable,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        **({} if family in WITHOUT_A_CHOICE else {"do_stable_layer_norm": stable}),
        feat_extract_norm="layer" if stable else "group",
        use_weighted_layer_sum=weighted,
        classifier_proj_size=16,
        initializer_range=STD,
        **names(labels),
        **relative,
        **config,
    )
    model = getattr(transformers, f"{family}{'Model' if bare else 'ForSequenceClassification'}")(settings)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=stable)
    return write(folder, model, seed, extractor)


def save_wavlm(folder: Path, **sizes: Any) -> Path:
    return save_wave("WavLM", folder, **sizes)


def save_wav2vec2(folder: Path, **sizes: Any) -> Path:
    return save_wave("Wav2Vec2", folder, **sizes)


def save_hubert(folder: Path, **sizes: Any) -> Path:
    return save_wave("Hubert", folder, **sizes)


def save_unispeech(folder: Path, **sizes: Any) -> Path:
    return save_wave("UniSpeech", folder, **sizes)


def save_unispeech_sat(folder: Path, **sizes: Any) -> Path:
    return save_wave("UniSpeechSat", folder, **sizes)


def save_data2vec(folder: Path, **sizes: Any) -> Path:
    """Write a Data2VecAudio; five short convolutions give its positions, which no config field groups."""
    return save_wave("Data2VecAudio", folder, **{"conv_pos_kernel_size": 5, **sizes})


def save_sew(folder: Path, **sizes: Any) -> Path:
    """Write a SEW, whose blocks see two frames as one."""
    return save_wave("SEW", folder, **sizes)


def save_sewd(folder: Path, **sizes: Any) -> Path:
    """Write a SEW-D: SEW with DeBERTa's attention, which tells content from distance."""
    return save_wave("SEWD", folder, **{"position_buckets": 8, "max_position_embeddings": 64, **sizes})


def save_conformer(folder: Path, **sizes: Any) -> Path:
    """Write a Wav2Vec2Conformer; `position_embeddings_type` is relative, rotary or none."""
    return save_wave("Wav2Vec2Conformer", folder, **{"conv_depthwise_kernel_size": 5, "stable": True, **sizes})


def save_w2v_bert(
    folder: Path,
    *,
    weighted: bool = False,
    bare: bool = False,
    n_layers: int = 3,
    d_model: int = 32,
    n_heads: int = 4,
    d_mlp: int = 48,
    n_mels: int = 16,
    labels: Sequence[str] = EMOTIONS,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a Wav2Vec2Bert, which reads mel frames two at a time."""
    torch.manual_seed(seed)
    settings = transformers.Wav2Vec2BertConfig(
        hidden_size=d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        intermediate_size=d_mlp,
        feature_projection_input_dim=2 * n_mels,
        conv_depthwise_kernel_size=5,
        left_max_position_embeddings=8,
        right_max_position_embeddings=4,
        use_weighted_layer_sum=weighted,
        classifier_proj_size=16,
        initializer_range=STD,
        **names(labels),
        **config,
    )
    kind = transformers.Wav2Vec2BertModel if bare else transformers.Wav2Vec2BertForSequenceClassification
    extractor = transformers.SeamlessM4TFeatureExtractor(feature_size=n_mels, num_mel_bins=n_mels, stride=2)
    return write(folder, kind(settings), seed, extractor)


# ---- Whisper ---------------------------------------------------------------------------------------------------------


def whisper_sizes(n_layers: int, d_model: int, n_heads: int, d_mlp: int, seconds: int, n_mels: int) -> dict[str, Any]:
    return {
        "num_mel_bins": n_mels,
        "max_source_positions": 50 * seconds,
        "d_model": d_model,
        "encoder_layers": n_layers,
        "encoder_attention_heads": n_heads,
        "encoder_ffn_dim": d_mlp,
        "decoder_attention_heads": n_heads,
        "decoder_ffn_dim": d_mlp,
        "init_std": STD,
    }


def save_whisper_classifier(
    folder: Path,
    *,
    weighted: bool = False,
    n_layers: int = 3,
    d_model: int = 32,
    n_heads: int = 4,
    d_mlp: int = 48,
    seconds: int = 2,
    n_mels: int = 16,
    labels: Sequence[str] = EMOTIONS,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a WhisperForAudioClassification; every clip is padded to `seconds`, as the real one's to 30."""
    torch.manual_seed(seed)
    settings = transformers.WhisperConfig(
        **whisper_sizes(n_layers, d_model, n_heads, d_mlp, seconds, n_mels),
        vocab_size=60,
        pad_token_id=50,
        bos_token_id=50,
        eos_token_id=50,
        decoder_start_token_id=51,
        decoder_layers=1,
        classifier_proj_size=16,
        use_weighted_layer_sum=weighted,
        **names(labels),
        **config,
    )
    model = transformers.WhisperForAudioClassification(settings)
    extractor = transformers.WhisperFeatureExtractor(feature_size=n_mels, chunk_length=seconds)
    return write(folder, model, seed, extractor)


def save_whisper(
    folder: Path,
    *,
    n_layers: int = 2,
    n_decoder_layers: int = 3,
    d_model: int = 32,
    n_heads: int = 4,
    d_mlp: int = 48,
    seconds: int = 2,
    n_mels: int = 16,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a multilingual WhisperForConditionalGeneration with its tokenizer; the words above are single tokens."""
    torch.manual_seed(seed)
    words = whisper_tokenizer(seconds)
    end, start = words.convert_tokens_to_ids(["<|endoftext|>", "<|startoftranscript|>"])
    ids = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    ids |= {"suppress_tokens": [], "begin_suppress_tokens": [end]}
    settings = transformers.WhisperConfig(
        **whisper_sizes(n_layers, d_model, n_heads, d_mlp, seconds, n_mels),
        decoder_layers=n_decoder_layers,
        max_target_positions=64,
        vocab_size=len(words),
        **ids,
        **config,
    )
    model = transformers.WhisperForConditionalGeneration(settings)
    model.generation_config = transformers.GenerationConfig(
        is_multilingual=True,
        lang_to_id={f"<|{code}|>": words.convert_tokens_to_ids(f"<|{code}|>") for code in LANGUAGES},
        task_to_id={task: words.convert_tokens_to_ids(f"<|{task}|>") for task in ("transcribe", "translate")},
        no_timestamps_token_id=words.convert_tokens_to_ids("<|notimestamps|>"),
        max_length=64,
        **ids,
    )
    extractor = transformers.WhisperFeatureExtractor(feature_size=n_mels, chunk_length=seconds)
    return write(folder, model, seed, extractor, words)


def save_moonshine(
    folder: Path,
    *,
    n_layers: int = 2,
    n_decoder_layers: int = 3,
    d_model: int = 48,
    n_heads: int = 4,
    d_mlp: int = 64,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a MoonshineForConditionalGeneration; heads are padded inside, as the real ones', and as many in both parts:
    the library's class builds the decoder with the encoder's number whatever the config says.
    """
    torch.manual_seed(seed)
    words = llama_tokenizer()
    settings = transformers.MoonshineConfig(
        vocab_size=len(words),
        hidden_size=d_model,
        intermediate_size=d_mlp,
        encoder_num_hidden_layers=n_layers,
        decoder_num_hidden_layers=n_decoder_layers,
        encoder_num_attention_heads=n_heads,
        decoder_num_attention_heads=n_heads,
        pad_head_dim_to_multiple_of=8,
        max_position_embeddings=64,
        initializer_range=STD,
        **config,
    )
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    return write(folder, transformers.MoonshineForConditionalGeneration(settings), seed, extractor, words)


def save_moonshine_streaming(
    folder: Path,
    *,
    n_layers: int = 2,
    n_decoder_layers: int = 3,
    d_model: int = 32,
    d_heard: int = 48,
    n_heads: int = 4,
    d_mlp: int = 64,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a MoonshineStreamingForConditionalGeneration, whose encoder sees a few positions to either side and is as
    wide as it likes."""
    torch.manual_seed(seed)
    words = llama_tokenizer()
    heard = transformers.MoonshineStreamingEncoderConfig(
        hidden_size=d_heard,
        intermediate_size=d_mlp,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_heads,
        sliding_windows=[[4, 2], [4, 0], [3, 2], [3, 1]][:n_layers],
        initializer_range=STD,
    )
    settings = transformers.MoonshineStreamingConfig(
        encoder_config=heard.to_dict(),
        vocab_size=len(words),
        hidden_size=d_model,
        intermediate_size=d_mlp,
        num_hidden_layers=n_decoder_layers,
        num_attention_heads=n_heads,
        num_key_value_heads=n_heads,
        max_position_embeddings=64,
        initializer_range=STD,
        **config,
    )
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    return write(folder, transformers.MoonshineStreamingForConditionalGeneration(settings), seed, extractor, words)


def save_speech2text(
    folder: Path,
    *,
    n_layers: int = 2,
    n_decoder_layers: int = 3,
    d_model: int = 32,
    n_heads: int = 4,
    d_mlp: int = 48,
    n_mels: int = 16,
    language: str = "",
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a Speech2TextForConditionalGeneration that transcribes, or translates into a language."""
    torch.manual_seed(seed)
    ids = save_speech2text_tokenizer(folder)
    settings = transformers.Speech2TextConfig(
        vocab_size=len(ids),
        d_model=d_model,
        encoder_layers=n_layers,
        encoder_attention_heads=n_heads,
        encoder_ffn_dim=d_mlp,
        decoder_layers=n_decoder_layers,
        decoder_attention_heads=n_heads,
        decoder_ffn_dim=d_mlp,
        conv_channels=24,
        input_feat_per_channel=n_mels,
        max_target_positions=64,
        init_std=STD,
        **config,
    )
    model = transformers.Speech2TextForConditionalGeneration(settings)
    if language:
        model.generation_config.forced_bos_token_id = ids[f"<lang:{language}>"]
    extractor = transformers.Speech2TextFeatureExtractor(feature_size=n_mels, num_mel_bins=n_mels)
    return write(folder, model, seed, extractor)


def save_speecht5(
    folder: Path,
    *,
    n_layers: int = 2,
    n_decoder_layers: int = 3,
    d_model: int = 32,
    n_heads: int = 4,
    d_mlp: int = 48,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a SpeechT5ForSpeechToText."""
    torch.manual_seed(seed)
    ids = save_speecht5_tokenizer(folder)
    settings = transformers.SpeechT5Config(
        vocab_size=len(ids),
        hidden_size=d_model,
        encoder_layers=n_layers,
        encoder_attention_heads=n_heads,
        encoder_ffn_dim=d_mlp,
        decoder_layers=n_decoder_layers,
        decoder_attention_heads=n_heads,
        decoder_ffn_dim=d_mlp,
        conv_dim=(16,) * len(CONV_KERNEL),
        conv_kernel=CONV_KERNEL,
        conv_stride=CONV_STRIDE,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        encoder_max_relative_position=8,
        max_text_positions=64,
        initializer_range=STD,
        **config,
    )
    extractor = transformers.SpeechT5FeatureExtractor()
    return write(folder, transformers.SpeechT5ForSpeechToText(settings), seed, extractor)


def save_seamless(
    folder: Path,
    *,
    version: Literal["SeamlessM4T", "SeamlessM4Tv2"] = "SeamlessM4Tv2",
    whole: bool = False,
    n_layers: int = 2,
    n_decoder_layers: int = 3,
    d_model: int = 32,
    n_heads: int = 4,
    d_mlp: int = 48,
    n_mels: int = 16,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a SeamlessM4T(v2)ForSpeechToText, or the whole model, which reads texts and speaks besides."""
    torch.manual_seed(seed)
    ids = save_seamless_tokenizer(folder)
    distances = {"left_max_position_embeddings": 8, "right_max_position_embeddings": 4}
    others = {"t2u_vocab_size": 20, "t2u_encoder_layers": 1, "t2u_decoder_layers": 1, "unit_hifi_gan_vocab_size": 16}
    others |= {"t2u_encoder_ffn_dim": d_mlp, "t2u_decoder_ffn_dim": d_mlp, "upsample_initial_channel": 32}
    others |= {"unit_embed_dim": 8, "lang_embed_dim": 4, "spkr_embed_dim": 4, "encoder_layers": 1}
    settings = getattr(transformers, f"{version}Config")(
        vocab_size=len(ids),
        hidden_size=d_model,
        speech_encoder_layers=n_layers,
        speech_encoder_attention_heads=n_heads,
        speech_encoder_intermediate_size=d_mlp,
        decoder_layers=n_decoder_layers,
        decoder_attention_heads=n_heads,
        decoder_ffn_dim=d_mlp,
        encoder_attention_heads=n_heads,
        encoder_ffn_dim=d_mlp,
        feature_projection_input_dim=2 * n_mels,
        conv_depthwise_kernel_size=5,
        max_position_embeddings=64,
        max_source_positions=256,
        initializer_range=STD,
        **(distances if version == "SeamlessM4Tv2" else {}),
        **others,
        **config,
    )
    model = getattr(transformers, f"{version}{'Model' if whole else 'ForSpeechToText'}")(settings)
    codes = {name.strip("_"): i for name, i in ids.items() if name.startswith("__")}
    numbers = {code: i for i, code in enumerate(codes)}
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=2,
        decoder_start_token_id=3,
        eos_token_id=3,
        pad_token_id=0,
        max_new_tokens=256,
        text_decoder_lang_to_code_id=codes,
        t2u_lang_code_to_id=numbers,
        vocoder_lang_code_to_id=numbers,
    )
    extractor = transformers.SeamlessM4TFeatureExtractor(feature_size=n_mels, num_mel_bins=n_mels, stride=2)
    return write(folder, model, seed, extractor)


def save_canary(
    folder: Path,
    *,
    kind: Literal["Canary", "CohereAsr"] = "Canary",
    n_layers: int = 2,
    n_decoder_layers: int = 3,
    d_model: int = 32,
    d_heard: int = 48,
    n_heads: int = 4,
    d_mlp: int = 48,
    n_mels: int = 16,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a CanaryForConditionalGeneration, or Cohere's, whose encoder is as wide as it likes."""
    torch.manual_seed(seed)
    words = canary_tokenizer(prepends=kind == "CohereAsr")
    heard = transformers.ParakeetEncoderConfig(
        hidden_size=d_heard if kind == "CohereAsr" else d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        intermediate_size=d_mlp,
        num_mel_bins=n_mels,
        conv_kernel_size=5,
        subsampling_conv_channels=8,
        scale_input=False,
        initializer_range=STD,
    )
    writes = {"vocab_size": len(words), "hidden_size": d_model, "num_hidden_layers": n_decoder_layers}
    writes |= {"num_attention_heads": n_heads, "num_key_value_heads": n_heads, "intermediate_size": d_mlp}
    writes |= {"max_position_embeddings": 64, "head_dim": d_model // n_heads, "initializer_range": STD}
    if kind == "Canary":
        extractor: Any = transformers.ParakeetFeatureExtractor(feature_size=n_mels)
        own = {"vocab_size": len(words), "decoder_config": writes, "initializer_range": STD}
    else:
        extractor = transformers.CohereAsrFeatureExtractor(feature_size=n_mels)
        own = writes
    settings = getattr(transformers, f"{kind}Config")(encoder_config=heard.to_dict(), **own, **config)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(settings)
    start = words.convert_tokens_to_ids("<|startofcontext|>" if kind == "Canary" else "▁")
    ids = {"pad_token_id": 2, "eos_token_id": 3, "bos_token_id": 4, "decoder_start_token_id": start}
    model.generation_config = transformers.GenerationConfig(**ids)
    if kind == "Canary":  # its extractor lies inside processor_config.json
        return write(folder, model, seed, transformers.CanaryProcessor(extractor, words))
    return write(folder, model, seed, extractor, words)


def save_parakeet(
    folder: Path,
    *,
    head: Literal["CTC", "TDT", ""] = "CTC",
    n_layers: int = 3,
    d_model: int = 32,
    n_heads: int = 4,
    d_mlp: int = 48,
    n_mels: int = 16,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a ParakeetForCTC or ParakeetForTDT, whose head is left out, or the encoder alone."""
    torch.manual_seed(seed)
    settings = transformers.ParakeetEncoderConfig(
        hidden_size=d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        intermediate_size=d_mlp,
        num_mel_bins=n_mels,
        conv_kernel_size=5,
        subsampling_conv_channels=8,
        initializer_range=STD,
        **config,
    )
    model = transformers.ParakeetEncoder(settings)
    if head:
        sizes = {"decoder_hidden_size": 16, "num_decoder_layers": 1} if head == "TDT" else {}
        whole = {"vocab_size": 30, "pad_token_id": 29, "encoder_config": settings.to_dict(), **sizes}
        model = getattr(transformers, f"ParakeetFor{head}")(getattr(transformers, f"Parakeet{head}Config")(**whole))
    return write(folder, model, seed, transformers.ParakeetFeatureExtractor(feature_size=n_mels))


# ---- AST -------------------------------------------------------------------------------------------------------------


def save_ast(
    folder: Path,
    *,
    n_layers: int = 3,
    d_model: int = 32,
    n_heads: int = 4,
    d_mlp: int = 48,
    frames: int = 96,
    n_mels: int = 32,
    labels: Sequence[str] = SOUNDS,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write an ASTForAudioClassification: patches of 8 by 8 every 6, overlapping as the real 16 every 10."""
    torch.manual_seed(seed)
    settings = transformers.ASTConfig(
        hidden_size=d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        intermediate_size=d_mlp,
        patch_size=8,
        frequency_stride=6,
        time_stride=6,
        max_length=frames,
        num_mel_bins=n_mels,
        initializer_range=STD,
        **names(labels),
        **config,
    )
    extractor = transformers.ASTFeatureExtractor(num_mel_bins=n_mels, max_length=frames)
    return write(folder, transformers.ASTForAudioClassification(settings), seed, extractor)


# ---- CLAP ------------------------------------------------------------------------------------------------------------


def clap_audio_config(
    *,
    depths: Sequence[int] = (2, 2, 2, 2),
    heads: Sequence[int] = (1, 2, 4, 8),
    width: int = 8,
    fused: bool = False,
    window: int = 2,
    **config: Any,
) -> transformers.ClapAudioConfig:
    """Geometry of the real ones at an eighth of the size: 64, 16, 4 and 1 windows a stage, the last one unshifted."""
    return transformers.ClapAudioConfig(
        depths=list(depths),
        num_attention_heads=list(heads),
        patch_embeds_hidden_size=width,
        hidden_size=width * 2 ** (len(depths) - 1),
        num_mel_bins=64,
        spec_size=128,
        patch_size=8,
        patch_stride=[8, 8],
        window_size=window,
        enable_fusion=fused,
        **config,
    )


def clap_extractor(seconds: int, fused: bool) -> transformers.ClapFeatureExtractor:
    return transformers.ClapFeatureExtractor(max_length_s=seconds, truncation="fusion" if fused else "rand_trunc")


def clap_weights(model: nn.Module, seed: int) -> None:
    """Draw all matrices anew: this model type has no initializer_range, and its own start is next to nothing."""
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.copy_(STD * torch.randn(weight.shape, generator=made))


def save_clap_audio(folder: Path, *, seconds: int = 2, seed: int = 0, fused: bool = False, **geometry: Any) -> Path:
    """Write a ClapAudioModel, which gives an embedding and no answer; `geometry` goes to clap_audio_config."""
    model = transformers.ClapAudioModel(clap_audio_config(fused=fused, **geometry))
    clap_weights(model, seed)
    return write(folder, model, seed, clap_extractor(seconds, fused))


def save_clap(
    folder: Path,
    *,
    seconds: int = 2,
    seed: int = 0,
    fused: bool = False,
    n_text_layers: int = 1,
    projection: int = 16,
    **geometry: Any,
) -> Path:
    """Write a ClapModel with text tower and tokenizer; `geometry` goes to clap_audio_config."""
    words = clap_tokenizer()
    text = transformers.ClapTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=n_text_layers,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    settings = transformers.ClapConfig(
        text_config=text, audio_config=clap_audio_config(fused=fused, **geometry), projection_dim=projection
    )
    model = transformers.ClapModel(settings)
    clap_weights(model, seed)
    return write(folder, model, seed, clap_extractor(seconds, fused), words)


# ---- the list --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """A named builder: `family.save(folder, **sizes)` writes it, `sizes` going over the family's own."""

    name: str
    build: Callable[..., Path]
    reads: Literal["classes", "words", "texts", "nothing"]
    """Where an answer comes from: a classifier, the next word, texts to compare with, or nowhere (embedding only)."""
    rate: int = 16_000
    settings: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, **sizes: Any) -> Path:
        return self.build(folder, **{**self.settings, **sizes})


def _waves(name: str, build: Callable[..., Path]) -> list[Family]:
    return [
        Family(
            f"{name}-{size}{'-weighted' * weighted}", build, "classes", settings=dict(stable=stable, weighted=weighted)
        )
        for size, stable in (("base", False), ("large", True))
        for weighted in (False, True)
    ]


SMALL_2262 = {"depths": (2, 2, 6, 2), "heads": (2, 4, 8, 16)}
UNEVEN = {"depths": (1, 1, 2, 1)}

FAMILIES: tuple[Family, ...] = (
    *_waves("wavlm", save_wavlm),
    *_waves("wav2vec2", save_wav2vec2),
    *_waves("hubert", save_hubert),
    Family("wavlm-bare", save_wavlm, "nothing", settings={"bare": True}),
    Family("wav2vec2-bare", save_wav2vec2, "nothing", settings={"bare": True, "stable": True}),
    *_waves("unispeech", save_unispeech),
    *_waves("unispeechsat", save_unispeech_sat),
    Family("data2vec", save_data2vec, "classes"),
    Family("data2vec-weighted", save_data2vec, "classes", settings={"weighted": True}),
    Family("sew", save_sew, "classes"),
    Family("sew-weighted", save_sew, "classes", settings={"weighted": True, "stable": True}),
    Family("sew-bare", save_sew, "nothing", settings={"bare": True, "squeeze_factor": 3}),
    Family("sewd", save_sewd, "classes"),
    Family("sewd-bare", save_sewd, "nothing", settings={"bare": True, "stable": True}),
    Family("conformer-relative", save_conformer, "classes", settings={"position_embeddings_type": "relative"}),
    Family(
        "conformer-rotary-weighted",
        save_conformer,
        "classes",
        settings={"position_embeddings_type": "rotary", "weighted": True},
    ),
    Family("conformer-bare", save_conformer, "nothing", settings={"bare": True, "position_embeddings_type": None}),
    Family("w2vbert", save_w2v_bert, "classes"),
    Family(
        "w2vbert-weighted",
        save_w2v_bert,
        "classes",
        settings={"weighted": True, "position_embeddings_type": "relative"},
    ),
    Family(
        "w2vbert-bare",
        save_w2v_bert,
        "nothing",
        settings={
            "bare": True,
            "add_adapter": True,
            "use_intermediate_ffn_before_adapter": True,
            "position_embeddings_type": "rotary",
        },
    ),
    Family("whisper-classifier", save_whisper_classifier, "classes"),
    Family("whisper-classifier-weighted", save_whisper_classifier, "classes", settings={"weighted": True}),
    Family("whisper", save_whisper, "words"),
    Family("parakeet", save_parakeet, "nothing"),
    Family("parakeet-bare", save_parakeet, "nothing", settings={"head": ""}),
    Family("parakeet-tdt", save_parakeet, "nothing", settings={"head": "TDT"}),
    Family("moonshine", save_moonshine, "words"),
    Family("streaming", save_moonshine_streaming, "words"),
    Family("speech2text", save_speech2text, "words"),
    Family("speecht5", save_speecht5, "words", settings={"seed": 1}),
    Family("seamless", save_seamless, "words", settings={"version": "SeamlessM4T"}),
    Family("seamless2", save_seamless, "words"),
    Family("canary", save_canary, "words"),
    Family("cohere", save_canary, "words", settings={"kind": "CohereAsr"}),
    Family("ast", save_ast, "classes"),
    Family("clap", save_clap, "texts", 48_000),
    Family("clap-uneven", save_clap, "texts", 48_000, UNEVEN),
    Family("clap-fused", save_clap, "texts", 48_000, {"fused": True, **UNEVEN}),
    Family("clap-audio", save_clap_audio, "nothing", 48_000, SMALL_2262),
    Family("clap-audio-fused", save_clap_audio, "nothing", 48_000, {"fused": True}),
)
