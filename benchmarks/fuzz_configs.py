"""Mutated config files, as `--config` takes them: from the file to a checked request, its command line and its key.

python -m benchmarks.fuzz_configs [CASES] [SEED]        5,000 cases take about ten seconds
"""

import json
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fuzzing import main, mutated
from interp_core.cli import parser, request_of
from interp_core.models.bundled import demos
from interp_core.options import in_words, python_call
from interp_core.runs import CONFIG_ENDING

DEEP = 100_000
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**63, 10**400, 1.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", " ", "none", "all", "\0", "\ud800", "~nobody-of-this-name", "../..", "x" * 5000, "a,b", '"', "-1,2", "1e999"),
    *([], {}, [[]], [None], [1, "a"], ["a", "a"], {"a": 1}, {"": {}}, [{}], [1.5], [True], [10**400]),
)


def seeds() -> list[dict[str, Any]]:
    """The configs of all runs that ship."""
    folders = [folder for demo in demos().values() for folder in demo.saved_runs]
    return [json.loads(path.read_text()) for folder in folders for path in sorted(folder.glob(f"*{CONFIG_ENDING}"))]


def changed(config: dict[str, Any], rng: random.Random) -> str:
    """A config as JSON with one to three entries, at any depth, that are something else, gone, or new."""
    config = json.loads(json.dumps(config))
    for _ in range(rng.randint(1, 3)):
        at: Any = config
        while True:
            if isinstance(at, dict) and at:
                name: Any = rng.choice(list(at))
            elif isinstance(at, list) and at:
                name = rng.randrange(len(at))
            else:
                break
            if isinstance(at[name], dict | list) and at[name] and rng.random() < 0.7:
                at = at[name]
                continue
            if rng.random() < 0.2:
                del at[name]
            elif rng.random() < 0.1 and isinstance(at, dict):
                at[str(name) * 2] = at[name]
            else:
                at[name] = deepcopy(rng.choice(ODD))
            break
    return json.dumps(config)


COMMANDS = parser()


def follow(command: str, path: Path) -> None:
    """What the command line does with a config before a model is opened, and what the pages say of its settings."""
    request = request_of(COMMANDS.parse_args([command, f"--config={path}", "--out=run"]))
    request.check()
    request.command_line()
    python_call(request)
    in_words(request)
    assert request.key


def cases(folder: Path, count: int, seed: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Named cases, each a config file of its own bytes."""
    rng, whole = random.Random(seed), seeds()
    path = folder / "mutated_config.json"
    for number in range(count):
        config = rng.choice(whole)
        if number % 100 == 7:
            data = (b"[", b'{"a":')[number % 2] * DEEP
        elif rng.random() < 0.2:
            data = mutated(json.dumps(config).encode(), rng)
        else:
            data = changed(config, rng).encode()
        path.write_bytes(data)
        yield f"case {number} of seed {seed}", partial(follow, config["command"], path)


if __name__ == "__main__":
    main(cases, 5000)
