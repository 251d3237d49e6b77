"""NaN in a weight, and an overflow in half precision: one sentence with the clip, the layer and the dtype."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from interp_core.errors import InterpError
from interp_core.models.load import open_model
from interp_core.models.subject import Subject
from interp_core.trace.clean import clean_runs, prompt_clip
from tests.families.audio_llms import FAMILIES
from tests.families.subjects import CASES, picture, subject_of, tone, with_probe
from tests.models.conftest import clip_for
from tests.tiny_opens2s import save_opens2s

QUICK = ("wavlm-base", "whisper-decoder", "clap-uneven", "resnet", "qwen2_audio", "phi4_multimodal")
"""One of each kind; the others take a minute together."""
ALL = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in (*CASES, *FAMILIES, "omnispeech")
]
FLOAT16, BFLOAT16 = ("float16", 3e4, "overflows"), ("bfloat16", 3e38, "becomes NaN or infinite")
NO_HALF = ("vibevoice_asr", "granite_speech", "granite_speech_plus", "phi4_multimodal")
"""The random stem of VibeVoice overflows in float16 by itself; torch's CPU takes minutes over a conformer in it."""
BAD = 1
"""The layer that is broken, of two or more."""


def subject_and_stem(name: str, folder: Path, dtype: str = "float32"):
    if name in CASES:
        case = CASES[name]
        subject = subject_of(case, case.write(folder), dtype)
        pictures = case.reads == "pictures"
        samples = picture(1, 1) if pictures else tone(1.0, 300, subject.sample_rate)
        if case.reads == "probe":
            subject = with_probe(subject, samples)
        return subject, samples, subject.default_prompts[0]
    save = save_opens2s if name == "omnispeech" else FAMILIES[name]
    subject = open_model(str(save(folder)), device="cpu", dtype=dtype)
    return subject, clip_for(subject, 1.0, 300), "What is the emotion?"


def matrices(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.ndim > 1]


@contextmanager
def changed(weights: list[nn.Parameter], change) -> Iterator[None]:
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            change(weight)
    yield
    with torch.no_grad():
        for weight, old in zip(weights, kept, strict=True):
            weight.copy_(old)


def run(subject: Subject, samples, prompt: str):
    return clean_runs(subject, [prompt_clip(subject, samples, prompt, "bad clip")])


@pytest.mark.parametrize("name", ALL)
def test_a_nan_and_an_overflow_are_named_with_clip_layer_and_dtype(name: str, tmp_path: Path) -> None:
    dtype, large, said = BFLOAT16 if name in NO_HALF else FLOAT16
    subject, samples, prompt = subject_and_stem(name, tmp_path / "model", dtype)
    assert subject.n_layers > BAD
    one = matrices(subject.blocks[BAD])[-1]
    with changed([one], lambda weight: weight.view(-1)[0].fill_(torch.nan)), pytest.raises(InterpError) as found:
        run(subject, samples, prompt)
    words = str(found.value)
    assert "'bad clip'" in words and f"layer {BAD} on" in words and "holds NaN" in words

    all_of_them = matrices(subject.blocks[BAD])
    with changed(all_of_them, lambda weight: weight.fill_(large)), pytest.raises(InterpError) as found:
        run(subject, samples, prompt)
    words = str(found.value)
    assert f"'bad clip' {said} in {dtype} in {subject.name} from layer {BAD} on" in words
    assert f"use {'bfloat16 or ' * (dtype == 'float16')}float32" in words

    assert run(subject, samples, prompt)[0].logits.isfinite().all()  # the weights as they were: nothing is refused
