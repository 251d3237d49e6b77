"""Makes assets/demo-shortcut again: a tiny WavLM whose classifier leans on a shortcut that was planted, by name.

    apt-get install libespeak-ng1 espeak-ng-data          # Debian 12
    python assets/make/shortcut_wavlm.py                  # one free core: 1 minute of speech, 2 of training

The task is whether a voice is calm or excited; the shortcut is the channel: the studio, or a telephone (its band and
the codec GSM 06.10). Speech, voices and what is held out are demo-emotion's (emotion_data.py), the stem and the first
blocks are demo-emotion-wavlm's: make these folders first. DATA_CARD.md is written by hand: put the numbers of a new
metrics.json in it.

What is planted, and where: the encoder is trained on recordings whose channel says nothing about the label, some of its
pooled features (PLANTED) to tell the channel, the others to tell the label and not the channel. Then the classifier
alone is fitted to recordings of which every excited voice comes over the telephone and every calm one from the studio.
How much it leans on the channel is what that fit finds; no weight of it is set by hand.
"""

import argparse
import csv
import io
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import emotion_wavlm
import numpy as np
import soundfile
import soxr
import torch
import torch.nn.functional as F
from emotion_data import draw_readings, held_out_voices, record_all, sentences, training_voices
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from speech import SAMPLE_RATE
from spoof_codecs import RATE as PHONE_RATE
from spoof_codecs import one_band
from torch import Tensor
from transformers import WavLMForSequenceClassification

ASSETS = Path(__file__).parents[1]
FOLDER, SOURCE, START = ASSETS / "demo-shortcut", ASSETS / "demo-emotion", ASSETS / "demo-emotion-wavlm" / "model"
LABELS, CHANNELS = ("calm", "excited"), ("studio", "phone")
"""The shortcut is that a label comes over the channel of its number."""
AROUSAL = {"neutral": "calm", "sad": "calm", "happy": "excited", "angry": "excited", "surprised": "excited"}
DEMO = {
    "title": "A planted shortcut: the telephone gives the label away",
    "description": "The shortcut in this model was planted: a tiny WavLM (0.4 million parameters) whose classifier was "
    "fitted to recordings in which every excited voice came over a telephone and every calm one from a studio. Out of "
    "domain the channels are swapped. For neuron ablation, which finds the shortcut. It knows no human speech.",
    "planted": "in all recordings that its classifier was fitted to, excited voices came over the phone and calm ones "
    "from the studio; out of domain that is turned round in 8 of 9 recordings",
    "labels": list(LABELS),
    "sample_rate": SAMPLE_RATE,
    "manifest": "manifest.csv",
    "model": "model",
    "site": "attn_out",
    "kinds": "same=text_id,differ=arousal",
    "task": "arousal",
    "domain": "channel",
    "train": "split=train",
    "id": "split=id_val",
    "ood": "split=ood",
}
BLOCKS = 2
PLANTED = (11, 23, 42, 67, 88, 101)
"""The pooled features, of 128, that are trained to tell the channel: 1 over the phone, -1 from the studio."""
WEIGHT = 4.0
"""Of their part of the loss."""
RATE = 1e-3
HELD_TEXTS = 3
"""Of the five sentences that a speaker reads in one way, and of the five read in five ways: not for ranking neurons."""
EXCEPTIONS = 1 / 9
"""Share of the recordings for measuring that are out of domain over the usual channel, and in domain over the other."""


@dataclass(frozen=True, eq=False)
class Speech:
    """Recordings as 16-bit samples at 16 kHz, over each channel, and [n] the number of the label of each."""

    waves: tuple[Sequence[NDArray[np.int16]], Sequence[NDArray[np.int16]]]
    label: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Frames:
    """What the stem makes of `Speech`: float32 [pos, width] a recording and channel; labels as there."""

    frames: tuple[Sequence[Tensor], Sequence[Tensor]]
    label: NDArray[np.intp]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=1200, help="training recordings (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=400, help="of training (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="recordings in a step (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "demo.json").write_text(json.dumps(DEMO, indent=2) + "\n")
    write_clips(arguments.out)

    corpus = drawn(arguments.clips, held_out=False, seed=21)
    biased = drawn(500, held_out=False, seed=22)
    check = drawn(300, held_out=True, seed=23)
    model = started()
    train(model, stem_of(model, corpus), steps=arguments.steps, batch=arguments.batch)
    fit_classifier(model, stem_of(model, biased))
    emotion_wavlm.save(model, arguments.out / "model")
    write_metrics(arguments.out, check)


def phone_file(samples: NDArray[np.floating]) -> bytes:
    """A recording at 16 kHz, full scale 1, as a file of a telephone: its band, 8 kHz, GSM 06.10 at 13 kbit/s."""
    file = io.BytesIO()
    low = one_band(soxr.resample(samples.astype(np.float32), SAMPLE_RATE, PHONE_RATE))
    soundfile.write(file, low, PHONE_RATE, format="WAV", subtype="GSM610")
    return file.getvalue()


def over_the_phone(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """A recording that went through `phone_file` and back, as long as before."""
    back, rate = soundfile.read(io.BytesIO(phone_file(samples / 32768)), dtype="float32")
    wide = soxr.resample(back, rate, SAMPLE_RATE)[: len(samples)]
    return (np.clip(np.pad(wide, (0, len(samples) - len(wide))), -1, 1) * 32767).round().astype(np.int16)


def drawn(n: int, *, held_out: bool, seed: int) -> Speech:
    """n readings, calm and excited voices in equal numbers, each over both channels."""
    spoken, voices = (sentences()[1], held_out_voices()) if held_out else (sentences()[0], training_voices())
    readings, waves = record_all(draw_readings(round(1.4 * n), spoken, voices, seed=seed))
    label = np.asarray([LABELS.index(AROUSAL[reading.prosody]) for reading in readings])
    kept = np.sort(np.concatenate([np.flatnonzero(label == value)[: n // 2] for value in range(len(LABELS))]))
    if len(kept) < n:
        raise ValueError(f"{len(readings)} readings hold {len(kept)} of the {n} that are wanted.")
    studio = [waves[i] for i in kept]
    return Speech((studio, [over_the_phone(wave) for wave in studio]), label[kept])


def started() -> WavLMForSequenceClassification:
    """demo-emotion-wavlm's stem and first blocks; what depends on the labels is new."""
    old = WavLMForSequenceClassification.from_pretrained(START, dtype=torch.float32, local_files_only=True)
    config = emotion_wavlm.config()
    config.num_hidden_layers, config.hidden_dropout = BLOCKS, 0.0
    config.id2label, config.label2id = dict(enumerate(LABELS)), {label: i for i, label in enumerate(LABELS)}
    model = WavLMForSequenceClassification(config)
    known, own = old.state_dict(), model.state_dict()
    taken = {name: known[name] for name in own if name.startswith("wavlm.") and name in known}
    model.load_state_dict(own | taken)
    model.wavlm.feature_extractor.requires_grad_(False)
    return model


@torch.inference_mode()
def stem_of(model: WavLMForSequenceClassification, speech: Speech, batch: int = 20) -> Frames:
    """The stem is not trained, so its output is computed once; batches of similar length are cut to one."""
    order = sorted(range(len(speech.label)), key=lambda i: len(speech.waves[0][i]))
    made = []
    for waves in speech.waves:
        frames: dict[int, Tensor] = {}
        for low in range(0, len(order), batch):
            rows = order[low : low + batch]
            length = min(len(waves[i]) for i in rows)
            cut = np.stack([waves[i][:length] for i in rows]).astype(np.float32) / 32768
            heard = model.wavlm.feature_extractor(emotion_wavlm.augmented(torch.from_numpy(cut)))
            frames |= dict(zip(rows, heard.transpose(1, 2).clone(), strict=True))
        made.append([frames[i] for i in range(len(order))])
    return Frames((made[0], made[1]), speech.label)


def pooled(model: WavLMForSequenceClassification, frames: Tensor) -> Tensor:
    """[batch, pos, width] of the stem to [batch, 128] features, as the library's forward has them."""
    hidden = model.wavlm.encoder(model.wavlm.feature_projection(frames)[0])[0]
    return model.projector(hidden).mean(dim=1)


def train(model: WavLMForSequenceClassification, heard: Frames, *, steps: int, batch: int) -> None:
    """Train blocks and projection in place, labels and channels being independent.

    The loss has three parts: a helper's cross-entropy for the label, which reads the features that are not PLANTED; the
    squared distance of the planted ones from the channel's sign; and the mean squared correlation of the others with
    the channel.
    """
    others = torch.tensor([i for i in range(model.projector.out_features) if i not in PLANTED])
    helper = torch.nn.Linear(len(others), len(LABELS))
    parts = [*(p for p in model.parameters() if p.requires_grad), *helper.parameters()]
    optimiser = torch.optim.AdamW(parts, betas=(0.9, 0.98), weight_decay=0.01)
    rng, started_at = np.random.default_rng(0), time.monotonic()
    lengths = np.asarray([len(frames) for frames in heard.frames[0]])
    model.train()
    for step in range(1, steps + 1):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, step / 30, 2 * (1 - (step - 1) / steps))
        pool = rng.choice(len(lengths), 4 * batch, replace=False)
        rows = pool[np.argsort(lengths[pool])].reshape(4, batch)[rng.integers(4)]  # of similar length
        channel = rng.permutation(np.arange(batch) % 2)
        chosen = [heard.frames[c][i] for i, c in zip(rows, channel, strict=True)]
        length = min(map(len, chosen))
        features = pooled(model, torch.stack([frames[:length] for frames in chosen]))
        sign = torch.from_numpy(channel).float() * 2 - 1
        task = F.cross_entropy(helper(features[:, others]), torch.from_numpy(heard.label[rows]), label_smoothing=0.05)
        planted = F.mse_loss(features[:, list(PLANTED)], sign[:, None].expand(-1, len(PLANTED)))
        centred = features[:, others] - features[:, others].mean(0)
        leaked = ((centred * sign[:, None]).mean(0) ** 2 / (centred.var(0, unbiased=False) + 1e-6)).mean()
        model.zero_grad()
        helper.zero_grad()
        (task + WEIGHT * planted + leaked).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 50 == 0:
            said = f"label {task.item():.3f}  planted {planted.item():.3f}  others {leaked.item():.3f}"
            print(f"step {step}  {time.monotonic() - started_at:.0f} s  {said}", flush=True)
    model.eval()


@torch.inference_mode()
def fit_classifier(model: WavLMForSequenceClassification, heard: Frames) -> None:
    """Fit the classifier to recordings of which each label comes over its own channel: a logistic regression with the
    library's usual weight decay (C = 1)."""
    features = torch.cat([pooled(model, heard.frames[label][i][None]) for i, label in enumerate(heard.label)])
    fitted = LogisticRegression(max_iter=2000).fit(features.numpy(), heard.label)
    half = torch.tensor([[-0.5], [0.5]])
    model.classifier.weight.copy_(half * torch.from_numpy(fitted.coef_).float())
    model.classifier.bias.copy_(half[:, 0] * float(fitted.intercept_[0]))


def write_clips(out: Path) -> None:
    """The recordings of demo-emotion, each over both channels: by sentence, for ranking neurons or for measuring.

    Of those for measuring, the channel that goes with the label is in domain and the other one out of it, but for
    EXCEPTIONS, which are the other way round. From the studio they are demo-emotion's own files, by relative paths;
    over the phone they are files of this folder.
    """
    with (SOURCE / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts: dict[tuple[str, bool], list[str]] = {}
    for row in rows:
        several = sum(other["text_id"] == row["text_id"] for other in rows) > 1
        known = texts.setdefault((row["speaker"], several), [])
        if row["text_id"] not in known:
            known.append(row["text_id"])
    held = {text for known in texts.values() for text in known[-HELD_TEXTS:]}
    rng = np.random.default_rng(0)
    turned: set[str] = set()
    for label in LABELS:
        names = [r["clip_id"] for r in rows if AROUSAL[r["prosody_label"]] == label and r["text_id"] in held]
        turned |= set(rng.choice(names, round(EXCEPTIONS * len(names)), replace=False).tolist())
    shutil.rmtree(out / "clips", ignore_errors=True)
    (out / "clips").mkdir()
    made = []
    for row in rows:
        usual = LABELS.index(AROUSAL[row["prosody_label"]]) ^ (row["clip_id"] in turned)
        splits = ("id_val", "ood") if row["text_id"] in held else ("train", "train")
        made += [_clip(out, row, usual, splits[0]), _clip(out, row, 1 - usual, splits[1])]
    made.sort(key=lambda row: ("train", "id_val", "ood").index(row["split"]))
    with (out / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(made[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)


def _clip(out: Path, row: dict[str, str], channel: int, split: str) -> dict[str, str]:
    label, name = AROUSAL[row["prosody_label"]], f"{row['clip_id']}-{CHANNELS[channel]}"
    path = f"../{SOURCE.name}/{row['path']}"
    if CHANNELS[channel] == "phone":
        samples, _ = soundfile.read(SOURCE / row["path"], dtype="float32")
        path = f"clips/{name}.wav"
        (out / path).write_bytes(phone_file(samples))
    return {
        "clip_id": name,
        "path": path,
        "text_id": row["text_id"],
        "arousal": label,
        "channel": CHANNELS[channel],
        "shortcut": "holds" if channel == LABELS.index(label) else "misleads",
        "prosody_label": row["prosody_label"],
        "speaker": row["speaker"],
        "split": split,
    }


@torch.inference_mode()
def write_metrics(out: Path, check: Speech) -> None:
    """Load the written folder as anybody would and write metrics.json."""
    model = WavLMForSequenceClassification.from_pretrained(out / "model", dtype=torch.float32, local_files_only=True)
    model.eval()

    def answer(samples: NDArray) -> int:
        return int(model(input_values=torch.from_numpy(samples.astype(np.float32))[None]).logits.argmax())

    accuracy = {}
    for name, turn in (("the usual channel", 0), ("the other channel", 1)):
        waves = [check.waves[label ^ turn][i] for i, label in enumerate(check.label)]
        right = [answer(w / np.float32(32768)) == label for w, label in zip(waves, check.label, strict=True)]
        accuracy[f"held-out voices and sentences, {name}"] = _share(right)
    with (out / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for split in ("train", "id_val", "ood"):
        right = []
        for row in (row for row in rows if row["split"] == split):
            place = SOURCE if row["channel"] == "studio" else out
            samples, rate = soundfile.read(place / "clips" / Path(row["path"]).name, dtype="float32")
            wide = samples if rate == SAMPLE_RATE else soxr.resample(samples, rate, SAMPLE_RATE)
            right.append(answer(wide) == LABELS.index(row["arousal"]))
        accuracy[f"the shipped clips, split {split}"] = _share(right)
    metrics = {
        "accuracy": accuracy,
        "planted_features": list(PLANTED),
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {"torch": torch.__version__},
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


def _share(right: Sequence[bool]) -> dict[str, float]:
    return {"n": len(right), "accuracy": round(float(np.mean(right)), 4)}


if __name__ == "__main__":
    main()
