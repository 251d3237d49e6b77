"""Where things are in each supported model type: a table, one row a type, no classes.

A path is a dotted name below the loaded Hugging Face model, or below one block where the column says so.
A new model type whose forward is "stem, blocks, readout" needs one row here and nothing else.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from interp_core.sites import Kind

Side = Literal["input", "output", "folded"]


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Where a list of blocks is and where the sites are inside one; a path that is None says there is no such site."""

    blocks: str
    """The ModuleList of blocks, below `body`."""
    body: str = ""
    """What a checkpoint with a head holds the base model as; a checkpoint of the base model alone has no such part."""
    sizes: str = ""
    """Where the sizes of the blocks stand in the config; empty for the config itself."""
    heads: str = "num_attention_heads"
    """Among the sizes: the heads of a block."""
    attn: str | None = "self_attn"
    """Below a block: the attention; its output is what attention adds to the residual stream."""
    attn_weights: str = ""
    """Below a block: the attention itself, where `attn` is a norm behind it."""
    attn_proj: str | None = "self_attn.o_proj"
    """Below a block: the output projection, whose input is the heads side by side."""
    attn_proj_called: bool = True
    """False where the attention multiplies by the projection's weights without ever calling the module."""
    mlp: str | None = "mlp"
    mlp_proj: str | None = "mlp.down_proj"
    mid: str | None = None
    """Below a block: the norm before the MLP, whose input is the residual stream between attention and MLP."""
    mid_behind: str | None = None
    """The same in a model of this type whose norms stand behind attention and MLP: the MLP, which takes that stream
    already normed."""
    cross_attn: str | None = None
    """Below a block: the attention to the encoder's output."""
    cross_proj: str | None = None
    causal: bool = True
    passed_on: str = ""
    """The argument of a block, a mapping, in which blocks leave keys and values for later ones to read."""
    rates: tuple[int, ...] = (16_000,)
    """Samples a second of the sound that models of this type are trained on, which their configs do not say."""
    frame: tuple[str, int] = ("num_mel_bins", 1)
    """The entry of the config that says how many numbers a frame has that the stem takes, and how many of the feature
    extractor's stand side by side in it, where that does not say so itself."""


@dataclass(frozen=True, kw_only=True)
class Arch(Blocks):
    """One row of an audio LLM: a decoder whose prompt holds the audio. The defaults are the usual layout."""

    blocks: str = "model.language_model.layers"
    sizes: str = "text_config"
    mid: str | None = "post_attention_layernorm"
    decoder: str = "model.language_model"
    """The module that runs the blocks and takes `inputs_embeds`."""
    embeds_inside: bool = False
    """Whether the decoder itself puts the audio among the embeddings, so that the stem ends at block 0 and not at the
    decoder's call."""
    norm: str = "model.language_model.norm"
    """The final norm between the last block and the head."""
    head: str = "lm_head"
    """The projection to the vocabulary."""
    logits_divisor: str = ""
    """The field of `sizes` by which the model was trained to divide its logits, where the library forgets to."""
    logits_cap: str = ""
    """The field of `sizes` that logits are squeezed under, by a tanh."""
    takes_ids: str = ""
    """The module that is given the ids of tokens that were written, where the decoder takes more than embeddings."""
    per_layer: str = ""
    """The argument of the decoder that holds, of the token at every position, a further vector for each block."""
    rotary: str = "model.language_model.rotary_emb"
    """The module that makes `position_embeddings` out of position ids."""
    model_class: str = ""
    """The library's class, where the config names a larger model than the one that is opened."""
    audio_token_id: str = "audio_token_id"
    """The dotted config field that holds the id of the audio placeholder token."""
    reader: Literal["auto", "audio half", "voxtral"] = "auto"
    """How the processor is read: processors.py."""
    turn: Literal["parts", "text", "system"] = "parts"
    """How the chat template takes clip and question: in parts, as text with the marker in it, or with the question in
    the system turn because the template drops the user's text."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the model's forward."""
    processing: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the processor that are to be other than in the folder."""
    frames_per_position: Callable[[Any], float] = lambda config: 4
    """Frames of the feature extractor that one audio position covers, given the config."""
    cuts: bool = True
    """Whether the processor cuts what is longer than the extractor's window, without a word."""
    most_seconds: float | None = None
    """That window, where only the extractor's code says it."""
    adapter: str | None = None
    """The folder below the model's, "" for that folder itself, of the LoRA weights that belong to hearing."""
    unheard: tuple[str, ...] = ()
    """Folders below the model's of LoRA weights that belong to other senses, and so to no model that hears."""


def _chunks_of_13(_config: Any) -> float:
    return 100 / 13  # three strided convolutions over chunks of 100 frames: 50, 25, 13


_OMNI = Arch(model_class="Qwen2_5OmniThinkerForConditionalGeneration", reader="audio half")
_OMNI_MOE = Arch(
    model_class="Qwen3OmniMoeThinkerForConditionalGeneration",
    reader="audio half",
    mlp_proj=None,  # a neuron of a mixture of experts is only there for the positions that are routed to its expert
    frames_per_position=_chunks_of_13,
    cuts=False,
)
_GRANITE_SPEECH = Arch(
    reader="audio half",
    turn="text",
    logits_divisor="logits_scaling",
    # Windows of `window_size` encoder frames, each of two mel frames, become window_size // downsample_rate positions.
    frames_per_position=lambda config: 2 * config.window_size / (config.window_size // config.downsample_rate),
    cuts=False,
    adapter="",
    frame=("input_dim", 2),
)
# Norms stand behind attention and MLP too, and what they leave is what is added to the residual stream.
_GEMMA4 = Arch(
    attn="post_attention_layernorm",
    attn_weights="self_attn",
    mlp="post_feedforward_layernorm",
    mid="pre_feedforward_layernorm",
    passed_on="shared_kv_states",
    takes_ids="model",
    logits_cap="final_logit_softcapping",
    reader="audio half",
)

ARCHS: dict[str, Arch] = {
    "qwen2_audio": Arch(),
    "qwen2_5_omni_thinker": _OMNI,
    "qwen2_5_omni": _OMNI,
    "qwen3_omni_moe_thinker": _OMNI_MOE,
    "qwen3_omni_moe": _OMNI_MOE,
    "qwen3_asr": Arch(turn="system", frames_per_position=_chunks_of_13, cuts=False),
    "audioflamingo3": Arch(),
    "musicflamingo": Arch(),
    "glmasr": Arch(frames_per_position=lambda config: 8),
    "fun_asr_nano": Arch(reader="audio half", frames_per_position=lambda config: 6, cuts=False),
    "moss_transcribe_diarize": Arch(
        # Its processor writes the seconds into the recording's positions, which would then be several spans.
        processing={"time_marker_every_seconds": 0},
        frames_per_position=lambda config: 2 * config.audio_merge_size,
        cuts=False,
    ),
    "voxtral": Arch(
        reader="voxtral",
        frames_per_position=lambda config: 2 * config.audio_config.intermediate_size // config.audio_config.hidden_size,
        cuts=False,
    ),
    "vibevoice_asr": Arch(
        rates=(24_000,),
        fixed={"sample": False},  # else the stem adds noise, and no two runs are alike
        frames_per_position=lambda config: config.acoustic_tokenizer_encoder_config.hop_length,  # samples, its frames
        cuts=False,
    ),
    "granite_speech": _GRANITE_SPEECH,
    "granite_speech_plus": _GRANITE_SPEECH,
    "phi4_multimodal": Arch(
        blocks="model.layers",
        sizes="",
        decoder="model",
        embeds_inside=True,
        norm="model.norm",
        rotary="model.rotary_emb",
        audio_token_id="audio_config.audio_token_id",
        reader="audio half",
        frames_per_position=lambda config: config.audio_config.time_reduction * config.audio_config.downsample_rate,
        cuts=False,
        adapter="speech-lora",
        unheard=("vision-lora",),
        frame=("input_size", 1),
    ),
    "gemma4": replace(_GEMMA4, per_layer="per_layer_inputs", most_seconds=30, frame=("subsampling_conv_channels", 1)),
    "gemma4_unified": replace(
        _GEMMA4,
        frames_per_position=lambda config: config.audio_config.audio_embed_dim,  # samples, its frames
        cuts=False,
        frame=("audio_embed_dim", 1),
    ),
    "gemma3n": replace(  # gemma3n.py
        _GEMMA4,
        per_layer="per_layer_inputs",
        frames_per_position=lambda config: (
            math.prod(time for time, _ in config.audio_config.sscp_conv_stride_size)
            * config.audio_config.conf_reduction_factor
        ),
        most_seconds=30,
        frame=("input_feat_size", 1),
    ),
    "omnispeech": Arch(  # OpenS2S: opens2s_net.py
        blocks="llm_model.model.layers",
        sizes="llm_config",
        decoder="llm_model.model",
        norm="llm_model.model.norm",
        head="llm_model.lm_head",
        rotary="llm_model.model.rotary_emb",
        # The encoder makes one frame of four mel frames, the adapter's convolutions one position of four of those.
        frames_per_position=lambda config: 16,
        cuts=False,
    ),
    "ultravox": Arch(  # ultravox_net.py
        blocks="language_model.model.layers",
        decoder="language_model.model",
        norm="language_model.model.norm",
        head="language_model.lm_head",
        rotary="language_model.model.rotary_emb",
        # The encoder makes one frame of two mel frames.
        frames_per_position=lambda config: 2 * config.stack_factor,
        cuts=False,
    ),
    "kimi_audio": Arch(  # kimi_net.py
        blocks="model.layers",
        sizes="",
        decoder="model",
        norm="model.norm",
        rotary="model.rotary_emb",
        takes_ids="model",  # which puts the blank of the stream of sound beside a token that was written
        # The encoder makes one frame of two mel frames, and four of those stand side by side.
        frames_per_position=lambda config: 8,
        cuts=False,
    ),
}


@dataclass(frozen=True, kw_only=True)
class EncoderArch(Blocks):
    """One row of an encoder whose output a classifier reads."""

    norm: str | None = None
    """Below `body`: the norm between the last block and the classifier, None where there is none."""
    norm_if: str | None = None
    """The config flag without which there is no such norm."""
    last_mixed_normed: bool = False
    """Whether a mix of layers takes the last one behind that norm."""
    batch_first: frozenset[str] = frozenset()
    """Arguments of a block whose first axis is the batch times something."""
    shared: frozenset[str] = frozenset()
    """Arguments of a block that all rows share, whatever their first axis is."""
    frames: Callable[[Any, Any], tuple[int, int]] | None = None
    """Samples that fill a first position, and samples from one position to the next, given the feature extractor and
    the sizes; None where the convolutions of the config say it."""
    classifier: bool = True
    """Whether the library has a classifier over it."""
    mask: Literal["", "partial", "always"] = ""
    """When the stem is given the extractor's mask of a clip: never, as no clip is padded; where its last position is
    filled up and would be heard without; or always, as blocks see the whole clip without."""
    pieces: int = 0
    """Samples that the stem takes at a time, where the extractor is to be asked to fill up clips to whole ones."""
    most_positions: str = ""
    """The config's field with the number of positions that what follows the blocks has vectors for."""
    causal: bool = False


_WAV2VEC2 = EncoderArch(
    blocks="encoder.layers",
    body="wav2vec2",
    attn="attention",
    attn_proj="attention.out_proj",
    mlp="feed_forward",
    mlp_proj="feed_forward.output_dense",
    mid="final_layer_norm",
    mid_behind="feed_forward",
    norm="encoder.layer_norm",
    norm_if="do_stable_layer_norm",
)
# Norms stand behind attention and MLP in every size.
_NORMS_BEHIND = replace(_WAV2VEC2, mid="feed_forward", mid_behind=None, norm=None, norm_if=None)
# Its first MLP and its convolution are no sites of their own: they lie between the stream before and behind a block.
_CONFORMER = EncoderArch(
    blocks="encoder.layers",
    body="wav2vec2_conformer",
    attn_proj="self_attn.linear_out",
    mlp="ffn2",
    mlp_proj="ffn2.output_dense",
    mid="ffn2_layer_norm",
    norm="encoder.layer_norm",
)


def _stacked_frames(extractor: Any, _sizes: Any) -> tuple[int, int]:
    return 400 + 160 * (extractor.stride - 1), 160 * extractor.stride  # frames of 25 ms every 10 ms, some side by side


# A conformer, like the one above; its convolutions join frames of the spectrogram, of which one alone has no spread to
# be scaled by.
_PARAKEET = EncoderArch(
    blocks="layers",
    body="encoder",
    mlp="feed_forward2",
    mlp_proj="feed_forward2.linear2",
    mid="norm_feed_forward2",
    classifier=False,
    frames=lambda extractor, sizes: (2 * extractor.hop_length, sizes.subsampling_factor * extractor.hop_length),
)

ENCODERS: dict[str, EncoderArch] = {
    "wav2vec2": _WAV2VEC2,
    "hubert": replace(_WAV2VEC2, body="hubert"),
    # Its attention hands the projections' weights to a function of torch, and its position bias is [batch * heads, …].
    "wavlm": replace(_WAV2VEC2, body="wavlm", attn_proj_called=False, batch_first=frozenset({"position_bias"})),
    "unispeech": replace(_WAV2VEC2, body="unispeech"),
    "unispeech-sat": replace(_WAV2VEC2, body="unispeech_sat"),
    "data2vec-audio": replace(_NORMS_BEHIND, body="data2vec_audio"),
    # Blocks run over several frames at a time, which come apart again behind the last one: `SqueezedEncoder`.
    "sew": replace(_NORMS_BEHIND, body="sew"),
    "sew-d": replace(
        _NORMS_BEHIND,
        body="sew_d",
        blocks="encoder.encoder.layer",
        attn="attention.output.dense",
        attn_proj="attention.output.dense",
        mlp="output.dense",
        mlp_proj="output.dense",
        mid="intermediate",
        shared=frozenset({"relative_pos", "rel_embeddings"}),
    ),
    "wav2vec2-conformer": _CONFORMER,
    "wav2vec2-bert": replace(
        _CONFORMER, body="wav2vec2_bert", norm=None, frames=_stacked_frames, frame=("feature_projection_input_dim", 2)
    ),
    "parakeet_encoder": _PARAKEET,
    **dict.fromkeys(("parakeet_ctc", "parakeet_rnnt", "parakeet_tdt"), replace(_PARAKEET, sizes="encoder_config")),
    "whisper": EncoderArch(
        blocks="encoder.layers",
        attn_proj="self_attn.out_proj",
        mlp="fc2",
        mlp_proj="fc2",
        mid="final_layer_norm",
        norm="encoder.layer_norm",
        last_mixed_normed=True,
    ),
    "audio-spectrogram-transformer": EncoderArch(
        blocks="layers",
        body="audio_spectrogram_transformer",
        attn="attention",
        attn_proj="attention.o_proj",
        mlp_proj="mlp.fc2",
        mid="layernorm_after",
        norm="layernorm",
    ),
    # Blocks stand in stages, which models/clap.py lists one after the other.
    "clap": EncoderArch(
        blocks="audio_encoder.layers",
        attn="attention",
        attn_proj="attention.output.dense",
        mlp="output",
        mlp_proj="output.dense",
        mid="layernorm_after",
        norm="audio_encoder.norm",
        rates=(48_000, 32_000),  # CLAP, and HTS-AT by itself
    ),
}


# A head's output is the projection's input, before the heads mix; a neuron is the down-projection's input.
SITE_MODULES: dict[Kind, tuple[str | None, Side]] = {
    "resid_pre": (None, "input"),
    "resid_post": (None, "output"),
    "attn_out": ("attn", "output"),
    "head_out": ("attn_proj", "input"),
    "mlp_out": ("mlp", "output"),
    "mlp_act": ("mlp_proj", "input"),
    "resid_mid": ("mid", "input"),
    "cross_out": ("cross_attn", "output"),
    "cross_head_out": ("cross_proj", "input"),
}


def kinds_of(row: Blocks) -> tuple[Kind, ...]:
    """Return the kinds of site inside the blocks that a row has."""
    return tuple(
        kind for kind, (column, _) in SITE_MODULES.items() if column is None or getattr(row, column) is not None
    )
