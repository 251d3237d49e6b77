"""Encoders of every kind against a loop of plain torch hooks, heads against zeroed columns of their projection."""

import numpy as np
import pytest
import torch

from interp_core.experiments.patching.positions import align_positions
from interp_core.sites import Kind, Site
from interp_core.trace.hooks import captured, edited
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import sweep
from tests.families.encoder_routes import answer, module_of, naive_sweep
from tests.families.subjects import Opened
from tests.models.conftest import Open
from tests.trace.cases import everywhere
from tests.trace.naive import gap

ONE_OF_EACH = (
    *("wavlm-large", "wavlm-base-weighted", "wav2vec2-large-weighted", "wav2vec2-bare", "hubert-base"),
    *("unispeech-base", "unispeechsat-large-weighted", "data2vec", "conformer-relative", "conformer-rotary-weighted"),
    *("w2vbert", "w2vbert-weighted", "w2vbert-bare"),
    *("whisper-classifier-weighted", "whisper-encoder", "whisper-decoder", "ast"),
    *("speech2text-encoder", "speech2text-decoder", "seamless-encoder", "seamless2-encoder", "seamless2-decoder"),
    *("canary-encoder", "canary-decoder", "cohere-encoder", "cohere-decoder", "streaming-encoder", "streaming-decoder"),
    *("speecht5-encoder", "speecht5-decoder"),
    *("moonshine-encoder", "moonshine-decoder", "sew", "sew-weighted", "sew-bare", "sewd", "parakeet"),
    *("clap-uneven", "clap-audio-fused", "spoof-wavlm-erm", "spoof-wav2vec2-erm", "msclap", "resnet"),
    *(
        "detector-ssl-aasist",
        "detector-sls",
        "detector-hubert",
        "detector-mhfa-wavlm",
        "detector-mhfa-wav2vec2",
        "detector-wavlm-sls",
        "detector-ca-mhfa-wavlm",
        "aasist",
    ),
)
AUDIO = {  # positions of the recordings of 0.5 and 0.8 s, or of 0.15 and 0.22 s for the countermeasures: by hand
    "wave": (24, 39),  # (8000 - 400) // 320 + 1, (12800 - 400) // 320 + 1
    "whisper": (25, 40),  # 20 ms each
    "whisper-decoder": (4, 4),
    **dict.fromkeys(("sew", "sew-weighted", "sewd"), (12, 19)),  # two of the frames of the others
    "sew-bare": (8, 13),  # three
    "parakeet": (7, 10),  # of 50 and 80 frames of the spectrogram
    "moonshine-encoder": (19, 32),  # (8000 - 895) // 384 + 1, (12800 - 895) // 384 + 1
    **dict.fromkeys(("moonshine-decoder", "speech2text-decoder", "streaming-decoder"), (1, 1)),
    "streaming-encoder": (25, 40),  # 100 and 160 frames of 5 ms, halved twice
    **dict.fromkeys(("seamless-encoder", "seamless2-encoder"), (24, 39)),  # 48 and 78 frames, two a position
    **dict.fromkeys(("seamless2-decoder", "speecht5-decoder"), (2, 2)),
    **dict.fromkeys(("canary-encoder", "cohere-encoder"), (7, 10)),  # as Parakeet
    "canary-decoder": (9, 9),
    "cohere-decoder": (10, 10),
    "speech2text-encoder": (12, 20),  # 48 and 78 frames of the spectrogram, halved twice and rounded up
    "spoof": (60, 88),  # 2400 / 40, 3520 / 40
    **dict.fromkeys(("detector-ssl-aasist", "detector-sls"), (25, 40)),  # 8000 / 320, 12800 / 320
    "ast": (8, 13),  # 48 and 78 frames, one patch every 6
}


def by_hand(one: Opened, align: str) -> tuple[list[int], list[float]]:
    """Positions of `long` and what of `short` goes there, patch by patch and band by band for AST."""
    name = one.case.name if one.case.name in AUDIO else one.case.family
    n_short, n_long = AUDIO.get(name, AUDIO["wave"])
    n = n_short if align == "truncate" else n_long
    source = list(range(n)) if align == "truncate" else [i * (n_short - 1) / max(n_long - 1, 1) for i in range(n)]
    if one.case.family == "ast":  # 5 bands of 15 patches behind 2 tokens
        return (
            [2 + 15 * band + i for band in range(5) for i in range(n)],
            [2 + 15 * band + s for band in range(5) for s in source],
        )
    return list(range(n)), [float(s) for s in source]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_reference_equals_a_loop_of_plain_hooks(name: str, open_once: Open) -> None:
    one = open_once(name)
    a, b = one.runs["long"], one.runs["short"]
    kinds: list[Kind] = [k for k in one.subject.kinds if k not in ("resid_pre", "mlp_out", "mlp_act")]
    for kind in kinds:
        if kind == "head_out" and not one.subject.arch.attn_proj_called:
            continue  # no module is called there: see the surgery below
        spec = SiteSpec(kind, layers=tuple(range(-1 if kind == "resid_post" else 0, one.subject.n_layers)))
        for align, alpha in (("truncate", 1.0), ("resample", 0.5)):
            if one.subject.whole_only:
                patch, places = Patch(a, b, everywhere(a, a).positions, everywhere(a, a).source, alpha), None
            else:
                found = align_positions(a.prompted, b.prompted, "audio", align)  # type: ignore[arg-type]
                patch, places = Patch(a, b, found.positions, found.source, alpha), by_hand(one, align)
                assert found.positions.tolist() == places[0]
                assert found.source.tolist() == pytest.approx(places[1], abs=1e-9)
            ours = sweep(one.subject, [patch], one.labels, spec, method="reference").label_logits[0]
            theirs = naive_sweep(one, ("long", "short"), kind, spec.layers, places, alpha)
            assert gap(ours, theirs) < 2e-5, (kind, align)
            assert max(gap(row, one.logits("long")) for row in theirs) > 1e-4  # control: the patch does something


HEADED = (
    *("wavlm-base", "wavlm-large-weighted", "wav2vec2-base", "wav2vec2-large-weighted", "hubert-large"),
    *("unispeech-large", "unispeechsat-base", "data2vec-weighted", "conformer-relative", "w2vbert"),
    *("whisper-classifier", "whisper-encoder", "whisper-decoder", "ast", "moonshine-encoder", "moonshine-decoder"),
    *("sew", "sew-weighted", "sewd", "parakeet", "speech2text-encoder", "speech2text-decoder"),
    *("seamless-encoder", "seamless-decoder", "seamless2-encoder", "seamless2-decoder"),
    *("canary-encoder", "canary-decoder", "cohere-encoder", "cohere-decoder", "streaming-encoder", "streaming-decoder"),
    *("speecht5-encoder", "speecht5-decoder"),
    *("clap", "clap-audio", "clap-fused", "spoof-wavlm-dann", "spoof-wav2vec2-dann", "msclap"),
    *("detector-ssl-aasist", "detector-sls", "detector-wav2vec2", "detector-mhfa-wav2vec2"),
)


@pytest.mark.parametrize("name", HEADED)
@torch.inference_mode()
def test_zeroing_a_head_equals_zeroing_its_columns_of_the_output_projection(name: str, open_once: Open) -> None:
    one = open_once(name)
    subject, inputs = one.subject, one.stems["long"].inputs
    clean = answer(one, inputs)
    kinds: list[Kind] = [kind for kind in ("head_out", "cross_head_out") if kind in subject.kinds]
    for kind in kinds:
        for layer in range(subject.n_layers):
            weight = module_of(one, kind, layer).weight
            heads = heads_by_hand(one, layer)
            assert subject.heads_at(layer) == heads
            width = weight.shape[1] // heads
            for head in {0, heads // 2, heads - 1}:
                columns = slice(head * width, (head + 1) * width)

                def silenced(value: torch.Tensor, columns: slice = columns) -> torch.Tensor:
                    value = value.clone()
                    value[..., columns] = 0
                    return value

                with edited(subject, {Site(kind, layer, head): silenced}):
                    ours = answer(one, inputs)
                kept = weight[:, columns].clone()
                weight[:, columns] = 0
                theirs = answer(one, inputs)
                weight[:, columns] = kept
                assert gap(ours, theirs) < 5e-6, (kind, layer, head)
                if not (name == "spoof-wavlm-dann" and layer > 1):  # whose mix takes the first two layers
                    assert (ours - clean).abs().max() > 1e-5, (kind, layer, head)
    assert torch.equal(answer(one, inputs), clean)


def heads_by_hand(one: Opened, layer: int) -> int:
    stages = {"clap": ((2, 2, 2, 2), (1, 2, 4, 8)), "clap-audio": ((2, 2, 6, 2), (2, 4, 8, 16))}
    stages |= {"clap-fused": ((1, 1, 2, 1), (1, 2, 4, 8)), "msclap": ((1, 2, 1), (1, 2, 4))}
    if one.case.name not in stages:
        return 4
    depths, heads = stages[one.case.name]
    return int(np.repeat(heads, depths)[layer])


@torch.inference_mode()
def test_the_heads_of_wavlm_are_its_attentions_before_the_projection_whatever_else_is_captured(open_once: Open) -> None:
    """A head's output worked out from queries, keys, values and the gated position bias."""
    one = open_once("wavlm-base")
    run, block = one.runs["short"], module_of(one, "resid_post", 1)
    attention = block.attention
    x = run.at("resid_pre", 1)
    n, heads, width = len(x), 4, 8
    bias = module_of(one, "resid_post", 0).attention.compute_bias(n, n)  # only the first block owns the table
    split = x.view(n, heads, width).transpose(0, 1)
    gates = attention.gru_rel_pos_linear(split).view(heads, n, 2, 4).sum(-1).sigmoid()
    gate = gates[..., :1] * (gates[..., 1:] * attention.gru_rel_pos_const[0] - 1.0) + 2.0
    parts = [proj(x).view(n, heads, width).transpose(0, 1) for proj in (attention.q_proj, attention.k_proj)]
    scores = parts[0] @ parts[1].transpose(1, 2) / width**0.5 + gate * bias
    values = attention.v_proj(x).view(n, heads, width).transpose(0, 1)
    by_hand = (scores.softmax(-1) @ values).transpose(0, 1).reshape(n, heads * width)
    assert gap(run.at("head_out", 1), by_hand) < 1e-5
    with captured(one.subject, [Site("attn_out", 1)]) as store:  # without the heads: the library's own path
        answer(one, one.stems["short"].inputs)
    assert gap(store[Site("attn_out", 1)][0], attention.out_proj(by_hand)) < 1e-5
