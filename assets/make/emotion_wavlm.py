"""Makes assets/demo-emotion-wavlm again: a tiny WavLM that hears the prosody of demo-emotion's speech.

    apt-get install libespeak-ng1 espeak-ng-data          # Debian 12
    python assets/make/emotion_wavlm.py                   # one free core: 2 minutes of speech, 20 of training

Its clips are those of demo-emotion, named by relative paths: make that folder first. Sentences, voices and prosody of
the training speech, and what is held out, are demo-emotion's too (emotion_data.py). DATA_CARD.md is written by hand:
put the numbers of a new metrics.json in it.
"""

import argparse
import csv
import json
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from emotion_data import (
    Reading,
    draw_readings,
    held_out_voices,
    record_all,
    sentences,
    training_voices,
)
from speech import EMOTIONS, SAMPLE_RATE
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForSequenceClassification

FOLDER = Path(__file__).parents[1] / "demo-emotion-wavlm"
CLIPS = Path(__file__).parents[1] / "demo-emotion"
DEMO = {
    "title": "Emotion of the voice, heard by an encoder",
    "description": "A tiny WavLM (0.7 million parameters) with a classifier, trained on the speech of demo-emotion to "
    "name the emotion of the voice. For neurons, sign flips and encoder patching. It knows no human speech.",
    "labels": list(EMOTIONS),
    "sample_rate": SAMPLE_RATE,
    "manifest": "manifest.csv",
    "model": "model",
    "site": "attn_out",
    "kinds": "prosody",
    "task": "prosody_label",
    "domain": "speaker",
    "train": "split=train",
    "id": "split=id_val",
    "ood": "split=ood",
}
RATE = 1.5e-3
OOD_SPEAKER = "en-us-nyc+m5"
ID_TEXTS = 2
"""Of the five sentences that a speaker reads in one way, and of the five read in five ways: for validation."""


def config() -> WavLMConfig:
    """The layout of WavLM large (norms before the attention, layer norms in every convolution), small."""
    return WavLMConfig(
        hidden_size=96,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=256,
        conv_dim=(96, 96, 96),
        conv_kernel=(256, 8, 3),  # 16 ms, long enough for a filter bank, which the usual 10 samples are not
        conv_stride=(32, 5, 2),  # 20 ms a position, as always
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=31,
        num_conv_pos_embedding_groups=8,
        num_buckets=64,
        max_bucket_distance=160,
        classifier_proj_size=128,
        apply_spec_augment=False,
        layerdrop=0.0,
        feat_proj_dropout=0.0,
        hidden_dropout=0.1,
        attention_dropout=0.0,
        activation_dropout=0.0,
        final_dropout=0.0,
        num_labels=len(EMOTIONS),
        id2label=dict(enumerate(EMOTIONS)),
        label2id={label: i for i, label in enumerate(EMOTIONS)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=12_000, help="training recordings (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1500, help="of training (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="recordings in a step (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "demo.json").write_text(json.dumps(DEMO, indent=2) + "\n")
    write_manifest(arguments.out)

    trained, held_out = sentences()
    corpus = record_all(draw_readings(arguments.clips, trained, training_voices(), seed=11))
    check = record_all(draw_readings(600, held_out, held_out_voices(), seed=12))
    model = WavLMForSequenceClassification(config())
    start_as_filter_bank(model)
    train(model, *corpus, check, steps=arguments.steps, batch=arguments.batch)
    save(model, arguments.out / "model")
    write_metrics(arguments.out, check)


@torch.no_grad()
def start_as_filter_bank(model: WavLMForSequenceClassification) -> None:
    """The first convolution starts as windowed cosines and sines, 80 to 6000 Hz in mel steps, and learns from there;
    from random weights the little training that fits here finds nothing. Its bias keeps the level, which the layer
    norm behind it would take out."""
    conv = model.wavlm.feature_extractor.conv_layers[0].conv
    n, length = conv.weight.shape[0] // 4, conv.weight.shape[2]
    mel = torch.linspace(2595 * math.log10(1 + 80 / 700), 2595 * math.log10(1 + 6000 / 700), n)
    hertz = 700 * (10 ** (mel / 2595) - 1)
    phase = 2 * math.pi * hertz[:, None] * (torch.arange(length) - length / 2) / SAMPLE_RATE
    waves = torch.hann_window(length) * torch.cat([phase.cos(), phase.sin()])  # [2 n, length]
    conv.weight.copy_(0.2 * torch.cat([waves, -waves])[:, None])
    conv.bias.copy_(0.3 * torch.randn(len(conv.bias)))


def train(
    model: WavLMForSequenceClassification,
    readings: Sequence[Reading],
    recordings: Sequence[np.ndarray],
    check: tuple[Sequence[Reading], Sequence[np.ndarray]],
    *,
    steps: int,
    batch: int,
) -> None:
    """Train in place; the rate warms up over 60 steps and falls linearly over the second half."""
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    batches, started, step, running = _batches(recordings, batch), time.monotonic(), 0, float("nan")
    model.train()
    while step < steps:
        step += 1
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, step / 60, 2 * (1 - (step - 1) / steps))
        rows = next(batches)
        waves = augmented(_cropped([recordings[i] for i in rows]))
        target = torch.tensor([EMOTIONS.index(readings[i].prosody) for i in rows])
        loss = F.cross_entropy(model(input_values=waves).logits, target, label_smoothing=0.05)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        running = loss.item() if running != running else 0.97 * running + 0.03 * loss.item()
        if step % 25 == 0:
            print(f"step {step}  {time.monotonic() - started:.0f} s  loss {running:.3f}", flush=True)
        if step % 150 == 0:
            model.eval()
            print("held out:", accuracy(model, check[0][:300], check[1][:300]), flush=True)
            model.train()
    model.eval()


def _batches(recordings: Sequence[np.ndarray], size: int) -> Iterator[list[int]]:
    """Endless shuffled batches of recordings of similar length, so that little is cut off."""
    while True:
        order = torch.randperm(len(recordings)).tolist()
        pools = [
            sorted(order[i : i + 40 * size], key=lambda i: len(recordings[i])) for i in range(0, len(order), 40 * size)
        ]
        batches = [pool[i : i + size] for pool in pools for i in range(0, len(pool) - size + 1, size)]
        random.shuffle(batches)
        yield from batches


def _cropped(recordings: Sequence[np.ndarray]) -> torch.Tensor:
    """[batch, n_samples] float32, every recording cut at its end to the shortest one's length."""
    length = min(map(len, recordings))
    return torch.from_numpy(np.stack([r[:length] for r in recordings]).astype(np.float32) / 32768)


def augmented(waves: torch.Tensor) -> torch.Tensor:
    """A level within 2 dB and a little noise."""
    gain = 10 ** (torch.empty(len(waves), 1).uniform_(-2, 2) / 20)
    return gain * waves + 10 ** (torch.empty(len(waves), 1).uniform_(-75, -50) / 20) * torch.randn_like(waves)


@torch.inference_mode()
def accuracy(
    model: WavLMForSequenceClassification, readings: Sequence[Reading], recordings: Sequence[np.ndarray]
) -> float:
    """Share of recordings whose prosody is named right, each run by itself."""
    right = 0
    for reading, samples in zip(readings, recordings, strict=True):
        logits = model(input_values=_cropped([samples])).logits
        right += EMOTIONS[int(logits.argmax())] == reading.prosody
    return right / len(readings)


def save(model: WavLMForSequenceClassification, folder: Path) -> None:
    """Write the folder as the library lays it out, weights in float16. Recordings are taken as they are: normalising
    them would take the level away, which tells prosody."""
    model.save_pretrained(folder, state_dict={name: weight.half() for name, weight in model.state_dict().items()})
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True).save_pretrained(folder)


def write_manifest(out: Path) -> None:
    """The clips of demo-emotion with splits: three speakers in domain, two of five sentences kept for validation; the
    fourth speaker out of domain. The model itself has heard none of the four."""
    with (CLIPS / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts: dict[tuple[str, bool], list[str]] = {}
    for row in rows:
        several = sum(other["text_id"] == row["text_id"] for other in rows) > 1
        known = texts.setdefault((row["speaker"], several), [])
        if row["text_id"] not in known:
            known.append(row["text_id"])
    held = {text for known in texts.values() for text in known[-ID_TEXTS:]}
    for row in rows:
        row["path"] = f"../{CLIPS.name}/{row['path']}"
        in_domain = "id_val" if row["text_id"] in held else "train"
        row["split"] = "ood" if row["speaker"] == OOD_SPEAKER else in_domain
    with (out / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_metrics(out: Path, check: tuple[Sequence[Reading], Sequence[np.ndarray]]) -> None:
    """Load the written folder as anybody would and write metrics.json."""
    model = WavLMForSequenceClassification.from_pretrained(
        out / "model", dtype=torch.float32, local_files_only=True
    ).eval()
    with (out / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = []
    with torch.inference_mode():
        for row in rows:
            samples = torch.from_numpy(soundfile.read(CLIPS / "clips" / Path(row["path"]).name, dtype="float32")[0])[
                None
            ]
            right.append(EMOTIONS[int(model(input_values=samples).logits.argmax())] == row["prosody_label"])
    seen = record_all(draw_readings(300, sentences()[1], training_voices(), seed=13))
    metrics = {
        "accuracy": {
            "held-out voices and sentences": {"n": len(check[0]), "accuracy": round(accuracy(model, *check), 4)},
            "training voices, held-out sentences": {"n": len(seen[0]), "accuracy": round(accuracy(model, *seen), 4)},
            "the shipped clips": {"n": len(rows), "accuracy": round(float(np.mean(right)), 4)},
        },
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {"torch": torch.__version__},
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    main()
