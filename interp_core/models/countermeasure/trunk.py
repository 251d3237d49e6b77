"""The self-supervised trunk below a countermeasure: its sizes, read off the shapes, and its weights' names in fairseq.

fairseq's wav2vec 2.0, XLS-R, MMS and HuBERT, and WavLM as it was published, are the library's models under other
names: the same modules in the same order, with weights of the same shapes. So a checkpoint that was trained over
fairseq is opened without it.

Source of the names: fairseq/models/wav2vec/wav2vec2.py and fairseq/models/hubert/hubert.py (commit a540213);
github.com/microsoft/unilm, wavlm/WavLM.py.
"""

import re
from collections.abc import Callable, Collection
from typing import Any

STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of every published WavLM, wav2vec 2.0 and HuBERT; weights do not show a stride
PUBLISHED_HEADS = {768: 12, 1024: 16, 1280: 16, 1920: 16}
"""Width of a published trunk -> heads that share it; only WavLM's weights show them."""
Shape = tuple[int, ...]

_TRAINING = re.compile(r"(quantizer|project_q|final_proj|target_glu|label_embs_concat)\b")
"""What fairseq's pre-training reads beside the encoder, and nothing that comes after it."""
_NAMES = (
    (r"layer_norm\.(\w+)", r"feature_projection.layer_norm.\1"),
    (r"post_extract_proj\.(\w+)", r"feature_projection.projection.\1"),
    (r"mask_emb", "masked_spec_embed"),
    (r"(feature_extractor\.conv_layers\.\d+)\.0\.(\w+)", r"\1.conv.\2"),
    (r"(feature_extractor\.conv_layers\.\d+)\.2\.(?:1\.)?(\w+)", r"\1.layer_norm.\2"),
    (r"encoder\.pos_conv\.0\.bias", "encoder.pos_conv_embed.conv.bias"),
    (r"encoder\.pos_conv\.0\.weight_g", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"encoder\.pos_conv_embed\.conv\.weight_g", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv_embed\.conv\.weight_v", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"encoder\.pos_conv\.0\.(parametrizations\..+)", r"encoder.pos_conv_embed.conv.\1"),
    (r"(encoder\.layers\.\d+)\.self_attn\.grep_linear\.(\w+)", r"\1.attention.gru_rel_pos_linear.\2"),
    (r"(encoder\.layers\.\d+)\.self_attn\.grep_a", r"\1.attention.gru_rel_pos_const"),
    (r"(encoder\.layers\.\d+)\.self_attn\.relative_attention_bias\.(\w+)", r"\1.attention.rel_attn_embed.\2"),
    (r"(encoder\.layers\.\d+)\.self_attn\.(.+)", r"\1.attention.\2"),
    (r"(encoder\.layers\.\d+)\.self_attn_layer_norm\.(\w+)", r"\1.layer_norm.\2"),
    (r"(encoder\.layers\.\d+)\.fc1\.(\w+)", r"\1.feed_forward.intermediate_dense.\2"),
    (r"(encoder\.layers\.\d+)\.fc2\.(\w+)", r"\1.feed_forward.output_dense.\2"),
)


def library_name(name: str) -> str | None:
    """The library's name of a weight that fairseq calls `name`; None of one that acts in pre-training only.

    A name that neither has stays as it is.
    """
    if _TRAINING.match(name):
        return None
    for theirs, ours in _NAMES:
        if match := re.fullmatch(theirs, name):
            return match.expand(ours)
    return name


def settings_of(names: Collection[str], shape: Callable[[str], Shape]) -> dict[str, Any]:
    """What the weights of a trunk say, in the words of the library's config; no number of heads where they do not.

    Args:
        names: of all its weights, as the library calls them.
        shape: of one of them; raises where it is missing.
    """

    def count(what: str) -> int:
        found = (re.match(re.escape(what) + r"\.(\d+)\.", name) for name in names)
        return len({match[1] for match in found if match})

    convolutions = [
        shape(f"feature_extractor.conv_layers.{i}.conv.weight") for i in range(count("feature_extractor.conv_layers"))
    ]
    position = shape("encoder.pos_conv_embed.conv.parametrizations.weight.original1")
    hidden = shape("encoder.layer_norm.weight")[0]
    layered = "feature_extractor.conv_layers.1.layer_norm.weight" in names
    settings: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": count("encoder.layers"),
        "intermediate_size": shape("encoder.layers.0.feed_forward.intermediate_dense.weight")[0],
        "conv_dim": [c[0] for c in convolutions],
        "conv_kernel": [c[2] for c in convolutions],
        "conv_stride": list(STRIDES),
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in names,
        "num_conv_pos_embeddings": position[2],
        "num_conv_pos_embedding_groups": hidden // position[1],
        "feat_extract_norm": "layer" if layered else "group",
        # The published models that norm every convolution are the large ones, which also norm before attention.
        "do_stable_layer_norm": layered,
    }
    if "encoder.layers.0.attention.rel_attn_embed.weight" in names:
        buckets, heads = shape("encoder.layers.0.attention.rel_attn_embed.weight")
        settings |= {"num_buckets": buckets, "num_attention_heads": heads}
    elif hidden in PUBLISHED_HEADS:
        settings["num_attention_heads"] = PUBLISHED_HEADS[hidden]
    if "masked_spec_embed" not in names:
        settings |= {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    return settings
