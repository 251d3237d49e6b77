"""The module tree of a countermeasure checkpoint.

Sizes are read off its weights; what weights do not show comes from its config or from the published base models.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Wav2Vec2Config, WavLMConfig

from interp_core.errors import InterpError
from interp_core.models.countermeasure.net import Layout
from interp_core.models.countermeasure.trunk import STRIDES, Shape, settings_of

CONFIGS = {"wavlm": WavLMConfig, "wav2vec2": Wav2Vec2Config}
HEAD_WIDTH = 64  # of the published base and large models; WavLM's weights show the number of heads themselves
BACKBONE = "backbone.model."


def layout_of(file: Path, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Layout:
    """Work out the module tree.

    Args:
        file: the checkpoint, for messages.
        config: the run's resolved config.
        shapes: of the weights, by state-dict name.
    Raises:
        InterpError: the two contradict each other, or neither says something; names it.
    """
    hf = _backbone_config(file, config.get("backbone") or {}, shapes)
    pooling = (config.get("pooling") or {}).get("method", "stats")
    if pooling not in ("stats", "mean", "attention"):
        raise InterpError(f"{file}: pooling.method={pooling!r} is none of stats, mean, attention.")
    pooled_width = hf.hidden_size * (2 if pooling == "stats" else 1)
    projection = _widths(file, shapes, "projection.mlp")
    if projection[0] != pooled_width:
        raise InterpError(
            f"{file}: the projection takes {projection[0]} numbers, but {pooling} pooling of {hf.hidden_size} gives "
            f"{pooled_width}; set pooling.method in the checkpoint's config."
        )
    has_discriminator = any(name.startswith("domain_discriminator.") for name in shapes)
    discriminator = _widths(file, shapes, "domain_discriminator.shared") if has_discriminator else ()
    if discriminator and discriminator[0] not in (pooled_width, projection[-1]):
        raise InterpError(
            f"{file}: the domain discriminator takes {discriminator[0]} numbers, but the pooled vector has "
            f"{pooled_width} and the representation {projection[-1]}."
        )
    return Layout(
        hf=hf,
        mixed_layers=_mixed_layers(file, config.get("backbone") or {}, hf.num_hidden_layers, shapes),
        pooling=pooling,
        projection=projection,
        classifier=_widths(file, shapes, "task_head.classifier"),
        discriminator=discriminator,
        n_codecs=_rows(shapes, "domain_discriminator.codec_head.weight"),
        n_codec_qs=_rows(shapes, "domain_discriminator.codec_q_head.weight"),
        reads_pooled=not discriminator or discriminator[0] == pooled_width,
        attention_width=_rows(shapes, "pooling.attention.0.weight") or 128,
        dropout=float((config.get("projection") or {}).get("dropout", 0.1)),
        frozen=bool((config.get("backbone") or {}).get("freeze", True)),
    )


def _rows(shapes: Mapping[str, Shape], name: str) -> int:
    return shapes[name][0] if name in shapes else 0


def _widths(file: Path, shapes: Mapping[str, Shape], stack: str) -> tuple[int, ...]:
    """Widths of a linear map, or of a stack of them with two modules between each."""
    found = [re.fullmatch(re.escape(stack) + r"(?:\.(\d+))?\.weight", name) for name in shapes]
    maps = sorted((int(match[1] or 0), shapes[match[0]]) for match in found if match and len(shapes[match[0]]) == 2)
    if not maps:
        raise InterpError(f"{file} has no weights below {stack}; it is no complete checkpoint of the thesis code.")
    return (maps[0][1][1], *(shape[0] for _, shape in maps))


def _mixed_layers(
    file: Path, backbone: Mapping[str, Any], n_layers: int, shapes: Mapping[str, Shape]
) -> tuple[int, ...]:
    selection = backbone.get("layer_selection") or {}
    method, k, chosen = selection.get("method", "weighted"), int(selection.get("k") or 6), selection.get("layers")
    layers = tuple(range(n_layers))
    if method == "first_k":
        layers = layers[:k]
    elif method == "last_k":
        layers = layers[-k:]
    elif method == "specific" and chosen:
        if not all(-n_layers <= layer < n_layers for layer in chosen):
            raise InterpError(f"{file}: layer_selection.layers={chosen} leaves the backbone's {n_layers} layers.")
        layers = tuple(layer % n_layers for layer in chosen)
    elif method not in ("weighted", "all", "specific"):
        raise InterpError(f"{file}: layer_selection.method={method!r} is none of weighted, first_k, last_k, specific.")
    n_mixed = _rows(shapes, "backbone.layer_pooling.weights")
    if n_mixed and n_mixed != len(layers):
        raise InterpError(
            f"{file}: layer_selection chooses {len(layers)} layers, but backbone.layer_pooling.weights holds "
            f"{n_mixed}; correct layer_selection in the checkpoint's config."
        )
    return layers


def _backbone_config(file: Path, backbone: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Any:
    """The Hugging Face config: from the shapes, then the published base models; `backbone.hf_config` wins."""
    name = str(backbone.get("name") or backbone.get("pretrained") or "wavlm_base_plus").lower()
    family = next((family for family in CONFIGS if family in name.replace("-", "")), None)
    if family is None:
        raise InterpError(f"{file}: backbone.name={name!r} is neither a WavLM nor a wav2vec 2.0 model.")
    own = dict(backbone.get("hf_config") or {})
    own.pop("model_type", None)
    settings = {**_settings_of(file, shapes), **own}
    if len(settings["conv_dim"]) != len(settings["conv_stride"]):
        raise InterpError(
            f"{file}: the feature extractor has {len(settings['conv_dim'])} convolutions, the published models "
            f"{len(STRIDES)}; say conv_stride in the checkpoint's config under backbone.hf_config."
        )
    if "num_attention_heads" not in settings:
        raise InterpError(
            f"{file}: its weights do not show how many heads share a width of {settings['hidden_size']} (the published "
            f"models' have {HEAD_WIDTH} each); say num_attention_heads in its config under backbone.hf_config."
        )
    try:
        return CONFIGS[family](**settings)
    except Exception as error:  # the library's checks of field types raise an error class of their own
        raise InterpError(
            f"{file}: backbone.hf_config makes no {family} config: {str(error).splitlines()[0]}"
        ) from error


def _settings_of(file: Path, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """What the shapes say, in the words of the library's config."""

    def shape(name: str) -> Shape:
        if BACKBONE + name not in shapes:
            raise InterpError(f"{file} lacks {BACKBONE}{name}; the thesis code saves the backbone with the rest.")
        return shapes[BACKBONE + name]

    names = {name.removeprefix(BACKBONE) for name in shapes if name.startswith(BACKBONE)}
    settings = settings_of(names, shape)
    if "num_attention_heads" not in settings and settings["hidden_size"] % HEAD_WIDTH == 0:
        settings["num_attention_heads"] = settings["hidden_size"] // HEAD_WIDTH
    return settings
