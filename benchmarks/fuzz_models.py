"""Model folders and weight files that are changed at random: `heads` runs on them, or one sentence says why not.

python -m benchmarks.fuzz_models [--cases 600] [--seed 0] [--family NAME ...]

Each case changes one to three files of a tiny model: entries of its JSON files become what they must not be or go
missing, bytes of any file change, a file becomes a folder, a link to itself or nothing; or the name itself is odd.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import transformers

from benchmarks.fuzzing import mutated, run
from interp_core.engine import Engine
from interp_core.experiments.experiment import run as run_experiment
from interp_core.experiments.heads.experiment import HEADS
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.models.load import open_model
from interp_core.trace.clean import clean_runs, prompt_clip

Writers = dict[str, Callable[[Path], Path]]
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 3, 7, 1.5, -0.5, 100_000, 10**9, 10**30, 1e308, float("nan"), "", "x", "a" * 5000, [], [0],
    [[]],
    {}, {"a": 1}, "float16", ["x"] * 3,
)  # fmt: skip
NAMES = (
    "a" * 5000,
    "~nosuchuser",
    "~nosuchuser/model",
    "a/" * 3000,
    "\0",
    "a\0b",
    ".",
    "..",
    "",
    " ",
    "a/b/c",
    "//",
    "%s",
)


def _entries(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value[:8]) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from _entries(one, (*path, key))


def change_json(file: Path, rng: random.Random, most: int = 3) -> None:
    """Put some entries to another value, or take them out; a number mostly to another number."""
    about = json.loads(file.read_text("utf-8"))
    for _ in range(rng.randint(1, most)):
        places = [place for place in _entries(about) if "vocab" not in place and "merges" not in place]
        if not places:
            return
        *above, last = rng.choice(places)
        holder = about
        for key in above:
            holder = holder[key]
        old, how = holder[last], rng.random()
        if how < 0.1:
            del holder[last]
        elif how < 0.7 and isinstance(old, int) and not isinstance(old, bool):
            holder[last] = rng.choice((0, -1, 1, old - 1, old + 1, 2 * old, old // 2, 10**5, 10**9))
        else:
            holder[last] = deepcopy(rng.choice(VALUES))
    file.write_text(json.dumps(about), "utf-8")


def change_file(file: Path, rng: random.Random) -> None:
    """Change its bytes, or put something else in its place."""
    how = rng.random()
    if how < 0.6:
        file.write_bytes(mutated(file.read_bytes(), rng))
        return
    file.unlink()
    if how < 0.7:
        file.mkdir()
    elif how < 0.8:
        os.symlink(file.name, file)
    elif how < 0.9:
        file.write_bytes(b"[" * 100_000 if rng.random() < 0.5 else b"")


def change(folder: Path, rng: random.Random) -> None:
    """Change one entry of one JSON file, or one to three files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    settings = [file for file in files if file.name.endswith("config.json")]
    if settings and rng.random() < 0.6:
        change_json(rng.choice(settings), rng, 1)
        return
    for file in rng.sample(files, min(len(files), rng.randint(1, 3))):
        if not file.is_file():
            continue
        if file.suffix == ".json" and rng.random() < 0.7:
            change_json(file, rng)
        else:
            change_file(file, rng)


def answer(name: str) -> None:
    """Open a model and answer one clip of noise, a second long, or a picture."""
    subject = open_model(name, device="cpu")
    if subject.needs_probe:
        return
    noise = np.random.default_rng(0)
    if subject.takes == "pictures":
        samples = noise.integers(0, 256, (64, 64, 3), np.uint8)
    else:
        samples = noise.standard_normal(min(max(int(subject.sample_rate), 1), 48_000)).astype(np.float32)
    prompt = (subject.default_prompts or ("What is this?",))[0]
    subject.check_prompt(prompt)
    clean_runs(subject, [prompt_clip(subject, samples, prompt, "noise")])


def clips_to_ablate(folder: Path) -> Path:
    """A manifest of four seconds of noise, two of a label, for the command that follows an answer."""
    folder.mkdir()
    noise = np.random.default_rng(1)
    lines = ["clip_id,path,label"]
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", 0.1 * noise.standard_normal(16_000), 16_000)
        lines.append(f"c{number},{number}.wav,{'ab'[number % 2]}")
    (folder / "clips.csv").write_text("\n".join(lines))
    return folder / "clips.csv"


def command(name: str, manifest: Path) -> None:
    """Answer a clip, then run the smallest `heads` on four."""
    answer(name)
    asked = HeadsRequest(name, str(manifest), device="cpu", label="label", per_class=2, draws=19)
    run_experiment(HEADS, Engine(), asked)


def cases(writers: Writers, scratch: Path, count: int, seed: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names and work of `count` cases, spread over the families; and one for each odd name."""
    whole = {name: Path(write(scratch / "whole" / name)) for name, write in writers.items()}
    manifest = clips_to_ablate(scratch / "clips")
    for name in NAMES:
        yield f"the name {name[:20]!r}", lambda name=name: answer(name)  # type: ignore[misc]
    for number in range(count):
        family = list(whole)[number % len(whole)]
        rng = random.Random(f"{seed} {number}")

        def case(family: str = family, rng: random.Random = rng) -> None:
            folder = scratch / "broken"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(scratch / "whole" / family, folder)
            change(folder, rng)
            command(str(folder / whole[family].relative_to(scratch / "whole" / family)), manifest)

        yield f"{family} {number} of seed {seed}", case


def main() -> int:
    audio_llms, subjects = (import_module(f"tests.families.{name}") for name in ("audio_llms", "subjects"))
    encoders = {name: one.write for name, one in subjects.CASES.items() if one.part != "decoder"}
    known: Writers = encoders | audio_llms.FAMILIES
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--cases", type=int, default=600)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--family", action="append", choices=sorted(known))
    asked = ask.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as scratch:
        chosen = {name: known[name] for name in asked.family or known}
        (Path(scratch) / "whole").mkdir()
        tally = run(cases(chosen, Path(scratch), asked.cases, asked.seed))
    sys.stdout.write(f"{tally}\n")
    return bool(tally.faults)


if __name__ == "__main__":
    sys.exit(main())
