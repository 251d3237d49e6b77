"""Where things are in each supported model that hears with one list of blocks and writes with another: a row a type."""

from dataclasses import dataclass, replace

from interp_core.models.arch import ENCODERS, EncoderArch


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
    """The config's field with the positions that the decoder has."""


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
)

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
    ),
    "moonshine": ListenerArch(
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
    ),
}
