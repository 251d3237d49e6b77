"""Where things are in each supported model that hears with one list of blocks and writes with another: a row a type."""

from dataclasses import dataclass, replace
from typing import Any

from interp_core.models.arch import ENCODERS, EncoderArch

STARTS = ("decoder_start_token_id", "bos_token_id")
"""What a generation config, or else a config, calls the token that every text begins with; the first that is said."""


@dataclass(frozen=True, kw_only=True)
class ListenerArch:
    """One row of a model with two lists of blocks: an encoder that hears, and a decoder that writes what is said and
    reads the encoder by cross-attention. Both stand below one `body`."""

    encoder: EncoderArch
    decoder: EncoderArch
    model_class: str
    """The library's class, head included."""
    head: str = "proj_out"
    """The projection to the vocabulary."""
    most: str = "max_target_positions"
    """Among the decoder's sizes: the positions that it has."""
    begins: str = ""
    """The token that every text begins with, where all models of the type call it the same."""
    asked: str = ""
    """What the default prompt has behind that."""
    named: str = "(?!)"
    """A pattern of what a prompt may name (a language, a task), each a token of its own."""
    ids: str = "input_ids"
    """What the decoder calls the tokens that it is given."""
    left_out: tuple[str, ...] = ()
    """Beginnings of the names of weights of parts that neither hear recordings nor write."""


_WHISPER = ListenerArch(
    encoder=replace(ENCODERS["whisper"], body="model"),
    decoder=EncoderArch(
        blocks="decoder.layers",
        body="model",
        heads="decoder_attention_heads",
        attn_proj="self_attn.out_proj",
        mlp="fc2",
        mlp_proj="fc2",
        mid="final_layer_norm",
        cross_attn="encoder_attn",
        cross_proj="encoder_attn.out_proj",
        norm="decoder.layer_norm",
        causal=True,
    ),
    model_class="WhisperForConditionalGeneration",
    begins="<|startoftranscript|>",
)

# Kaldi's frames of 25 ms every 10 ms, two side by side; convolutions behind the last block make a position of eight.
_SEAMLESS = ListenerArch(
    encoder=replace(
        ENCODERS["wav2vec2-bert"],
        blocks="speech_encoder.encoder.layers",
        body="",
        heads="speech_encoder_attention_heads",
        norm="speech_encoder.encoder.layer_norm",
        mask="partial",
    ),
    decoder=EncoderArch(
        blocks="text_decoder.layers",
        heads="decoder_attention_heads",
        attn_proj="self_attn.out_proj",
        mlp="ffn",
        mlp_proj="ffn.fc2",
        mid="ffn_layer_norm",
        cross_attn="cross_attention",
        cross_proj="cross_attention.out_proj",
        norm="text_decoder.layer_norm",
        causal=True,
    ),
    model_class="SeamlessM4TForSpeechToText",
    head="lm_head",
    most="max_position_embeddings",
    begins="</s>",
    asked="__eng__",
    named=r"__\w+?__",
    left_out=("text_encoder.", "t2u_model.", "vocoder."),
)

_MOONSHINE = ListenerArch(
    encoder=EncoderArch(
        blocks="encoder.layers",
        body="model",
        heads="encoder_num_attention_heads",
        mlp_proj="mlp.fc2",
        mid="post_attention_layernorm",
        norm="encoder.layer_norm",
        # Convolutions of 127, 7 and 3 samples at strides of 64, 3 and 2, in the library's code and no config.
        frames=lambda _extractor, _sizes: (895, 384),
    ),
    decoder=EncoderArch(
        blocks="decoder.layers",
        body="model",
        heads="decoder_num_attention_heads",
        mlp_proj="mlp.fc2",
        mid="final_layernorm",
        cross_attn="encoder_attn",
        cross_proj="encoder_attn.o_proj",
        norm="decoder.norm",
        causal=True,
    ),
    model_class="MoonshineForConditionalGeneration",
    most="max_position_embeddings",
)

# NeMo's multitask models: Parakeet's encoder, and a decoder that is told in ten tokens what to write.
_TASK = "<|startoftranscript|><|emo:undefined|><|en|><|en|><|pnc|><|noitn|><|notimestamp|><|nodiarize|>"
_CANARY = ListenerArch(
    encoder=replace(ENCODERS["parakeet_ctc"], blocks="encoder.layers", body="model"),
    decoder=replace(_MOONSHINE.decoder, sizes="decoder_config", heads="num_attention_heads"),
    model_class="CanaryForConditionalGeneration",
    most="max_position_embeddings",
    begins="<|startofcontext|>",
    asked=_TASK,
    named=r"<\|[\w:]+\|>",
)


def _samples(sizes: Any) -> int:
    return round(sizes.sample_rate * sizes.frame_ms / 1000)


LISTENERS: dict[str, ListenerArch] = {
    "whisper": _WHISPER,
    "speech_to_text": replace(
        _WHISPER,
        encoder=replace(
            _WHISPER.encoder,
            # Kaldi's frames of 25 ms every 10 ms; of one alone the library's scaling divides by 0. Each convolution
            # takes every other one.
            frames=lambda _extractor, sizes: (560, 160 * 2**sizes.num_conv_layers),
            frame=("input_feat_per_channel", 1),
        ),
        model_class="Speech2TextForConditionalGeneration",
        head="lm_head",
        begins="</s>",
        named=r"<lang:\w+>",
    ),
    "speecht5": ListenerArch(
        # wav2vec 2.0's convolutions; all rows share a bias for each pair of positions. Norms stand behind attention and
        # MLP.
        encoder=EncoderArch(
            blocks="encoder.wrapped_encoder.layers",
            body="speecht5",
            heads="encoder_attention_heads",
            attn="attention",
            attn_proj="attention.out_proj",
            mlp="feed_forward",
            mlp_proj="feed_forward.output_dense",
            mid="feed_forward",
            shared=frozenset({"position_bias"}),
        ),
        decoder=EncoderArch(
            blocks="decoder.wrapped_decoder.layers",
            body="speecht5",
            heads="decoder_attention_heads",
            attn_proj="self_attn.out_proj",
            mlp="feed_forward",
            mlp_proj="feed_forward.output_dense",
            mid="feed_forward",
            cross_attn="encoder_attn",
            cross_proj="encoder_attn.out_proj",
            causal=True,
        ),
        model_class="SpeechT5ForSpeechToText",
        head="text_decoder_postnet.lm_head",
        most="max_text_positions",
        begins="</s>",
        asked="▁",  # texts begin with a space, a letter like others
        ids="input_values",
    ),
    "seamless_m4t": _SEAMLESS,
    "seamless_m4t_v2": replace(_SEAMLESS, model_class="SeamlessM4Tv2ForSpeechToText"),
    "canary": _CANARY,
    "cohere_asr": replace(
        _CANARY,
        decoder=replace(_CANARY.decoder, sizes=""),
        model_class="CohereAsrForConditionalGeneration",
        begins="▁",  # no special token: what an empty text became
        asked=f"<|startofcontext|>{_TASK}",
    ),
    "moonshine": _MOONSHINE,
    "moonshine_streaming": replace(
        _MOONSHINE,
        # Frames of some ms, and two convolutions that take every other one.
        encoder=replace(
            _MOONSHINE.encoder,
            sizes="encoder_config",
            heads="num_attention_heads",
            norm="encoder.final_norm",
            frames=lambda _extractor, sizes: (_samples(sizes), 4 * _samples(sizes)),
            mask="always",
            pieces=80,  # as the library's processor
            most_positions="max_position_embeddings",
        ),
        decoder=replace(_MOONSHINE.decoder, heads="num_attention_heads"),
        model_class="MoonshineStreamingForConditionalGeneration",
    ),
}
