"""A tiny random folder of every family of audio LLM that the library ships, in the layout of the real ones.

Each builder writes config, safetensors, tokenizer, chat template and processor files, and returns the folder. Weights
are drawn with initializer_range 0.5, so that a wrong edit shows in the logits. Parts that the library cannot make
without torchvision or torchaudio (image processors, Granite's feature extractor) are written as their JSON files.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedModel, TokenizersBackend, WhisperFeatureExtractor

from tests.families.words import GEMMA4, GLM, GRANITE, PHI4, QWEN3_ASR, chatml, gpt2, qwen, save_tekken, words
from tests.tiny import save_qwen2_audio
from tests.tiny_gemma3n import save_gemma3n
from tests.tiny_kimi import save_kimi
from tests.tiny_opens2s import save_opens2s
from tests.tiny_ultravox import save_ultravox

MEL = 16
WIDE = {"initializer_range": 0.5}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the decoder."""

    n_layers: int = 3
    d_model: int = 32
    n_heads: int = 4
    n_kv_heads: int = 2
    seed: int = 0

    def text(self, tokenizer: Any, **more: Any) -> dict[str, Any]:
        return {
            "vocab_size": len(tokenizer),
            "hidden_size": self.d_model,
            "intermediate_size": 2 * self.d_model,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "max_position_embeddings": 2048,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
            **WIDE,
            **more,
        }


def whisper(seconds: int = 4, **more: Any) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=MEL, chunk_length=seconds, **more)


def tower(**more: Any) -> dict[str, Any]:
    """An audio tower of Whisper's kind under its own field names."""
    return {
        "num_mel_bins": MEL,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "hidden_size": 16,
        "max_source_positions": 200,
        **WIDE,
        **more,
    }


def save_model(folder: Path, model_class: type, config: Any, sizes: Sizes) -> PreTrainedModel:
    torch.manual_seed(sizes.seed)
    model = model_class(config).eval()
    with torch.no_grad():  # what the library initialises narrowly on its own
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and parameter.std() < 0.1:
                parameter.normal_(0, 0.5 if "embed" not in name else 0.3)
    model.save_pretrained(folder)
    return model


def save_json(folder: Path, name: str, **fields: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(fields))


# ---- Qwen ------------------------------------------------------------------------------------------------------------

OMNI = ["<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|IMAGE|>", "<|VIDEO|>", "<|vision_bos|>", "<|vision_eos|>"]
OMNI_NAMED = dict(
    zip(
        ["audio_token", "audio_bos_token", "audio_eos_token", "image_token", "video_token"]
        + ["vision_bos_token", "vision_eos_token"],
        OMNI,
        strict=True,
    )
)


def omni_files(folder: Path, processor: str, extractor: WhisperFeatureExtractor) -> Any:
    """Tokenizer, template and preprocessor files of an Omni folder; its image half takes torchvision to make."""
    tokenizer = qwen(OMNI, OMNI_NAMED)
    tokenizer.save_pretrained(folder)
    save_json(folder, "chat_template.json", chat_template=chatml("<|audio_bos|><|AUDIO|><|audio_eos|>"))
    about = {name: value for name, value in extractor.to_dict().items() if name != "mel_filters"}
    images = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2, "min_pixels": 3136}
    save_json(folder, "preprocessor_config.json", **{**about, **images, "processor_class": processor})
    return tokenizer


def omni_ids(tokenizer: Any, *, index: bool) -> dict[str, int]:
    ids = {name: tokenizer.convert_tokens_to_ids(OMNI_NAMED[f"{name}_token"]) for name in ("audio", "image", "video")}
    start = tokenizer.convert_tokens_to_ids("<|vision_bos|>")
    return {f"{name}_token_{'index' if index else 'id'}": i for name, i in ids.items()} | {
        "vision_start_token_id": start
    }


def omni_thinker(tokenizer: Any, sizes: Sizes) -> dict[str, Any]:
    half = sizes.d_model // sizes.n_heads // 2
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [half - 2 * (half // 3), half // 3, half // 3]}
    audio = {"num_mel_bins": MEL, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "fullatt_block_indexes": [0]}
    return {
        "text_config": sizes.text(tokenizer, rope_parameters=rope),
        "audio_config": {**audio, "d_model": 16, "n_window": 25, "output_dim": sizes.d_model, **WIDE},
        "vision_config": {**vision, "out_hidden_size": sizes.d_model, **WIDE},
        "initializer_range": 0.5,
        **omni_ids(tokenizer, index=True),
    }


def save_qwen2_5_omni_thinker(folder: Path, **sizes: Any) -> Path:
    tokenizer = omni_files(folder, "Qwen2_5OmniProcessor", whisper(6, return_attention_mask=True))
    config = hf.Qwen2_5OmniThinkerConfig(**omni_thinker(tokenizer, Sizes(**sizes)))
    save_model(folder, hf.Qwen2_5OmniThinkerForConditionalGeneration, config, Sizes(**sizes))
    return folder


def save_qwen2_5_omni(folder: Path, **sizes: Any) -> Path:
    """The whole model: the thinker, and the talker and vocoder that no question to the text side needs."""
    tokenizer = omni_files(folder, "Qwen2_5OmniProcessor", whisper(6, return_attention_mask=True))
    given = Sizes(**sizes)
    talker = {"vocab_size": 40, "hidden_size": 16, "embedding_size": given.d_model, "intermediate_size": 16}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    talker |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    dit = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8, "enc_dim": 8}
    dit |= {"enc_emb_dim": 8, "emb_dim": 8, "enc_channels": [8] * 4 + [24], "enc_attention_channels": 4, "mel_dim": 8}
    dit |= {"enc_res2net_scale": 2, "enc_se_channels": 4, "num_embeds": 20}
    vocoder = {"mel_dim": 8, "upsample_initial_channel": 64}
    config = hf.Qwen2_5OmniConfig(
        thinker_config=omni_thinker(tokenizer, given),
        talker_config={**talker, "rope_parameters": rope},
        token2wav_config={"dit_config": dit, "bigvgan_config": vocoder},
        enable_audio_output=True,
    )
    save_model(folder, hf.Qwen2_5OmniForConditionalGeneration, config, given)
    return folder


def save_qwen3_omni_moe_thinker(folder: Path, **sizes: Any) -> Path:
    tokenizer = omni_files(folder, "Qwen3OmniMoeProcessor", whisper(4, return_attention_mask=True))
    given = Sizes(**sizes)
    half = given.d_model // given.n_heads // 2
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [half - 2 * (half // 3), half // 3, half // 3]}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    audio = {"num_mel_bins": MEL, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    audio |= {"d_model": 16, "output_dim": given.d_model, "downsample_hidden_size": 8}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "deepstack_visual_indexes": [0]}
    config = hf.models.qwen3_omni_moe.Qwen3OmniMoeThinkerConfig(
        text_config=given.text(tokenizer, rope_parameters=rope, head_dim=2 * half, **experts),
        audio_config={**audio, **WIDE},
        vision_config={**vision, "num_position_embeddings": 16, "out_hidden_size": given.d_model, **WIDE},
        initializer_range=0.5,
        **omni_ids(tokenizer, index=False),
    )
    save_model(folder, hf.Qwen3OmniMoeThinkerForConditionalGeneration, config, given)
    return folder


def save_qwen3_asr(folder: Path, **sizes: Any) -> Path:
    named = {"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}
    tokenizer = qwen([*named.values(), "<asr_text>"], named)
    given = Sizes(**sizes)
    audio = {"num_mel_bins": MEL, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    config = hf.Qwen3ASRConfig(
        text_config=given.text(tokenizer, head_dim=given.d_model // given.n_heads, tie_word_embeddings=True),
        audio_config={**audio, "d_model": 16, "output_dim": given.d_model, "downsample_hidden_size": 8, **WIDE},
        audio_token_id=tokenizer.audio_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.5,
    )
    save_model(folder, hf.Qwen3ASRForConditionalGeneration, config, given)
    extractor = hf.Qwen3ASRFeatureExtractor(feature_size=MEL, chunk_length=4)
    hf.Qwen3ASRProcessor(extractor, tokenizer, chat_template=QWEN3_ASR).save_pretrained(folder)
    return folder


# ---- towers of Whisper's kind over Qwen2 and Llama -------------------------------------------------------------------


def save_audioflamingo3(folder: Path, **sizes: Any) -> Path:
    tokenizer, given = qwen(["<sound>"]), Sizes(**sizes)
    config = hf.AudioFlamingo3Config(
        text_config={"model_type": "qwen2", **given.text(tokenizer)},
        audio_config={"model_type": "audioflamingo3_encoder", **tower()},
        audio_token_id=tokenizer.convert_tokens_to_ids("<sound>"),
    )
    save_model(folder, hf.AudioFlamingo3ForConditionalGeneration, config, given)
    extractor = whisper(return_attention_mask=True)
    template = chatml("<sound>")
    hf.AudioFlamingo3Processor(extractor, tokenizer, chat_template=template).save_pretrained(folder)
    return folder


def save_musicflamingo(folder: Path, **sizes: Any) -> Path:
    tokenizer, given = qwen(["<sound>", "<|sound_bos|>", "<|sound_eos|>"]), Sizes(**sizes)
    ids = {f"audio_{n}token_id": tokenizer.convert_tokens_to_ids(t) for n, t in
           {"": "<sound>", "bos_": "<|sound_bos|>", "eos_": "<|sound_eos|>"}.items()}  # fmt: skip
    config = hf.MusicFlamingoConfig(
        text_config={"model_type": "qwen2", **given.text(tokenizer)},
        audio_config={"model_type": "audioflamingo3_encoder", **tower(hidden_size=40)},
        **ids,
    )
    save_model(folder, hf.MusicFlamingoForConditionalGeneration, config, given)
    extractor = whisper(return_attention_mask=True)
    template = chatml("<sound>", "You are Music Flamingo.")
    hf.MusicFlamingoProcessor(extractor, tokenizer, chat_template=template).save_pretrained(folder)
    return folder


def save_glmasr(folder: Path, **sizes: Any) -> Path:
    """Audio stands at `<|pad|>`, the token that other tokenizers pad with."""
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>", "<|begin_of_audio|>"]
    tokenizer = words(TokenizersBackend, [*special, "<|end_of_audio|>"], eos="<|user|>", pad="<|pad|>")
    given = Sizes(**sizes)
    audio = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = hf.GlmAsrConfig(
        text_config={"model_type": "llama", **given.text(tokenizer), "tie_word_embeddings": True},
        audio_config={"model_type": "glmasr_encoder", **audio, "num_mel_bins": MEL, **WIDE},
        audio_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )
    save_model(folder, hf.GlmAsrForConditionalGeneration, config, given)
    hf.GlmAsrProcessor(whisper(), tokenizer, chat_template=GLM).save_pretrained(folder)
    return folder


def save_fun_asr_nano(folder: Path, **sizes: Any) -> Path:
    """The extractor is written as its file: to make it, the library takes torchaudio."""
    marker = "<|object_ref_start|>"
    tokenizer, given = qwen([marker]), Sizes(**sizes)
    blocks = {"num_attention_heads": 2, "num_hidden_layers": 2, **WIDE}
    config = hf.FunAsrNanoConfig(
        text_config={
            "model_type": "qwen3",
            **given.text(tokenizer, head_dim=given.d_model // given.n_heads, tie_word_embeddings=True),
        },
        audio_config={
            "model_type": "fun_asr_nano_encoder",
            **{**blocks, "hidden_size": 16, "intermediate_size": 32, "num_mel_bins": MEL},
            "num_timestamp_prediction_layers": 1,
        },
        adaptor_config={
            **{**blocks, "hidden_size": given.d_model, "intermediate_size": given.d_model // 4},
            "projector_hidden_size": 24,
        },
        audio_token_id=tokenizer.convert_tokens_to_ids(marker),
    )
    save_model(folder, hf.FunAsrNanoForConditionalGeneration, config, given)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(chatml(marker))
    about = {"feature_extractor_type": "FunAsrNanoFeatureExtractor", "feature_size": MEL, "sampling_rate": 16000}
    about |= {"frame_length": 25, "frame_shift": 10, "num_frames_lfr": 7, "stride_lfr": 6, "window": "hamming"}
    save_json(folder, "processor_config.json", processor_class="FunAsrNanoProcessor", feature_extractor=about)
    return folder


def save_moss_transcribe_diarize(folder: Path, **sizes: Any) -> Path:
    named = ["<|audio_pad|>", "<|audio_start|>", "<|audio_end|>"]
    tokenizer, given = qwen(named), Sizes(**sizes)
    config = hf.MossTranscribeDiarizeConfig(
        text_config={
            "model_type": "qwen3",
            **given.text(tokenizer, head_dim=given.d_model // given.n_heads, tie_word_embeddings=True),
        },
        audio_config=tower(),
        audio_token_id=tokenizer.convert_tokens_to_ids("<|audio_pad|>"),
        audio_chunk_size=4 * 16000,
    )
    save_model(folder, hf.MossTranscribeDiarizeForConditionalGeneration, config, given)
    extractor = hf.MossTranscribeDiarizeFeatureExtractor(feature_size=MEL, chunk_length=4)
    template = chatml("<|audio_start|><|audio_pad|><|audio_end|>")
    hf.MossTranscribeDiarizeProcessor(extractor, tokenizer, chat_template=template).save_pretrained(folder)
    return folder


def save_voxtral(folder: Path, **sizes: Any) -> Path:
    """As on the hub: `tekken.json` instead of a tokenizer of the library's kind, and no chat template."""
    from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer

    given = Sizes(**sizes)
    folder.mkdir(parents=True, exist_ok=True)
    save_tekken(folder)
    tokenizer = convert_tekken_tokenizer(str(folder / "tekken.json"))
    config = hf.VoxtralConfig(
        text_config={"model_type": "llama", **given.text(tokenizer, head_dim=given.d_model // given.n_heads)},
        audio_config={"model_type": "voxtral_encoder", **tower()},
        audio_token_id=24,
    )
    save_model(folder, hf.VoxtralForConditionalGeneration, config, given)
    about = {name: value for name, value in whisper().to_dict().items() if name != "mel_filters"}
    save_json(folder, "preprocessor_config.json", **about, processor_class="VoxtralProcessor")
    return folder


# ---- Granite and Phi -------------------------------------------------------------------------------------------------


def save_granite_speech(folder: Path, *, plus: bool = False, **sizes: Any) -> Path:
    special = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|audio|>"]
    tokenizer = gpt2(special, "<|end_of_text|>", "<|end_of_text|>")
    tokenizer.chat_template = GRANITE
    given = Sizes(**sizes)
    family = "GraniteSpeechPlus" if plus else "GraniteSpeech"
    scales = {"embedding_multiplier": 1.5, "logits_scaling": 2.0, "residual_multiplier": 0.7}
    encoder = {"input_dim": 2 * MEL, "num_layers": 2, "hidden_dim": 16, "num_heads": 2, "context_size": 20}
    projector = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = getattr(hf, f"{family}Config")(
        text_config={"model_type": "granite", **given.text(tokenizer, **scales, attention_multiplier=0.3)},
        encoder_config={**encoder, "output_dim": 10, "max_pos_emb": 32},
        projector_config={"model_type": "blip_2_qformer", **projector, "encoder_hidden_size": 16, **WIDE},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=False,
        initializer_range=0.5,
    )
    save_model(folder, getattr(hf, f"{family}ForConditionalGeneration"), config, given)
    tokenizer.save_pretrained(folder)
    mel = {"sample_rate": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": MEL}
    save_json(
        folder,
        "preprocessor_config.json",
        feature_extractor_type="GraniteSpeechFeatureExtractor",
        processor_class="GraniteSpeechProcessor",
        sampling_rate=16000,
        feature_size=MEL,
        melspec_kwargs=mel,
        projector_window_size=15,
        projector_downsample_rate=5,
    )
    save_json(folder, "processor_config.json", processor_class="GraniteSpeechProcessor", audio_token="<|audio|>")
    return folder


def save_granite_speech_plus(folder: Path, **sizes: Any) -> Path:
    return save_granite_speech(folder, plus=True, **sizes)


def save_phi4_multimodal(folder: Path, **sizes: Any) -> Path:
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>", "<|system|>", "<|image|>", "<|audio|>"]
    named = {"image_token": "<|image|>", "audio_token": "<|audio|>"}
    tokenizer = gpt2(special, "<|endoftext|>", "<|endoftext|>", named)
    given = Sizes(**sizes)
    audio = {"hidden_size": 16, "intermediate_size": 16, "num_blocks": 2, "num_attention_heads": 2}
    audio |= {"ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16, "nemo_conv_channels": 16}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}
    config = hf.Phi4MultimodalConfig(
        **given.text(tokenizer, rope_parameters=rope, sliding_window=4096),
        audio_config={**audio, "input_size": MEL, "audio_token_id": tokenizer.audio_token_id, **WIDE},
        vision_config={**vision, "image_size": 28, "crop_size": 28, "image_token_id": tokenizer.image_token_id},
    )
    save_model(folder, hf.Phi4MultimodalForCausalLM, config, given)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(PHI4)
    extractor = hf.Phi4MultimodalFeatureExtractor(feature_size=MEL)
    about = {name: value for name, value in extractor.to_dict().items() if name != "mel_filters"}
    images = {"image_processor_type": "Phi4MultimodalImageProcessorFast", "dynamic_hd": 4}
    save_json(folder, "preprocessor_config.json", **{**about, **images, "processor_class": "Phi4MultimodalProcessor"})
    save_json(folder, "processor_config.json", processor_class="Phi4MultimodalProcessor")
    return folder


def save_vibevoice_asr(folder: Path, **sizes: Any) -> Path:
    """Hears samples at 24 kHz, and tells the model in words how long the clip is."""
    tokenizer = qwen(["<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"])
    given = Sizes(**sizes)
    hears = {"num_filters": 2, "depths": [1] * 7, "hidden_size": 8, "layer_scale_init_value": 0.5, **WIDE}
    names = {"": "<|box_start|>", "bos_": "<|object_ref_start|>", "eos_": "<|object_ref_end|>"}
    config = hf.VibeVoiceAsrConfig(
        text_config={"model_type": "qwen2", **given.text(tokenizer)},
        acoustic_tokenizer_encoder_config=hears,
        semantic_tokenizer_encoder_config=hears,
        **{f"audio_{name}token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()},
    )
    save_model(folder, hf.VibeVoiceAsrForConditionalGeneration, config, given)
    marker = "<|object_ref_start|><|box_start|><|object_ref_end|>\nThis is a <|AUDIO_DURATION|> seconds audio. "
    extractor = hf.VibeVoiceAcousticTokenizerFeatureExtractor()
    hf.VibeVoiceAsrProcessor(extractor, tokenizer, chat_template=chatml(marker)).save_pretrained(folder)
    return folder


# ---- Gemma -----------------------------------------------------------------------------------------------------------

GEMMA = ["<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>"]
GEMMA_NAMED = {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>", "image_token": "<|image|>"}
GEMMA_NAMED |= {"boi_token": "<|image>", "eoi_token": "<image|>"}
MADE = ("mel_filters", "window")


def gemma4_files(folder: Path, processor: str, extractor: Any) -> Any:
    """Its image and video halves take torchvision to make, and stand there as on the hub."""
    tokenizer = words(
        TokenizersBackend, [*GEMMA, *GEMMA_NAMED.values(), "<|video|>"], eos="<eos>", pad="<pad>", named=GEMMA_NAMED
    )
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(GEMMA4)
    about = {name: value for name, value in json.loads(extractor.to_json_string()).items() if name not in MADE}
    images = {"image_processor_type": f"{processor}ImageProcessor", "patch_size": 16, "pooling_kernel_size": 3}
    save_json(
        folder,
        "processor_config.json",
        processor_class=f"{processor}Processor",
        feature_extractor=about,
        image_processor=images,
        video_processor={**images, "video_processor_type": f"{processor}VideoProcessor"},
    )
    return tokenizer


def gemma4_text(tokenizer: Any, given: Sizes, **more: Any) -> dict[str, Any]:
    """The last layers read keys and values of earlier ones: the last of each kind before them."""
    kinds = ["sliding_attention" if i % 2 else "full_attention" for i in reversed(range(given.n_layers))]
    shared = max(0, min(2, given.n_layers - 2))
    width = given.d_model // given.n_heads
    text = given.text(tokenizer, layer_types=kinds, sliding_window=16, num_kv_shared_layers=shared, head_dim=width)
    # Norms behind attention and MLP keep what layers add small; embeddings must not drown it.
    return {
        **text,
        "global_head_dim": width,
        "final_logit_softcapping": 30.0,
        "bos_token_id": 2,
        "initializer_range": 0.15,
        **more,
    }


def save_gemma4(folder: Path, *, text: dict[str, Any] | None = None, **sizes: Any) -> Path:
    """Layers take a further vector of every token, and the doubled MLP of those that share keys is wider."""
    extractor = hf.Gemma4AudioFeatureExtractor(feature_size=MEL)
    tokenizer, given = gemma4_files(folder, "Gemma4", extractor), Sizes(**{"n_layers": 5, **sizes})
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("audio", "image", "video")}
    own = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": len(tokenizer), "use_double_wide_mlp": True}
    hears = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "output_proj_dims": 24}
    hears |= {"subsampling_conv_channels": [MEL, 4], **WIDE}
    sees = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = hf.Gemma4Config(
        text_config=gemma4_text(tokenizer, given, **{**own, **(text or {})}),
        audio_config=hears,
        vision_config={**sees, "num_key_value_heads": 2, "head_dim": 8, "position_embedding_size": 16},
        initializer_range=0.5,
        **ids,
    )
    save_model(folder, hf.Gemma4ForConditionalGeneration, config, given)
    return folder


def save_gemma4_unified(folder: Path, *, text: dict[str, Any] | None = None, **sizes: Any) -> Path:
    """No audio tower: each position is 40 ms of the waveform itself."""
    extractor = hf.models.gemma4_unified.Gemma4UnifiedAudioFeatureExtractor()
    tokenizer, given = gemma4_files(folder, "Gemma4Unified", extractor), Sizes(**{"n_layers": 5, **sizes})
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("audio", "image", "video")}
    config = hf.models.gemma4_unified.Gemma4UnifiedConfig(
        text_config=gemma4_text(tokenizer, given, **(text or {})),
        audio_config={},
        vision_config={"patch_size": 2, "pooling_kernel_size": 2, "mm_embed_dim": 16, "mm_posemb_size": 16},
        initializer_range=0.5,
        **ids,
    )
    save_model(folder, hf.Gemma4UnifiedForConditionalGeneration, config, given)
    return folder


FAMILIES: dict[str, Callable[..., Path]] = {
    "qwen2_audio": save_qwen2_audio,
    "qwen2_5_omni_thinker": save_qwen2_5_omni_thinker,
    "qwen2_5_omni": save_qwen2_5_omni,
    "qwen3_omni_moe_thinker": save_qwen3_omni_moe_thinker,
    "qwen3_asr": save_qwen3_asr,
    "audioflamingo3": save_audioflamingo3,
    "musicflamingo": save_musicflamingo,
    "glmasr": save_glmasr,
    "fun_asr_nano": save_fun_asr_nano,
    "moss_transcribe_diarize": save_moss_transcribe_diarize,
    "voxtral": save_voxtral,
    "vibevoice_asr": save_vibevoice_asr,
    "granite_speech": save_granite_speech,
    "granite_speech_plus": save_granite_speech_plus,
    "phi4_multimodal": save_phi4_multimodal,
    "gemma4": save_gemma4,
    "gemma4_unified": save_gemma4_unified,
    "gemma3n": save_gemma3n,
    "ultravox": save_ultravox,
    "omnispeech": save_opens2s,
    "kimi_audio": save_kimi,
}
"""Builders by family: each takes a folder and sizes of the decoder (n_layers, d_model, n_heads, n_kv_heads, seed)."""
