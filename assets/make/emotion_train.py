"""The training loop of demo-emotion and its accuracy on recordings that were kept out of it."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from emotion_data import Reading
from emotion_model import PROMPTS
from emotion_packing import BRANCHES, Packer, answer_to, n_tokens, packed_logits
from speech import EMOTIONS, SAMPLE_RATE
from torch import Tensor
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor


@dataclass(frozen=True)
class Corpus:
    """Recordings as the model's feature extractor gives them.

    features: [n, n_mels, window] float16 log-mel, 100 frames a second. n_frames: [n], the frames that hold sound.
    """

    readings: list[Reading]
    features: Tensor
    n_frames: Tensor


def extract(readings: Sequence[Reading], recordings: Sequence[np.ndarray], processor: Qwen2AudioProcessor) -> Corpus:
    """The readings and their int16 samples at 16 kHz, as the model sees them."""
    features, n_frames = [], []
    for start in range(0, len(recordings), 256):
        batch = [samples.astype(np.float32) / 32768 for samples in recordings[start : start + 256]]
        extracted = processor.feature_extractor(
            batch, sampling_rate=SAMPLE_RATE, padding="max_length", return_attention_mask=True, return_tensors="pt"
        )
        features.append(extracted.input_features.half())
        n_frames.append(extracted.attention_mask.sum(-1))
    return Corpus(list(readings), torch.cat(features), torch.cat(n_frames))


@dataclass
class Schedule:
    """Learning rates that warm up, stay, and fall linearly to 0 over the last decay_steps."""

    steps: int
    decay_steps: int
    warmup_steps: int = 80
    matrix_rate: float = 3e-3  # Muon's, scaled to match AdamW's updates
    other_rate: float = 2e-3

    def factor(self, step: int) -> float:
        return min(1.0, step / self.warmup_steps, (self.steps - step + 1) / self.decay_steps)


def train(
    model: Qwen2AudioForConditionalGeneration,
    packer: Packer,
    corpus: Corpus,
    *,
    schedule: Schedule,
    batch_size: int,
    seed: int,
    every: int,
    at_checkpoint: Callable[[int], None],
) -> None:
    """Trains in place (bfloat16 autocast); calls at_checkpoint(step) every so many steps."""
    random.seed(seed)
    torch.manual_seed(seed)
    # Muon for the blocks' matrices takes about half of AdamW's steps here; AdamW for all the rest.
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    matrices = {name for name, p in weights.items() if ".layers." in name and p.ndim == 2}
    optimisers = [
        torch.optim.Muon([weights[n] for n in sorted(matrices)], weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([p for n, p in weights.items() if n not in matrices], betas=(0.9, 0.98), weight_decay=0.0),
    ]
    rates = (schedule.matrix_rate, schedule.other_rate)
    for layer in model.model.language_model.layers:
        layer.compile(dynamic=True)
    start = time.monotonic()
    running = dict.fromkeys(("labels", "words"), float("nan"))
    batches = _batches(corpus, batch_size)
    model.train()
    step = 0
    while step < schedule.steps:
        step += 1
        for optimiser, rate in zip(optimisers, rates, strict=True):
            optimiser.param_groups[0]["lr"] = rate * schedule.factor(step)
        rows = next(batches)
        readings = [corpus.readings[i] for i in rows]
        n_frames = corpus.n_frames[rows]
        packed = packer.pack(readings, n_tokens(n_frames), BRANCHES)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = _augmented(corpus.features[rows].float())
            logits = packed_logits(model, packed, features, n_frames, deaf_layers=_draw_deaf_layers())
        losses = F.cross_entropy(logits.float(), packed.targets[packed.targets >= 0], reduction="none")
        spoken = (packed.group == len(BRANCHES)).expand_as(packed.targets)[packed.targets >= 0]
        of_labels, of_words = losses[~spoken].mean(), losses[spoken].mean()
        model.zero_grad()
        (2 * of_labels + of_words).backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        for name, loss in (("labels", 2 * of_labels.item()), ("words", of_words.item())):  # 2: half are turn ends
            running[name] = loss if math.isnan(running[name]) else 0.97 * running[name] + 0.03 * loss
        if step % 50 == 0:
            spent = time.monotonic() - start
            losses_now = "  ".join(f"{name} {loss:.3f}" for name, loss in running.items())
            print(f"step {step}  {spent:.0f} s  {spent / step:.2f} s a step  loss: {losses_now}", flush=True)
        if step % every == 0 or step == schedule.steps:
            model.eval()
            with torch.compiler.set_stance("force_eager"):  # no second compilation for a few batches
                at_checkpoint(step)
            model.train()
    model.eval()


def _draw_deaf_layers() -> int:
    return random.choice((0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6))


def _batches(corpus: Corpus, size: int) -> Iterator[list[int]]:
    """Endless shuffled batches of recordings of similar length, so that little of a batch is padding."""
    while True:
        order = torch.randperm(len(corpus.readings)).tolist()
        pools = [order[i : i + 40 * size] for i in range(0, len(order), 40 * size)]
        batches = []
        for pool in pools:
            pool.sort(key=lambda i: corpus.n_frames[i].item())
            batches += [pool[i : i + size] for i in range(0, len(pool) - size + 1, size)]
        random.shuffle(batches)
        yield from batches


def _augmented(features: Tensor) -> Tensor:
    """features [batch, n_mels, n_frames] a little louder or softer, with noise and, in a third, a band missing."""
    batch, n_mels, _ = features.shape
    low, width = torch.randint(n_mels, (batch, 1)), torch.randint(8, (batch, 1))
    width[torch.rand(batch, 1) > 1 / 3] = 0
    mels = torch.arange(n_mels)
    missing = ((mels >= low) & (mels < low + width))[:, :, None]
    level = features.mean(dim=(1, 2), keepdim=True)
    features = torch.where(missing, level, features)
    return features + 0.02 * torch.randn(batch, 1, 1) + 0.015 * torch.randn_like(features)


@torch.inference_mode()
def accuracies(model: Qwen2AudioForConditionalGeneration, packer: Packer, corpus: Corpus) -> dict[str, float]:
    """Share of right labels a question, over all recordings and over those where voice and words disagree."""
    rows = list(range(len(corpus.readings)))
    right: dict[str, list[bool]] = {question: [] for question in PROMPTS}
    for start in range(0, len(rows), 100):
        part = rows[start : start + 100]
        readings, n_frames = [corpus.readings[i] for i in part], corpus.n_frames[part]
        packed = packer.pack(readings, n_tokens(n_frames), tuple(PROMPTS))
        logits = packed_logits(model, packed, corpus.features[part].float(), n_frames).float()
        # two targets a question: the label, then the turn's end
        chosen = logits[::2, packer.label_ids].argmax(-1).reshape(len(part), len(PROMPTS))
        for reading, answers in zip(readings, chosen.tolist(), strict=True):
            for question, answer in zip(PROMPTS, answers, strict=True):
                correct = answer_to(question, reading.prosody, reading.sentence.emotion)
                right[question].append(EMOTIONS[answer] == correct)
    conflict = [reading.prosody != reading.sentence.emotion for reading in corpus.readings]
    result = {}
    for question, hits in right.items():
        result[question] = float(np.mean(hits))
        result[f"{question} (conflict)"] = float(np.mean([hit for hit, c in zip(hits, conflict, strict=True) if c]))
    return result
