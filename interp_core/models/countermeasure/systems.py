"""The published countermeasures over a self-supervised trunk that can be opened: one entry a code base.

What an entry says of a checkpoint is read off the names and shapes of its weights.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from interp_core.errors import InterpError
from interp_core.models.countermeasure.graphs import GraphSizes, SslGraphs
from interp_core.models.countermeasure.heads import (
    AngleAnswer,
    ContextAttention,
    FactorizedAttention,
    FilledGates,
    FilledImage,
    KeyValueMix,
    LayerGates,
    MixedAnswer,
    MixedImage,
    OneLogit,
    TimeMean,
)
from interp_core.models.countermeasure.trunk import Shape
from interp_core.sites import Kind

CUT = 64_600
"""Samples to which the systems of the ASVspoof challenges cut and fill every clip: 4.04 s."""
TRUNK = "trunk."
S3PRL = "frontend.upstream.upstream.model."
_WAVLM = "wavlm."

Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Parts:
    """What stands behind the trunk: see `PublishedNet`."""

    pooling: nn.Module
    answer: nn.Module
    mix: LayerGates | KeyValueMix | None = None
    projection: nn.Module | None = None


@dataclass(frozen=True)
class System:
    """One published code base.

    Attributes:
        name: what it is called.
        trunk: the beginning of the names of fairseq's weights.
        tells: names that only its weights have together.
        renamed: beginnings of the names of its other weights, and ours; the first that fits.
        parts: makes what is behind the trunk, given its width and all shapes by our names.
        cut: samples to which every clip is cut or filled up by repeating it; 0 where it is heard whole.
        normed: whether clips are brought to zero mean and unit variance; of `large`, where the trunk norms every
            convolution, as the published large ones do.
        opens: what --model takes. like: such a thing, for an example.
        stages: the sites behind the trunk.
        bonafide_index: which logit its code takes as the score.
    """

    name: str
    trunk: str
    tells: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    parts: Callable[[int, Shapes], Parts]
    cut: int
    normed: Literal["never", "large", "always"]
    opens: str
    like: str
    stages: tuple[Kind, ...] = ("pooled", "logits")
    bonafide_index: int = 1


def _ssl_aasist(width: int, shapes: Shapes) -> Parts:
    bands = shapes["pooling.LL.weight"][0]
    units = [shapes[f"pooling.encoder.{i}.0.conv1.weight"] for i in range(_count(shapes, "pooling.encoder"))]
    inner = shapes["pooling.GAT_layer_S.att_proj.weight"][0]
    outer = shapes["pooling.HtrgGAT_layer_ST11.att_proj.weight"][0]
    widths = (units[0][1], *(unit[0] for unit in units))
    graphs = SslGraphs(width, bands, widths, inner, outer, GraphSizes(kept_s=0.5, kept_t=0.5, kept=0.5))
    return Parts(graphs, nn.Linear(5 * outer, 2))


def _sls(width: int, shapes: Shapes) -> Parts:
    out, taken = shapes["projection.weight"]
    return Parts(MixedImage(), MixedAnswer(out), LayerGates(width), nn.Linear(taken, out))


def _antideepfake(width: int, shapes: Shapes) -> Parts:
    plain = "answer.bias" in shapes
    return Parts(TimeMean(), nn.Linear(width, 2) if plain else AngleAnswer(width))


def _wavlm_sls(width: int, shapes: Shapes) -> Parts:
    out, taken = shapes["projection.weight"]
    return Parts(FilledImage(), OneLogit(out, bent=True), FilledGates(width), nn.Linear(taken, out))


def _ca_mhfa(width: int, shapes: Shapes) -> Parts:
    groups, _, context, compressed = shapes["pooling.att_head.weight"]
    if not context % 2:
        raise InterpError(
            f"the checkpoint's attention reads {context} frames at a time, of which none is the middle one, so its own "
            "code could not run it; fetch it again."
        )
    pooling = ContextAttention(width, compressed, groups, context)
    return Parts(pooling, OneLogit(groups * compressed, bent=False), KeyValueMix(_weighed(shapes), centred=False))


def _weighed(shapes: Shapes) -> int:
    """How many states an MHFA mixes."""
    (n_states,), made = shapes["mix.weights_k"], 1 + _count(shapes, f"{TRUNK}encoder.layers")
    if n_states != made:
        raise InterpError(
            f"the checkpoint weighs {n_states} states, but its self-supervised model has {made} with what enters its "
            "layers, so the two are not of one model; save the state dict of one."
        )
    return n_states


def _mhfa(width: int, shapes: Shapes) -> Parts:
    n_states, (heads, compressed) = _weighed(shapes), shapes["pooling.att_head.weight"]
    out = shapes["pooling.pooling_fc.weight"][0]
    answer = nn.Sequential(nn.BatchNorm1d(out), nn.ReLU(), nn.Linear(out, 2))
    return Parts(FactorizedAttention(width, compressed, heads, out), answer, KeyValueMix(n_states))


SYSTEMS = (
    System(
        "SSL-AASIST",
        "ssl_model.model.",
        ("LL.weight", "GAT_layer_S.att_proj.weight", "HtrgGAT_layer_ST11.att_proj.weight", "encoder.0.0.conv1.weight"),
        (("out_layer.", "answer."), ("", "pooling.")),
        _ssl_aasist,
        CUT,
        "never",
        "state dict (.pth) of TakHemlata/SSL_Anti-spoofing: XLS-R below AASIST",
        "SSL-AASIST.pth",
    ),
    System(
        "SLS",
        "ssl_model.model.",
        ("fc0.weight", "fc1.weight", "fc3.weight"),
        (("fc0.", "mix.fc0."), ("first_bn.", "pooling.first_bn."), ("fc1.", "projection."), ("fc3.", "answer.fc3.")),
        _sls,
        CUT,
        "never",
        "state dict (.pth) of QiShanZhang/SLSforASVspoof-2021-DF: a gated sum of XLS-R's layers",
        "SLS.pth",
        ("mixed", "pooled", "projection", "logits"),
    ),
    System(
        "AntiDeepfake",
        "m_ssl.model.",
        ("proj_fc.weight",),
        (("proj_fc.", "answer."),),
        _antideepfake,
        0,
        "always",
        "state dict (.ckpt, .safetensors) or hub id of nii-yamagishilab's: XLS-R, MMS, wav2vec 2.0 or HuBERT, averaged",
        "mms_300m.ckpt",
    ),
    System(
        "MHFA",
        S3PRL,
        ("weights_k", "weights_v", "cmp_linear_k.weight", "att_head.weight", "projection.trans.2.weight"),
        (("projection.trans.", "answer."), ("weights_", "mix.weights_"), ("", "pooling.")),
        _mhfa,
        0,
        "large",
        "checkpoint (.pt) of zlin0/wedefense: MHFA over s3prl's WavLM, wav2vec 2.0, XLSR-53 or HuBERT",
        "avg_model.pt",
        ("mixed", "pooled", "logits"),
        bonafide_index=0,
    ),
    System(
        "SLS over WavLM",
        _WAVLM,
        ("sls.fc0.weight", "sls.fc1.weight", "sls.fc3.weight"),
        (
            ("sls.fc0.", "mix.fc0."),
            ("sls.first_bn.", "pooling.first_bn."),
            ("sls.fc1.", "projection."),
            ("sls.fc3.", "answer.fc."),
        ),
        _wavlm_sls,
        0,
        "never",
        "checkpoint (.pt) of Security-FIT/IG_for_SSL_detectors: a gated sum of WavLM's layers",
        "sls_best.pt",
        ("mixed", "pooled", "projection", "logits"),
        bonafide_index=0,
    ),
    System(
        "CA-MHFA",
        _WAVLM,
        ("camhfa.weights_k", "camhfa.cmp_linear_k.weight", "camhfa.att_head.weight", "camhfa.pooling_fc.weight"),
        (("camhfa.pooling_fc.", "answer.fc."), ("camhfa.weights_", "mix.weights_"), ("camhfa.", "pooling.")),
        _ca_mhfa,
        0,
        "never",
        "checkpoint (.pt) of Security-FIT/IG_for_SSL_detectors: context-aware MHFA over WavLM",
        "camhfa_best.pt",
        ("mixed", "pooled", "logits"),
        bonafide_index=0,
    ),
)


def _count(shapes: Shapes, row: str) -> int:
    found = (re.match(re.escape(row) + r"\.(\d+)\.", name) for name in shapes)
    return len({match[1] for match in found if match})
