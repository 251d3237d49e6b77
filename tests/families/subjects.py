"""Every kind of encoder subject, written tiny and opened as a user opens it, with clips that it hears."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2Tokenizer

from interp_core.models.labels import LabelTokens
from interp_core.models.load import open_model
from interp_core.models.probe import Probe
from interp_core.models.prompted import Prompted
from interp_core.models.subject import Subject
from interp_core.trace.clean import CleanRun, clean_runs, prompt_clip
from tests.families.detectors import DETECTORS
from tests.families.detectors import write as write_detector
from tests.families.encoder_words import bpe
from tests.families.encoders import FAMILIES
from tests.models.msclap_plain import random_clap, save_clap
from tests.models.test_countermeasure import checkpoint
from tests.models.test_resnet import small

CLIPS = {"short": (0.5, 300), "long": (0.8, 700), "twin": (0.5, 500)}
"""Seconds and Hz; `short` and `twin` are equally long."""
CUT = {"short": (0.15, 300), "long": (0.22, 700), "twin": (0.15, 500)}
"""For the tiny countermeasures, which fill every clip up to 0.25 s."""
PROBE_CLASSES = ("rising", "falling", "flat")
MSCLAP = dict(picture=256, n_mels=64, patch=16, depths=(1, 2, 1), heads=(1, 2, 4))
SPOOF: dict[str, dict[str, Any]] = {
    "spoof-wavlm-erm": {},
    "spoof-wavlm-dann": {"method": "dann", "pooling": "attention", "selection": {"method": "first_k", "k": 2}},
    "spoof-wav2vec2-erm": {"name": "wav2vec2_base", "selection": {"method": "specific", "layers": [3, 1, 3]}},
    "spoof-wav2vec2-dann": {
        "name": "wav2vec2_base",
        "method": "dann",
        "pooling": "mean",
        "selection": {"method": "last_k", "k": 2},
    },
}


@dataclass(frozen=True)
class Case:
    """One subject: how it is written, and what kind of answer it gives.

    Attributes:
        reads: "classes", "words", "texts", "probe" (no answer of its own), "spoof", "detector" or "pictures".
        write: makes what `open_model` takes in an empty folder, and returns its path.
        part: of Whisper.
    """

    name: str
    reads: str
    write: Callable[[Path], Path]
    part: str = ""
    clips: dict[str, tuple[float, int]] = field(default_factory=lambda: CLIPS)

    @property
    def family(self) -> str:
        """The name up to the first hyphen: wavlm, hubert, whisper, ast, clap, spoof, …"""
        return self.name.partition("-")[0]


def _write_spoof(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "checkpoints").mkdir(parents=True)
        torch.save(checkpoint(**SPOOF[name]), folder / "checkpoints" / "best.pt")
        return folder

    return write


def _write_detector(name: str) -> Callable[[Path], Path]:
    return lambda folder: write_detector(name, folder)


def _write_msclap(folder: Path) -> Path:
    vocab, merges = bpe(299)
    words = GPT2Tokenizer(vocab={**vocab, "<|endoftext|>": len(vocab)}, merges=merges)
    words.save_pretrained(folder / "tokenizer")
    return save_clap(folder / "CLAP_weights_2023.pth", random_clap("gpt2", **MSCLAP))


def _write_resnet(folder: Path) -> Path:
    folder.mkdir()
    torch.save(small().state_dict(), folder / "resnet.pth")
    return folder / "resnet.pth"


def _cases() -> list[Case]:
    cases = []
    for family in FAMILIES:
        reads = "probe" if family.reads == "nothing" else family.reads
        parts = ("encoder", "decoder") if reads == "words" else ("",)
        cases += [Case(f"{family.name}-{p}" if p else family.name, reads, family.save, p) for p in parts]
    cases += [Case(name, "spoof", _write_spoof(name), clips=CUT) for name in SPOOF]
    cases += [Case(name, "detector", _write_detector(name)) for name in DETECTORS]
    cases.append(Case("msclap", "texts", _write_msclap))
    cases.append(Case("resnet", "pictures", _write_resnet))
    return cases


CASES: dict[str, Case] = {case.name: case for case in _cases()}


def tone(seconds: float, hertz: float, rate: int) -> np.ndarray:
    """A sine with a little noise, float32."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(int(hertz)).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * hertz * time) + 0.02 * noise).astype(np.float32)


def picture(seconds: float, seed: int) -> np.ndarray:
    """Coloured patches, uint8 [height, width, 3]: as if a longer clip were a larger picture."""
    side = round(100 * seconds)
    coarse = np.random.default_rng(seed).integers(0, 256, (side // 10, side // 10, 3), np.uint8)
    return coarse.repeat(10, 0).repeat(10, 1)


@dataclass(eq=False)
class Opened:
    """An opened case with its clips' clean runs, every kind of site kept; `labels` are all logits there are."""

    case: Case
    path: Path
    subject: Subject
    prompt: str
    samples: dict[str, np.ndarray]
    stems: dict[str, Prompted]
    runs: dict[str, CleanRun]
    labels: LabelTokens

    def logits(self, name: str) -> Tensor:
        return self.labels.read(self.runs[name].logits[None])[0][0]


def all_logits(logits: Tensor) -> LabelTokens:
    ids = tuple(range(logits.shape[-1]))
    return LabelTokens(tuple(map(str, ids)), ids, {})


def with_probe(subject: Subject, samples: np.ndarray) -> Subject:
    """Put a random probe behind a subject that has no classifier."""
    width = subject.heard(subject.model_inputs(samples, "")).shape[1]
    made = torch.Generator().manual_seed(1)
    weight = torch.randn(len(PROBE_CLASSES), width, generator=made) / width**0.5
    return replace(subject, probe=Probe(PROBE_CLASSES, weight, torch.randn(len(PROBE_CLASSES), generator=made), {}))


def subject_of(case: Case, path: Path, dtype: str = "float32") -> Subject:
    """Open a written case, without a probe."""
    return open_model(str(path), device="cpu", dtype=dtype).part(case.part)


def open_case(case: Case, path: Path, *, dtype: str = "float32", clips: Sequence[str] = tuple(CLIPS)) -> Opened:
    """Open a written case and run its clips, one at a time; in whatever mode the test is that asks first."""
    with torch.inference_mode(False):
        subject = subject_of(case, path, dtype)
    if case.reads == "pictures":
        samples = {name: picture(*case.clips[name]) for name in clips}
    else:
        samples = {name: tone(*case.clips[name], subject.sample_rate) for name in clips}
    if case.reads == "probe":
        with torch.inference_mode(False):
            subject = with_probe(subject, samples[clips[0]])
    prompt = subject.default_prompts[0]
    stems = {name: prompt_clip(subject, samples[name], prompt, name) for name in clips}
    runs = {name: clean_runs(subject, [stem], subject.kinds)[0] for name, stem in stems.items()}
    return Opened(case, path, subject, prompt, samples, stems, runs, all_logits(runs[clips[0]].logits))
