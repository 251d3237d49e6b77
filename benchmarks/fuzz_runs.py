"""Damaged run folders of every experiment: found, listed, opened, and all that a page or a summary makes of them.

python -m benchmarks.fuzz_runs [CASES] [SEED]        1,000 cases take about four minutes
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.fuzz_configs import changed
from benchmarks.fuzzing import main, mutated
from interp_core.experiments import experiment_of
from interp_core.experiments.experiment import open_result
from interp_core.models.bundled import demos
from interp_core.runs import CONFIG_ENDING, WRITTEN, find_runs, read_config

MOST_LINES = 120


def seeds(folder: Path) -> list[Path]:
    """Copies of all runs that ship, without pictures and with the beginnings of long tables."""
    made = []
    for number, run_folder in enumerate(folder for demo in demos().values() for folder in demo.saved_runs):
        copy = folder / f"whole-{number}"
        copy.mkdir()
        for path in sorted(run_folder.iterdir()):
            if path.suffix in (".csv", ".jsonl"):
                (copy / path.name).write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:MOST_LINES]))
            elif path.suffix != ".png":
                shutil.copy(path, copy)
            if path.name.endswith(CONFIG_ENDING):  # digests of cut tables would refuse them all unread
                config = json.loads(path.read_text())
                config.pop(WRITTEN, None)
                (copy / path.name).write_text(json.dumps(config))
        made.append(copy)
    return made


def harm(path: Path, rng: random.Random) -> None:
    """Damage one file of a run, or take it away."""
    data = path.read_bytes()
    path.unlink()
    kind = rng.randrange(8)
    if kind == 0:
        return
    if kind == 1:
        path.mkdir()
    elif kind == 2:
        path.write_bytes(b"")
    elif kind == 3:
        path.write_bytes(b"".join(data.splitlines(keepends=True)[:1]))
    elif kind == 4 and path.suffix == ".json":
        path.write_text(changed(json.loads(data), rng))
    elif kind == 5 and path.suffix == ".csv":  # columns that are gone, or say something else
        lines = [line.split(b",") for line in data.split(b"\n")]
        at = rng.randrange(len(lines[0]))
        keep = rng.random() < 0.5
        path.write_bytes(b"\n".join(b",".join([*one[:at], *([b"x"] if keep else []), *one[at + 1 :]]) for one in lines))
    else:
        path.write_bytes(mutated(data, rng))


def follow(folder: Path) -> None:
    """What is done with a finished run."""
    find_runs(folder)
    command = read_config(folder)["command"]
    experiment = experiment_of(command)
    result = open_result(experiment, folder)
    result.tables()
    result.profile()
    result._repr_html_()
    list(experiment.summary(result))
    experiment.request.from_config(result.config)


def cases(folder: Path, count: int, seed: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Named cases, each a run folder with one or two damaged files."""
    rng, whole = random.Random(seed), seeds(folder)
    for number in range(count):
        damaged = folder / "damaged"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(whole[number % len(whole)], damaged)
        files = sorted(damaged.iterdir())
        configs = [path for path in files if path.name.endswith(CONFIG_ENDING)]
        chosen = rng.sample(files, rng.randint(1, 2)) if rng.random() < 0.9 else configs
        for path in chosen:
            harm(path, rng)
        name = f"case {number} of seed {seed} ({', '.join(path.name for path in chosen)})"
        yield name, partial(follow, damaged)


if __name__ == "__main__":
    main(cases, 1000)
