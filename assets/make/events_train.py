"""Training of demo-events: a small HTS-AT below a linear layer that is thrown away afterwards."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from events_sounds import RATE, SECONDS, LogMel, changed, fixed_clip, prepared
from events_sources import CLASSES, Recording
from torch import nn
from transformers import ClapAudioConfig, ClapAudioModel, ClapFeatureExtractor


def build_extractor() -> ClapFeatureExtractor:
    """256 frames of 64 mel bands; what is longer than three seconds would be cut, so no clip is."""
    return ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=RATE,
        hop_length=376,
        max_length_s=SECONDS,
        fft_window_size=1024,
        frequency_min=50,
        frequency_max=14_000,
        truncation="rand_trunc",
        padding="pad",
    )


def build_model(seed: int = 0) -> ClapAudioModel:
    """The geometry of the published models (2-2-6-2 blocks, 184 heads) at a quarter of their width."""
    torch.manual_seed(seed)
    model = ClapAudioModel(
        ClapAudioConfig(
            spec_size=128,
            num_mel_bins=64,
            window_size=4,
            patch_embeds_hidden_size=24,
            hidden_size=192,
            depths=[2, 2, 6, 2],
            num_attention_heads=[4, 8, 16, 32],
            drop_path_rate=0.0,
            enable_fusion=False,
        )
    )
    # The library starts its matrices next to nothing, which costs a short training most of its steps.
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                adds = name.endswith("output.dense")  # onto the residual stream, 24 times
                nn.init.normal_(module.weight, std=module.in_features**-0.5 * (0.3 if adds else 0.8))
    return model


def train(
    found: Sequence[Recording],
    *,
    minutes: float,
    batch: int = 18,
    peak: float = 1e-3,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[ClapAudioModel, nn.Linear]:
    """Train on the training recordings, classes equally often, for so many minutes of processor time.

    Returns:
        The model with the averaged weights of the last third, and its linear layer, both in eval mode.
    """
    rng = np.random.default_rng(seed)
    model, mel = build_model(seed), LogMel(build_extractor())
    head = nn.Linear(model.config.hidden_size, len(CLASSES))
    waves: dict[str, dict[str, list]] = {
        label: {} for label in CLASSES
    }  # class -> group -> waves: a large kit weighs no more than a small one
    for one in found:
        if one.training:
            waves[one.label].setdefault(one.group, []).append(prepared(one))
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.05, betas=(0.9, 0.98))
    average = torch.optim.swa_utils.AveragedModel(nn.ModuleList([model, head]), use_buffers=True)
    started, step, losses = time.process_time(), 0, []
    while (done := (time.process_time() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1, (step + 1) / 100) * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)
        labels = np.arange(batch) % len(CLASSES)
        strength = min(1.0, 0.1 + 1.5 * done)  # gentle at first, or so short a training learns nothing
        clips = np.stack([_drawn(waves[CLASSES[label]], rng, strength) for label in labels])
        model.train()
        logits = head(model(input_features=mel(clips)).pooler_output)
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels), label_smoothing=0.03)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(loss.item())
        step += 1
        if done > 2 / 3 and step % 10 == 0:
            average.update_parameters(nn.ModuleList([model, head]))
        if step % 100 == 0:
            right = _heldout(model, head, mel, found)
            say(f"step {step}, {100 * done:.0f} %, loss {np.mean(losses[-100:]):.3f}, held out {right:.3f}")
    trained: Any = average.module
    return trained[0].eval(), trained[1].eval()


def _drawn(groups: dict[str, list], rng: np.random.Generator, strength: float) -> np.ndarray:
    names = list(groups)
    takes = groups[names[rng.integers(len(names))]]
    return changed(takes[rng.integers(len(takes))], rng, strength)


def _heldout(model: ClapAudioModel, head: nn.Linear, mel: LogMel, found: Sequence[Recording]) -> float:
    held = [one for one in found if not one.training][::4]
    right = answers(model, head, mel, held) == np.array([CLASSES.index(one.label) for one in held])
    labels = np.array([one.label for one in held])
    return float(np.mean([right[labels == label].mean() for label in CLASSES]))


def answers(model: ClapAudioModel, head: nn.Linear, mel: LogMel, found: Sequence[Recording]) -> np.ndarray:
    """The class that each recording's fixed clip is given, [n]."""
    model.eval()
    said = []
    with torch.inference_mode():
        for at in range(0, len(found), 32):
            clips = np.stack([fixed_clip(one) for one in found[at : at + 32]])
            said.append(head(model(input_features=mel(clips)).pooler_output).argmax(-1).numpy())
    return np.concatenate(said)
