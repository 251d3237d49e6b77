"""Tiny random countermeasures in the layouts of published code, with the published names, and what that code answers.

Weights are drawn by numpy, whose streams stay the same, so `ANSWERS` are of these very weights. They were computed by
the published code itself: the classes of TakHemlata/SSL_Anti-spoofing (commit 4acaa61),
QiShanZhang/SLSforASVspoof-2021-DF (82e8af0), clovaai/aasist (a04c986), nii-yamagishilab/AntiDeepfake (0dea622),
zlin0/wedefense (e7287fe) and Security-FIT/IG_for_SSL_detectors (40cc358), over Wav2Vec2Model and HubertModel of
fairseq (a540213) and WavLM of s3prl (ec8064b) or of transformers, with their layers made as small as those here and
with these weights put in, fed with each clip as their own data loaders feed it. The last named gives one logit, of
spoofed speech, beside which 0 stands here. SLS's authors changed fairseq to hand out what every layer leaves; here a
layer was named instead, which does.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

WIDTH, HEADS, INNER, LAYERS, CONV, BUCKETS = 48, 4, 40, 3, 16, 24
KERNELS = (10, 3, 3, 3, 3, 2, 2)
BANDS, UNITS, NODE, JOINT = 24, (1, 6, 6, 8, 8, 8, 8), 8, 6
RAW_UNITS, RAW_NODE = (1, 4, 4, 6, 6, 6, 6), 24
Drawn = dict[str, np.ndarray]


class Draw:
    """Named weights, drawn in the order in which they are asked for."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.weights: Drawn = {}

    def put(self, name: str, *shape: int, scale: float = 1.0, at: float = 0.0) -> None:
        self.weights[name] = (at + scale * self._rng.standard_normal(shape)).astype(np.float32)

    def linear(self, name: str, into: int, out: int, scale: float = 1.0) -> None:
        self.put(f"{name}.weight", out, into, scale=scale / into**0.5)
        self.put(f"{name}.bias", out, scale=0.3)

    def conv(self, name: str, *shape: int, bias: bool = True) -> None:
        self.put(f"{name}.weight", *shape, scale=1.2 / float(np.prod(shape[1:])) ** 0.5)
        if bias:
            self.put(f"{name}.bias", shape[0], scale=0.2)

    def norm(self, name: str, width: int) -> None:
        self.put(f"{name}.weight", width, scale=0.2, at=1.0)
        self.put(f"{name}.bias", width, scale=0.2)

    def batch_norm(self, name: str, width: int) -> None:
        self.norm(name, width)
        self.put(f"{name}.running_mean", width, scale=0.2)
        self.weights[f"{name}.running_var"] = self._rng.uniform(0.6, 1.6, width).astype(np.float32)
        self.weights[f"{name}.num_batches_tracked"] = np.array(7)


def trunk(
    draw: Draw, prefix: str, *, large: bool = True, bias: bool = True, hubert: bool = False, wavlm: bool = False
) -> None:
    """A wav2vec 2.0, a HuBERT or a WavLM as published; `large`: norms in every convolution, and before attention."""
    draw.put(f"{prefix}mask_emb", WIDTH)
    for i, kernel in enumerate(KERNELS):
        at = f"{prefix}feature_extractor.conv_layers.{i}"
        draw.conv(f"{at}.0", CONV, 1 if i == 0 else CONV, kernel, bias=bias)
        if large:
            draw.norm(f"{at}.2.1", CONV)
        elif i == 0:
            draw.norm(f"{at}.2", CONV)
    draw.linear(f"{prefix}post_extract_proj", CONV, WIDTH)
    if not hubert and not wavlm:
        draw.put(f"{prefix}quantizer.vars", 1, 6, 4)
        draw.linear(f"{prefix}quantizer.weight_proj", CONV, 6)
        draw.linear(f"{prefix}project_q", 8, 8)
    draw.put(f"{prefix}encoder.pos_conv.0.bias", WIDTH, scale=0.2)
    draw.put(f"{prefix}encoder.pos_conv.0.weight_g", 1, 1, 16, scale=0.2, at=1.0)
    draw.put(f"{prefix}encoder.pos_conv.0.weight_v", WIDTH, WIDTH // 4, 16, scale=0.3)
    for i in range(LAYERS):
        at = f"{prefix}encoder.layers.{i}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            draw.linear(f"{at}.self_attn.{part}", WIDTH, WIDTH, 2.0)
        if wavlm:
            draw.linear(f"{at}.self_attn.grep_linear", WIDTH // HEADS, 8)
            draw.put(f"{at}.self_attn.grep_a", 1, HEADS, 1, 1, scale=0.2, at=1.0)
        if wavlm and i == 0:
            draw.put(f"{at}.self_attn.relative_attention_bias.weight", BUCKETS, HEADS)
        draw.norm(f"{at}.self_attn_layer_norm", WIDTH)
        draw.linear(f"{at}.fc1", WIDTH, INNER, 2.0)
        draw.linear(f"{at}.fc2", INNER, WIDTH, 2.0)
        draw.norm(f"{at}.final_layer_norm", WIDTH)
    draw.norm(f"{prefix}encoder.layer_norm", WIDTH)
    draw.norm(f"{prefix}layer_norm", CONV)
    if not wavlm:
        draw.linear(f"{prefix}final_proj", WIDTH, 8)
    if hubert:
        draw.put(f"{prefix}label_embs_concat", 12, 8)


def graphs(draw: Draw, n_spectral: int, units: tuple[int, ...], node: int, joint: int) -> None:
    """AASIST's graphs and its residual units."""
    for i, (into, out) in enumerate(zip(units, units[1:], strict=False)):
        at = f"encoder.{i}.0"
        if i:
            draw.batch_norm(f"{at}.bn1", into)
        draw.conv(f"{at}.conv1", out, into, 2, 3)
        draw.batch_norm(f"{at}.bn2", out)
        draw.conv(f"{at}.conv2", out, out, 2, 3)
        if into != out:
            draw.conv(f"{at}.conv_downsample", out, into, 1, 3)
    draw.put("pos_S", 1, n_spectral, units[-1])
    draw.put("master1", 1, 1, node)
    draw.put("master2", 1, 1, node)
    for graph in "ST":
        at = f"GAT_layer_{graph}"
        draw.put(f"{at}.att_weight", node, 1)
        for part in ("att_proj", "proj_with_att", "proj_without_att"):
            draw.linear(f"{at}.{part}", units[-1], node)
        draw.batch_norm(f"{at}.bn", node)
        draw.linear(f"pool_{graph}.proj", node, 1)
    for branch, step, into in (("1", "1", node), ("1", "2", joint), ("2", "1", node), ("2", "2", joint)):
        at = f"HtrgGAT_layer_ST{branch}{step}"
        for pair in ("11", "22", "12", "M"):
            draw.put(f"{at}.att_weight{pair}", joint, 1, scale=30.0)
        draw.linear(f"{at}.proj_type1", into, into)
        draw.linear(f"{at}.proj_type2", into, into)
        for part in ("att_proj", "att_projM", "proj_with_att", "proj_without_att"):
            draw.linear(f"{at}.{part}", into, joint)
        for part in ("proj_with_attM", "proj_without_attM"):
            draw.linear(f"{at}.{part}", into, joint)
        draw.batch_norm(f"{at}.bn", joint)
    for branch in "12":
        draw.linear(f"pool_hS{branch}.proj", joint, 1)
        draw.linear(f"pool_hT{branch}.proj", joint, 1)
    draw.linear("out_layer", 5 * joint, 2, 0.4)


def ssl_aasist() -> Drawn:
    draw = Draw(1)
    trunk(draw, "ssl_model.model.")
    draw.linear("LL", WIDTH, BANDS)
    draw.batch_norm("first_bn", 1)
    draw.batch_norm("first_bn1", UNITS[-1])
    wide = 2 * UNITS[-1]
    draw.conv("attention.0", wide, UNITS[-1], 1, 1)
    draw.batch_norm("attention.2", wide)
    draw.conv("attention.3", UNITS[-1], wide, 1, 1)
    graphs(draw, BANDS // 3, UNITS, NODE, JOINT)
    return draw.weights


def sls() -> Drawn:
    draw = Draw(2)
    trunk(draw, "ssl_model.model.")
    draw.batch_norm("first_bn", 1)
    draw.linear("fc0", WIDTH, 1, 0.02)  # gates well inside (0, 1)
    draw.linear("fc1", 67 * (WIDTH // 3), 20, 0.2)
    draw.linear("fc3", 20, 2, 0.7)
    return draw.weights


def antideepfake(**kind: Any) -> Drawn:
    draw = Draw(3)
    trunk(draw, "m_ssl.model.", **kind)
    draw.linear("proj_fc", WIDTH, 2)
    return draw.weights


def mhfa(**kind: Any) -> Drawn:
    draw = Draw(5)
    trunk(draw, "frontend.upstream.upstream.model.", **kind)
    draw.put("weights_k", LAYERS + 1)
    draw.put("weights_v", LAYERS + 1)
    draw.linear("cmp_linear_k", WIDTH, 10)
    draw.linear("cmp_linear_v", WIDTH, 10)
    draw.linear("att_head", 10, 5)
    draw.linear("pooling_fc", 50, 12)
    draw.batch_norm("projection.trans.0", 12)
    draw.linear("projection.trans.2", 12, 2)
    return draw.weights


def library_wavlm(draw: Draw, *, old: bool) -> None:
    """A WavLM-base by the library's names; `old`: of before torch's parametrizations."""
    at = "wavlm.encoder.pos_conv_embed.conv"
    scale, direction = ("weight_g", "weight_v") if old else (f"parametrizations.weight.original{i}" for i in (0, 1))
    draw.put("wavlm.masked_spec_embed", WIDTH)
    for i, kernel in enumerate(KERNELS):
        draw.conv(f"wavlm.feature_extractor.conv_layers.{i}.conv", CONV, 1 if i == 0 else CONV, kernel, bias=False)
    draw.norm("wavlm.feature_extractor.conv_layers.0.layer_norm", CONV)
    draw.norm("wavlm.feature_projection.layer_norm", CONV)
    draw.linear("wavlm.feature_projection.projection", CONV, WIDTH)
    draw.put(f"{at}.bias", WIDTH, scale=0.2)
    draw.put(f"{at}.{scale}", 1, 1, 16, scale=0.2, at=1.0)
    draw.put(f"{at}.{direction}", WIDTH, WIDTH // 4, 16, scale=0.3)
    draw.norm("wavlm.encoder.layer_norm", WIDTH)
    for i in range(LAYERS):
        at = f"wavlm.encoder.layers.{i}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            draw.linear(f"{at}.attention.{part}", WIDTH, WIDTH, 2.0)
        draw.linear(f"{at}.attention.gru_rel_pos_linear", WIDTH // HEADS, 8)
        draw.put(f"{at}.attention.gru_rel_pos_const", 1, HEADS, 1, 1, scale=0.2, at=1.0)
        if i == 0:
            draw.put(f"{at}.attention.rel_attn_embed.weight", BUCKETS, HEADS)
        draw.norm(f"{at}.layer_norm", WIDTH)
        draw.linear(f"{at}.feed_forward.intermediate_dense", WIDTH, INNER, 2.0)
        draw.linear(f"{at}.feed_forward.output_dense", INNER, WIDTH, 2.0)
        draw.norm(f"{at}.final_layer_norm", WIDTH)


def wavlm_sls() -> Drawn:
    draw = Draw(6)
    library_wavlm(draw, old=True)
    draw.batch_norm("sls.first_bn", 1)
    draw.linear("sls.fc0", WIDTH, 1, 0.5)
    draw.linear("sls.fc1", 67 * (WIDTH // 3), WIDTH, 0.5)
    draw.linear("sls.fc3", WIDTH, 1, 4.0)
    return draw.weights


def ca_mhfa() -> Drawn:
    """Weights from five frames at a time, where the published setting's one is the plainest case."""
    draw = Draw(7)
    library_wavlm(draw, old=False)
    draw.put("camhfa.weights_k", LAYERS + 1)
    draw.put("camhfa.weights_v", LAYERS + 1)
    draw.linear("camhfa.cmp_linear_k", WIDTH, 10)
    draw.linear("camhfa.cmp_linear_v", WIDTH, 10)
    draw.put("camhfa.att_head.weight", 6, 1, 5, 10, scale=0.5)
    draw.linear("camhfa.pooling_fc", 60, 1)
    return draw.weights


def aasist() -> Drawn:
    """AASIST-L's nodes, so that what its graphs keep is known, and everything else smaller."""
    draw = Draw(4)
    draw.batch_norm("first_bn", 1)
    graphs(draw, 70 // 3, RAW_UNITS, RAW_NODE, JOINT)
    return draw.weights


DETECTORS: dict[str, Callable[[], Drawn]] = {
    "detector-ssl-aasist": ssl_aasist,
    "detector-sls": sls,
    "detector-mhfa-wavlm": lambda: mhfa(large=False, bias=False, wavlm=True),
    "detector-mhfa-wav2vec2": mhfa,
    "detector-wavlm-sls": wavlm_sls,
    "detector-ca-mhfa-wavlm": ca_mhfa,
    "aasist": aasist,
    "detector-wav2vec2": lambda: antideepfake(large=False, bias=False),
    "detector-hubert": lambda: antideepfake(bias=False, hubert=True),
}
OVER_SSL = tuple(name for name in DETECTORS if name.startswith("detector"))
FIXED = ("detector-ssl-aasist", "detector-sls", "aasist")
"""Those that fill every clip up to 64,600 samples."""
ANSWERS: dict[str, dict[str, tuple[float, float]]] = {
    "detector-ssl-aasist": {
        "short": (2.392665, 1.509583),
        "long": (0.136816, -2.842157),
        "twin": (0.270666, -0.790315),
        "longest": (-0.846825, 0.29457),
    },
    "detector-sls": {
        "short": (-1.028535, -0.442436),
        "long": (-1.313942, -0.313011),
        "twin": (-0.96081, -0.48221),
        "longest": (-1.148118, -0.381602),
    },
    "detector-mhfa-wavlm": {
        "short": (-0.095417, -0.274218),
        "long": (-0.11776, 0.226977),
        "twin": (-0.184566, 0.158705),
        "longest": (-0.346076, 0.255289),
    },
    "detector-mhfa-wav2vec2": {
        "short": (-3.502042, -1.19233),
        "long": (2.570662, 0.11276),
        "twin": (2.36751, -0.299793),
        "longest": (-4.648797, -1.737532),
    },
    "detector-wavlm-sls": {
        "short": (0.0, -0.840925),
        "long": (0.0, -0.798609),
        "twin": (0.0, -0.945437),
        "longest": (0.0, 1.11533),
    },
    "detector-ca-mhfa-wavlm": {
        "short": (0.0, 0.195001),
        "long": (0.0, 0.377558),
        "twin": (0.0, 0.545182),
        "longest": (0.0, 0.224108),
    },
    "aasist": {
        "short": (-0.886143, -0.382679),
        "long": (-0.878923, -0.37495),
        "twin": (-0.883837, -0.372801),
        "longest": (-0.880937, -0.395851),
    },
    "detector-wav2vec2": {
        "short": (-0.10755, 0.05261),
        "long": (0.56718, 0.665284),
        "twin": (1.629009, 0.343592),
        "longest": (0.974125, 0.621888),
    },
    "detector-hubert": {
        "short": (-0.209469, -0.655134),
        "long": (-0.753034, -0.830325),
        "twin": (-0.81662, -0.875639),
        "longest": (-0.667191, -0.793934),
    },
}
"""The published code's two outputs for the clips of `CLIPS`, and for `longest`: 4.5 s of 200 Hz."""


def state(name: str) -> dict[str, Tensor]:
    """The state dict of a detector, by the published names."""
    return {key: torch.from_numpy(value.copy()) for key, value in DETECTORS[name]().items()}


def write(name: str, folder: Path) -> Path:
    """Write a detector as it is published, with its number of heads beside it; SLS as its trainer wraps it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = state(name)
    if name == "detector-sls":
        weights = {f"module.{key}": value for key, value in weights.items()}
    torch.save(weights, folder / "model.pth")
    if name in OVER_SSL:
        (folder / "model.json").write_text(json.dumps({"num_attention_heads": HEADS}))
    return folder / "model.pth"
