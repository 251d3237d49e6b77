"""An encoder of the library's own class, of which one head, in one half of the recording, alone carries the label.

The library's wav2vec 2.0 with weights set by hand. A frame is a few tones, and the first convolution tells them apart.
In one half of the recording one tone of a frame is the label's; in the other half it is a distractor's, which has three
forms too. One head of one layer looks within its own half and writes which label tones it heard where alone the
classifier reads. All other heads and all feed-forward parts read what is no label, and write what nobody reads.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch
import transformers
from torch import Tensor

from interp_core.engine import Engine
from interp_core.experiments import experiment_of
from interp_core.experiments.experiment import run
from interp_core.request import Request

LABELS = ("happy", "sad", "angry")
RATE, FRAME, FRAMES = 16000, 800, 12
LABEL, DISTRACTOR, HALF, JUNK = slice(0, 3), slice(3, 6), slice(6, 8), slice(8, 12)
"""Tones of a frame, and the places of the states that say which are heard."""
TONES, WIDTH, N_HEADS, N_LAYERS, D_MLP = 12, 32, 4, 3, 16
WRITTEN, UNREAD = slice(12, 15), slice(15, WIDTH)
SWAPPED = 0.15
"""Frames whose label tone is another label's, so that no two clips are alike."""


def carrier(seed: int) -> tuple[int, int, int]:
    """(layer, head, half) of a seed: over 24 of them every one comes up once."""
    return seed % N_LAYERS, seed // N_LAYERS % N_HEADS, seed // (N_LAYERS * N_HEADS) % 2 ^ seed % 2


def tones() -> Tensor:
    """[TONES, FRAME] waves at right angles to one another, of length 1."""
    at, waves = (torch.arange(FRAME) + 0.5) / FRAME, torch.arange(TONES)[:, None] * 7 + 20
    return torch.cos(torch.pi * at * waves) * (2 / FRAME) ** 0.5


@torch.no_grad()
def save_encoder(folder: Path, seed: int) -> Path:
    """Write the model of a seed, whose carrier is `carrier(seed)`."""
    torch.manual_seed(seed)
    layer, head, _ = carrier(seed)
    config = transformers.Wav2Vec2Config(
        hidden_size=WIDTH, num_hidden_layers=N_LAYERS, num_attention_heads=N_HEADS, intermediate_size=D_MLP,
        conv_dim=(TONES,), conv_kernel=(FRAME,), conv_stride=(FRAME,), conv_bias=True, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=1, do_stable_layer_norm=True, feat_extract_norm="layer", classifier_proj_size=3,
        id2label=dict(enumerate(LABELS)), label2id={label: i for i, label in enumerate(LABELS)},
    )  # fmt: skip
    model = transformers.Wav2Vec2ForSequenceClassification(config)
    for name, parameter in model.named_parameters():
        if "norm" not in name and "original1" not in name:  # a direction, of which the length is zero
            parameter.zero_()
    body, d_head = model.wav2vec2, WIDTH // N_HEADS
    body.feature_extractor.conv_layers[0].conv.weight[:, 0] = tones()
    body.feature_projection.projection.weight[:TONES] = torch.eye(TONES)
    other = torch.ones(WIDTH)
    other[LABEL], other[WRITTEN] = 0, 0  # neither what the label sounds like nor what the carrier writes
    for number, block in enumerate(body.encoder.layers):
        attention, mlp = block.attention, block.feed_forward
        for weight in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight):
            weight.copy_(0.5 * torch.randn(WIDTH, WIDTH) * other)
        attention.out_proj.weight[UNREAD] = 0.3 * torch.randn(WIDTH - UNREAD.start, WIDTH)
        mlp.intermediate_dense.weight.copy_(0.5 * torch.randn(D_MLP, WIDTH) * other)
        mlp.output_dense.weight[UNREAD] = 0.3 * torch.randn(WIDTH - UNREAD.start, D_MLP)
        if number == layer:
            rows = slice(head * d_head, (head + 1) * d_head)
            for weight in (attention.q_proj.weight, attention.k_proj.weight):
                weight[rows] = 0
                weight[rows.start : rows.start + 2, HALF] = 12 * torch.eye(2)  # looks within its own half
            attention.v_proj.weight[rows] = 0
            attention.v_proj.weight[rows.start : rows.start + 3, LABEL] = torch.eye(3)
            attention.out_proj.weight[:, rows] = 0
            attention.out_proj.weight[WRITTEN, rows.start : rows.start + 3] = 2 * torch.eye(3)
    model.projector.weight[:, WRITTEN] = torch.eye(3)
    model.classifier.weight.copy_(4 * torch.eye(3))
    model.eval().save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True).save_pretrained(folder)
    return folder


def save_clips(folder: Path, seed: int, *, texts: int = 20, shuffled: bool = False) -> Path:
    """Write recordings and their manifest: every text in every label.

    Args:
        shuffled: labels have nothing to do with how a clip sounds.
    """
    _, _, half = carrier(seed)
    rng, waves, rows = np.random.default_rng([seed, shuffled]), tones().numpy(), []
    folder.mkdir(parents=True, exist_ok=True)
    for text in range(texts):
        sounds = rng.permutation(3) if shuffled else np.arange(3)
        for label, sound in zip(LABELS, sounds, strict=True):
            distractor, frames = rng.integers(3), []
            for at in range(FRAMES):
                own = int(2 * at >= FRAMES)
                heard = int(sound if own == half else distractor)
                heard = heard if rng.random() > SWAPPED else int(rng.integers(3))
                on = [(LABEL if own == half else DISTRACTOR).start + heard, HALF.start + own]
                on.append(JUNK.start + int(rng.integers(4)))
                frames.append((waves[on] * rng.uniform(0.8, 1.2, (3, 1))).sum(0))
            name = f"t{text}-{label}"
            soundfile.write(folder / f"{name}.wav", np.concatenate(frames), RATE, subtype="FLOAT")
            rows.append({"clip_id": name, "path": f"{name}.wav", "text_id": f"t{text}", "prosody_label": label})
    pd.DataFrame(rows).to_csv(folder / "clips.csv", index=False)
    return folder / "clips.csv"


def made(engine: Engine, command: str, model: Path, manifest: Path, **settings: object) -> Any:
    """Run a command in memory, as it is run by name."""
    experiment = experiment_of(command)
    request: Request = experiment.request(str(model), str(manifest), device="cpu", dtype="float32", **settings)
    return run(experiment, engine, request)


def maps(engine: Engine, model: Path, manifest: Path, seed: int) -> Any:
    """The layer curve of what attention adds, the map of heads and the time map of two windows."""
    return made(
        engine, "patch", model, manifest, kinds="same=text_id,differ=prosody_label", labels=LABELS, site="attn_out",
        maps=("time", "heads"), windows=2, controls=("random",), flow=(), max_pairs=40, top_heads=4, checks=False,
        seed=seed,
    )  # fmt: skip


def probes(engine: Engine, model: Path, manifest: Path, seed: int) -> Any:
    """Probes of the label at what attention adds in every layer."""
    return made(
        engine, "probes", model, manifest, columns=("prosody_label",), quantities=(), sites=("attn_out",), draws=199,
        controls=0, seed=seed,
    )  # fmt: skip
