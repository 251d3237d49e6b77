"""Models that give NaN or overflow, of every family under every experiment: each ends in one sentence, or is a fault.

python -m benchmarks.not_finite [--family NAME ...] [--command NAME ...] [--harm NAME ...]

A tiny model of each family is opened as a user opens it; then one weight of its second block becomes NaN (float32), or
all of that block's weights become so large that it overflows in float16. A command that a family does not support says
so and counts as refused. What a command has to say: exit 2 and one sentence with the clip, the layer and the dtype.
"""

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile
import torch
import transformers

from interp_core import engine
from interp_core.__main__ import main as command_line
from interp_core.cli import BAD_INPUT
from interp_core.models.load import open_model
from interp_core.models.subject import Subject

BAD = 1
"""The layer that is broken."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "patch": ("--kinds", "prosody", "--max-pairs", "2", "--no-checks"),
    "heads": ("--label", "prosody_label", "--draws", "19", "--probes", "none"),
    "ablate": ("--at", f"resid_post:{BAD}", "--draws", "2", "--refits", "0", "--ks", "2"),
    "signflip": ("--draws", "2"),
    "steer": ("--draws", "2", "--layers", "0", "--no-checks"),
    "probes": ("--draws", "19", "--controls", "0"),
    "compare": ("--no-checks",),
}
ASKED = ("patch", "ablate", "signflip", "steer", "compare")
"""Those that compare labels."""
HARMS: dict[str, tuple[str, str]] = {"nan": ("float32", "holds NaN"), "overflow": ("float16", "overflows in float16")}
NO_HALF = ("vibevoice_asr", "granite_speech", "granite_speech_plus", "phi4_multimodal")
"""The random stem of VibeVoice overflows in float16 by itself; torch's CPU takes minutes over a conformer in it."""
HALF = {"overflow": ("bfloat16", "becomes NaN or infinite in bfloat16")}
MARK = "broken"


def harmed(subject: Subject, harm: str) -> None:
    """Break the weights of a block in place."""
    weights = [weight for weight in subject.blocks[BAD].parameters() if weight.ndim > 1]
    with torch.no_grad():
        for weight in weights[-1:] if harm == "nan" else weights:
            if harm == "nan":
                weight.view(-1)[0].fill_(torch.nan)
            else:
                weight.fill_(3e4 if subject.dtype == torch.float16 else 3e38)


def opening(harm: str, part: str) -> Callable[..., Subject]:
    """The engine's way to open a model, which breaks those whose name says so, in the blocks of one part."""

    def opened(name: str, **how: Any) -> Subject:
        subject = open_model(name, **how)
        if MARK in name:
            harmed(subject.part(part), harm)
        return subject

    return opened


def write_clips(folder: Path, labels: Sequence[str], seconds: float) -> Path:
    """24 clips of noise with two labels, splits and units, and what the commands read of them."""
    folder.mkdir(parents=True)
    noise, lines = np.random.default_rng(0), ["clip_id,path,text_id,prosody_label,speaker,split"]
    for number in range(24):
        text, voice = number // 3, number % 3
        name = f"t{text}-s{voice}"
        made = 0.1 * noise.standard_normal(round(seconds * 16_000))
        soundfile.write(folder / f"{name}.wav", made, 16_000, subtype="FLOAT")
        split = "ood" if voice == 2 else "id_val" if text % 4 == 3 else "train"
        lines.append(f"{name},{name}.wav,t{text},{labels[(text + voice) % 2]},s{voice},{split}")
    (folder / "clips.csv").write_text("\n".join(lines))
    return folder / "clips.csv"


class Family:
    """One family of the tests' table, written once.

    Args:
        name: in the tables. scratch: where its folder goes.
    """

    def __init__(self, name: str, scratch: Path) -> None:
        audio_llms, subjects = (import_module(f"tests.families.{table}") for table in ("audio_llms", "subjects"))
        case = subjects.CASES.get(name)
        self.name = name
        self.part = case.part if case else ""
        self.reads = case.reads if case else "words"
        self._place = scratch / name
        write = case.write if case else audio_llms.FAMILIES[name]
        (self._place / "whole").mkdir(parents=True)
        written = Path(write(self._place / "whole" / "model"))
        shutil.copytree(self._place / "whole", self._place / MARK)
        self.whole, self.broken = str(written), str(self._place / MARK / written.relative_to(self._place / "whole"))
        subject = open_model(self.whole, device="cpu").part(self.part)
        self._probed, self._prompt = subject.needs_probe, (subject.default_prompts or ("Which?",))[0]
        self._labels = subject.answers[:2] or ("neutral", "happy")
        longest = max(seconds for seconds, _ in case.clips.values()) if case else 1.0
        self.manifest = write_clips(self._place / "clips", self._labels, longest)

    def asked(self, command: str, dtype: str, out: Path) -> list[str]:
        """The command line of an experiment over the broken model."""
        given = [command, "--model", self.broken, "--manifest", str(self.manifest), *COMMANDS[command]]
        given += ["--device", "cpu", "--dtype", dtype, "--out", str(out)]
        given += ["--part", self.part] if self.part else []
        given += ["--donor", self.whole] if command == "compare" else []
        if self._probed:
            return given + ["--probe", "prosody_label"] * (command in ASKED)
        if command in ASKED:
            given += ["--labels", ",".join(self._labels)]
            given += ["--multi-token", "first"] if command == "patch" and self.reads == "words" else []
            given += ["--prompt", self._prompt] if command == "compare" and self.reads == "words" else []
        return given


def said(given: list[str], harm: str, part: str) -> tuple[int, str]:
    """Run a command line over a model that is harmed: how it ends, and the last line that it says."""
    told = io.StringIO()
    with (
        mock.patch.object(engine, "open_model", opening(harm, part)),
        contextlib.redirect_stderr(told),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        try:
            ended = command_line(given)
        except SystemExit as stop:
            ended = int(stop.code or 0) if isinstance(stop.code, int | None) else 1
        except Exception:
            return -1, traceback.format_exc()
    return ended, (told.getvalue().strip().splitlines() or [""])[-1]


def verdict(family: Family, command: str, harm: str, out: Path) -> tuple[str, str]:
    """ "said" where the sentence is whole; "refused" where the command does not go with the model; else "fault"."""
    dtype, words = (HALF if family.name in NO_HALF and harm in HALF else HARMS)[harm]
    ended, sentence = said(family.asked(command, dtype, out), harm, family.part)
    if ended == BAD_INPUT and words in sentence and f"layer {BAD} on" in sentence and "clip 't" in sentence:
        return "said", sentence
    about_numbers = any(word in sentence for word in ("NaN", "overflow", "finite"))
    return ("refused" if ended == BAD_INPUT and not about_numbers else "fault"), sentence


def names() -> list[str]:
    """Every family of the tests' tables that hears."""
    audio_llms, subjects = (import_module(f"tests.families.{table}") for table in ("audio_llms", "subjects"))
    heard = [name for name, case in subjects.CASES.items() if case.reads != "pictures"]
    return [*heard, *audio_llms.FAMILIES]


def cases(families: list[str], commands: list[str], harms: list[str]) -> Iterator[tuple[str, str, str]]:
    """Run all that was asked for: a name, a verdict and what was said."""
    for name in families:
        with tempfile.TemporaryDirectory() as scratch:
            family = Family(name, Path(scratch))
            for harm in harms:
                for command in commands:
                    kind, sentence = verdict(family, command, harm, Path(scratch) / f"{harm}-{command}")
                    yield f"{name} {command} {harm}", kind, sentence


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--family", action="append", choices=names())
    ask.add_argument("--command", action="append", choices=list(COMMANDS))
    ask.add_argument("--harm", action="append", choices=list(HARMS))
    asked = ask.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    tally: Counter[str] = Counter()
    for case, kind, sentence in cases(
        asked.family or names(), asked.command or list(COMMANDS), asked.harm or list(HARMS)
    ):
        tally[kind] += 1
        if kind != "said":
            sys.stdout.write(f"{kind}: {case}: {sentence}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{dict(tally)}\n")
    return bool(tally["fault"])


if __name__ == "__main__":
    sys.exit(main())
