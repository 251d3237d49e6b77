"""CKA of all pairs of layers of two models: time, memory and right numbers, against torch_cka.

python benchmarks/cka.py            the whole table: 2048 clips, 12 layers of width 768, minutes
python benchmarks/cka.py --quick    small numbers, seconds

torch_cka compares modules, so here two modules hand out features that were drawn beforehand, a slice a layer; forwards
cost both sides nothing. Without `pip install --no-deps torch-cka==0.21` its columns are left out. Times are of the
process (all its threads), taken in turn, round after round; a ratio is the median over rounds.
"""

import argparse
import contextlib
import importlib.util
import io
import statistics
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from interp_core.maths.cka import CkaMatrix, CkaStream

PEER = importlib.util.find_spec("torch_cka") is not None
AGREE, AT_LEAST = 1e-3, 8.0


class Layers(nn.Module):
    """A module whose layers hand out slices of its input [batch, n_layers * width]."""

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Identity() for _ in range(n_layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [part(piece) for part, piece in zip(self.parts, x.chunk(len(self.parts), 1), strict=True)]


def features(n: int, n_layers: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two models' features [n, n_layers * width], float64, zero mean: layers that drift from a shared start."""
    made = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(n, width, generator=made, dtype=torch.float64)

    first = normal()
    found = []
    for _ in range(2):
        layer, layers = first.clone(), []
        for _ in range(n_layers):
            layer = 0.8 * layer + 0.6 * normal()
            layers.append(layer - layer.mean(0))
        found.append(torch.cat(layers, 1))
    return found[0], found[1]


def ours(x: Tensor, y: Tensor, n_layers: int, batch: int, *, max_bytes: int, minibatch: int | None) -> CkaMatrix:
    stream = CkaStream(max_bytes=max_bytes, minibatch=minibatch)
    for start in range(0, len(x), batch):
        a, b = (part[start : start + batch].chunk(n_layers, 1) for part in (x, y))
        stream.add(a, b)
    return stream.result()


def theirs(x: Tensor, y: Tensor, n_layers: int, batch: int) -> np.ndarray:
    from torch_cka import CKA  # type: ignore[import-not-found]

    names = [f"parts.{i}" for i in range(n_layers)]
    before = torch.get_default_dtype()
    torch.set_default_dtype(x.dtype)  # it multiplies by ones of the default dtype
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        pair = CKA(Layers(n_layers), Layers(n_layers), "a", "b", names, names)
        loaders = [DataLoader(TensorDataset(part), batch_size=batch) for part in (x, y)]
        try:
            pair.compare(*loaders)
        finally:
            torch.set_default_dtype(before)
        return pair.export()["CKA"].numpy()


def timed(step: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the process, and of the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    step()
    return time.process_time() - cpu, time.perf_counter() - wall


def speed(n: int, n_layers: int, width: int, batch: int, rounds: int) -> bool:
    """The time of all pairs, and whether both find the same numbers on features that torch_cka can take."""
    x, y = features(n, n_layers, width, 0)
    cases: dict[str, Callable[[], object]] = {
        f"Patchbay, minibatches of {batch}": lambda: ours(x, y, n_layers, batch, max_bytes=4 << 30, minibatch=batch),
        "Patchbay, all clips at once": lambda: ours(x, y, n_layers, batch, max_bytes=4 << 30, minibatch=None),
    }
    if PEER:
        cases[f"torch_cka 0.21, batches of {batch}"] = lambda: theirs(x, y, n_layers, batch)
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, step in cases.items():
            took[name].append(timed(step))
            print(f"round {number + 1}: {name} {took[name][-1][1]:.1f} s", file=sys.stderr)
    print(f"\n**{n} clips, {n_layers} x {n_layers} layers of width {width}, zero-mean float64**\n")
    print("| way | CPU s | wall s | torch_cka takes times as long (CPU) | max abs diff to torch_cka |")
    print("| --- | --- | --- | --- | --- |")
    peer = list(took)[-1] if PEER else ""
    wanted = theirs(x, y, n_layers, batch) if PEER else None
    good = True
    for name, times in took.items():
        cpu, wall = (statistics.median(part) for part in zip(*times, strict=True))
        ratio = statistics.median(t[0] / m[0] for t, m in zip(took[peer], times, strict=True)) if PEER else float("nan")
        found = cases[name]() if name != peer else wanted
        values = found.unbiased if isinstance(found, CkaMatrix) else found
        gap = float(np.abs(values - wanted).max()) if wanted is not None else float("nan")
        if PEER and name == list(took)[0]:
            good = ratio >= AT_LEAST and gap <= AGREE
        print(f"| {name} | {cpu:.2f} | {wall:.2f} | {ratio:.1f} | {gap:.1e} |")
    return good


def offsets(n: int, width: int, batches: Sequence[int]) -> None:
    """Y = 0.01 X + offset has CKA 1 with X, whatever the offset; float32, as activations come."""
    made = torch.Generator().manual_seed(1)
    x = torch.randn(n, width, generator=made)
    print(f"\n**Y = 0.01 X + offset, float32, {n} clips of width {width}: the right answer is 1**\n")
    print("| offset | Patchbay | " + " | ".join(f"torch_cka, batches of {batch}" for batch in batches) + " |")
    print("| --- | --- |" + " --- |" * len(batches))
    for offset in (0.0, 1.0, 100.0, 1000.0):
        y = 0.01 * x + offset
        stream = CkaStream()
        stream.add([x], [y])
        found = [f"{stream.result().unbiased[0, 0]:.6f}"]
        for batch in batches if PEER else ():
            try:
                found.append(f"{theirs(x, y, 1, batch)[0, 0]:.4f}")
            except AssertionError as error:
                found.append(f"refused: {error}")
        print(f"| {offset:g} | " + " | ".join(found) + " |")


def memory(n: int, n_layers: int, width: int, batch: int) -> None:
    """The most that the stream holds and works with, at several limits."""
    x, y = features(n, n_layers, width, 2)
    x, y = x.float(), y.float()
    print(f"\n**Memory, {n} clips, {n_layers} + {n_layers} layers of width {width}, float32**\n")
    print("| limit MB | peak MB | minibatches | max abs diff to all at once |")
    print("| --- | --- | --- | --- |")
    whole = ours(x, y, n_layers, batch, max_bytes=8 << 30, minibatch=None).unbiased
    for limit in (64, 256, 1024):
        tracemalloc.start()
        found = ours(x, y, n_layers, batch, max_bytes=limit << 20, minibatch=None)
        peak = tracemalloc.get_traced_memory()[1] / (1 << 20)
        tracemalloc.stop()
        print(f"| {limit} | {peak:.0f} | {found.minibatches} | {np.abs(found.unbiased - whole).max():.1e} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    n, n_layers, width, batch = (256, 3, 64, 64) if args.quick else (2048, 12, 768, 512)
    good = speed(n, n_layers, width, batch, 1 if args.quick else args.rounds)
    offsets(n, width, (batch, 64))
    memory(n, n_layers, width, 8)
    if PEER and not args.quick and not good:
        print(f"\nunder {AT_LEAST:g} times as fast, or further than {AGREE:g} from it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
