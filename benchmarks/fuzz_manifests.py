"""Mutated manifests, CSV and Parquet, through reading, with bad rows refused and left out.

python -m benchmarks.fuzz_manifests [CASES] [SEED]        3,000 cases take about a minute
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from benchmarks.fuzzing import main, mutated
from interp_core.data.manifest import read_manifest

ODD = (
    "",
    " ",
    ",",
    '"',
    "\n",
    "\r",
    "\0",
    "\\",
    "/",
    "..",
    "sep=;\n",
    "nan",
    "é",
    "\ud800",
    "x" * 5000,
    "a,a.wav\n" * 500,
)


def seeds(folder: Path) -> list[tuple[str, bytes]]:
    """Manifests of each kind, as (ending, bytes), beside the recordings that they name."""
    soundfile.write(folder / "a.wav", np.full(2000, 0.1), 8000)
    frame = pd.DataFrame({"clip_id": ["a", "b"], "path": ["a.wav", "gone.wav"], "label": ["x", "y"], "n": [1, 2]})
    frame.to_csv(folder / "m.csv", index=False)
    frame.to_parquet(folder / "m.parquet")
    text = (folder / "m.csv").read_bytes()
    theirs = text.replace(b"clip_id,path", b"id,file_name")
    made = [("csv", one) for one in (text, b"sep=,\r\n" + text, theirs, b"\xef\xbb\xbf" + text)]
    return [*made, ("parquet", (folder / "m.parquet").read_bytes())]


def cases(folder: Path, count: int, seed: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Named cases, each a manifest of its own bytes."""
    rng, whole = random.Random(seed), seeds(folder)
    for number in range(count):
        ending, data = rng.choice(whole)
        if ending == "csv" and rng.random() < 0.5:
            text, at = data.decode(), rng.randrange(len(data))
            data = (text[:at] + rng.choice(ODD) + text[at:]).encode("utf-8", "surrogatepass")
        else:
            data = mutated(data, rng)
        path = folder / f"mutated.{ending}"
        path.write_bytes(data)
        yield f"case {number} of seed {seed}", partial(read_manifest, path, skip_bad=rng.random() < 0.5, roots=[folder])


if __name__ == "__main__":
    main(cases, 3000)
