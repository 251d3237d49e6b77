"""What a sweep over all layers costs, in clean forward passes of the decoder, against writing it with hooks.

    python benchmarks/sweep.py                       # 28 layers, about 120 and about 400 audio positions
    python benchmarks/sweep.py --quick               # a few seconds
    pip install -r benchmarks/requirements-peers.txt # own environment: adds the rows of four other libraries

Every way runs in this process, in turn, round after round; a figure is the median over the rounds of (time of the way
/ time of a clean pass in that round). It holds everything that the way needs: clean runs, captures, sweep,
readout. Process CPU time is the figure to read on a shared machine, wall time on a GPU. Label logits are
compared with the plain hook loop's; one that is off by more than 1e-4 * max(1, max |logit|) ends in exit code 1. So
does a set that is slower than is wanted: 100 pairs over 40 clips through 28 layers, the decoder alone, have to be 10
times as fast as the plain loop and 6 times as fast as the best other library at 120 audio positions, 25 and 12 times
at 750. Peak memory is that of one more call of each way, beside what was there before it (`peak.py`).
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

# Before torch is imported. Spinning threads would be charged as CPU time; nothing here needs the network.
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import transformers
from torch import Tensor

from benchmarks.chart import draw
from benchmarks.peak import peak_memory
from benchmarks.peers import peers
from benchmarks.scene import LABELS, LONGEST, Size, clips, draw_pairs, random_subject
from benchmarks.ways import BATCH, Pairs, Way, clean_pass, ours, plain_loop
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.prompted import Prompted
from interp_core.trace.patch import sweep_layers

TOLERANCE = 1e-4
WANTED = {120: (10.0, 6.0), 750: (25.0, 12.0)}
"""By audio positions: how many times as fast as the plain loop, and as the best other library, over `WANTED_OF`."""
WANTED_OF = {"layers": 28, "pairs": 100, "clips": 40}


@dataclass
class Figures:
    """Ratios of one way to a clean pass, one a round, its distance from the reference, and its peak memory in bytes."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    off: float = 0.0
    peak: int | None = None


class Bench:
    """One model, the ways to sweep it, and the faults found on the way."""

    def __init__(self, subject: AudioLLM, points: tuple[int, ...], args: argparse.Namespace) -> None:
        self.subject, self.points, self.args = subject, points, args
        self.faults: list[str] = []
        self.drawn: dict[str, dict[str, Figures]] = {}
        self.fast = ours(subject, points, "fast")
        self.fast_tower = ours(subject, points, "fast", tower=True)
        self.wavefront = ours(subject, points, "wavefront")
        self.loop = plain_loop(subject, points, tower=False)
        self.loop_tower = plain_loop(subject, points, tower=True)
        self.others: list[Way] = []
        self.skipped = ["peers skipped: --no-peers"]
        if not args.no_peers:
            self.others, self.skipped = peers(subject, points)

    def time(self, function: Callable[[], object]) -> tuple[float, float]:
        """Return (process CPU, wall) seconds of one call."""
        sync = torch.cuda.synchronize if self.subject.device.type == "cuda" else lambda: None
        sync()
        cpu, wall = time.process_time(), time.perf_counter()
        function()
        sync()
        return time.process_time() - cpu, time.perf_counter() - wall

    def measure(
        self, ways: Sequence[Way], made: Sequence[Prompted], pairs: Pairs, expected: Tensor, rounds: int,
        remembered: Pairs | None = None,
    ) -> dict[str, Figures]:  # fmt: skip
        """Run every way in turn, round after round, each beside clean passes of the recipients.

        Args:
            ways: what to time; the heavy ones take part in the first `--loop-rounds` rounds.
            made: the clips.
            pairs: (recipient, donor) each.
            expected: [n_checked, n_points, n_labels] label logits of the first pairs.
            rounds: how many.
            remembered: the pairs of which peak memory is measured; those that are timed unless given.
        """
        remembered = pairs if remembered is None else remembered
        figures = {way.name: Figures() for way in ways}
        recipients = [a for a, _ in pairs]
        for number in range(rounds):
            passes: dict[int, list[tuple[float, float]]] = {a: [] for a in recipients}
            spent: dict[str, tuple[float, float]] = {}
            for way in ways:
                if way.heavy and number >= self.args.loop_rounds:
                    continue
                for a, times in passes.items():
                    times.append(self.time(partial(clean_pass, self.subject, made[a])))
                found: list[Tensor] = []
                spent[way.name] = self.time(partial(_kept, way, made, pairs, found))
                figures[way.name].off = max(figures[way.name].off, self.distance(way.name, found[0], expected))
            # What one clean pass of each pair's recipient would have cost in this round, in CPU and in wall seconds.
            cpu, wall = (sum(median(t[of] for t in passes[a]) for a in recipients) for of in (0, 1))
            for name, took in spent.items():
                figures[name].cpu.append(took[0] / cpu)
                figures[name].wall.append(took[1] / wall)
        for way in ways:
            figures[way.name].peak = peak_memory(partial(way.sweep, made, remembered), self.subject.device)
        return figures

    def distance(self, name: str, found: Tensor, expected: Tensor) -> float:
        """Return the largest difference in a label logit, noting a fault where it is too large."""
        off = float((found[: len(expected)] - expected).abs().max())
        if not off <= TOLERANCE * max(1.0, float(expected.abs().max())):
            self.faults.append(f"{name}: label logits off by {off:.2e} (largest {float(expected.abs().max()):.3g})")
        return off

    def reference(self, made: Sequence[Prompted], pairs: Pairs) -> Tensor:
        """Return the plain loop's label logits, after a look that patching changes them at all."""
        expected = self.loop.sweep(made, pairs)
        base = torch.stack([clean_pass(self.subject, made[a])[list(LABELS.ids)].cpu() for a, _ in pairs])
        effect = float((expected - base[:, None]).abs().max())
        if effect < 100 * TOLERANCE * max(1.0, float(expected.abs().max())):
            self.faults.append(f"patching moves no label logit by more than {effect:.1e}: the comparison means nothing")
        return expected

    def speed(self, n_audio: int, figures: dict[str, Figures]) -> None:
        """How many times as fast a set is as the plain loop and the best other library; too little is a fault."""
        mine = median(figures[self.fast.name].cpu)
        peer = min(self.others, key=lambda way: median(figures[way.name].cpu), default=None)
        asked = all(getattr(self.args, name) == value for name, value in WANTED_OF.items())
        for way, wanted in zip((self.loop, peer), WANTED.get(n_audio, (0.0, 0.0)), strict=True):
            if way is None:
                print("\n(no other library to be compared with)")
                continue
            times = median(figures[way.name].cpu) / mine
            aim = f"; wanted: {wanted:g}" if asked and wanted else ""
            print(f"\n{n_audio} audio positions: {times:.1f} times as fast as {way.name}{aim}")
            if aim and times < wanted:
                self.faults.append(
                    f"{n_audio} audio positions: {times:.1f} times as fast as {way.name}, wanted {wanted:g}"
                )

    def table(self, title: str, figures: dict[str, Figures], note: str = "") -> None:
        """Print one table in Markdown."""
        loops = [figures.get(loop.name) for loop in (self.loop, self.loop_tower)]
        print(f"\n**{title}**{note}\n")
        print(
            "| way | passes (CPU) | passes (wall) | of plain loop | of plain loop with tower | peak memory, MB "
            "| max abs diff | rounds |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for name, found in figures.items():
            shares = ["-" if loop is None else f"{median(found.cpu) / median(loop.cpu):.3f}" for loop in loops]
            print(
                f"| {name} | {median(found.cpu):.2f} | {median(found.wall):.2f} | {' | '.join(shares)} "
                f"| {in_mb(found.peak)} | {found.off:.1e} | {len(found.cpu)} |",
                flush=True,
            )

    def one_pair(self, n_audio: int) -> None:
        """One pair alone: clips of one length against everything, then unequal lengths, ours only."""
        quarter = n_audio // 4
        longer = min(n_audio + quarter, LONGEST)
        made = clips(self.subject, [n_audio, n_audio, longer, n_audio - quarter], self.args.seed)
        every = [self.fast, self.wavefront, self.fast_tower, self.loop, self.loop_tower, *self.others]
        for title, pair, ways in (
            (f"One pair, {n_audio} audio positions in both clips", (0, 1), every),
            (f"One pair, recipient {n_audio}, donor {longer}", (0, 2), every[:2] if longer > n_audio else []),
            (f"One pair, recipient {n_audio}, donor {n_audio - quarter}", (0, 3), every[:2]),
        ):
            if not ways or (ways is not every and self.args.equal_only):
                continue
            expected = self.reference(made, [pair])
            figures = self.measure(ways, made, [pair], expected, self.args.rounds)
            self.table(title, figures)
            if ways is every:
                self.drawn[title] = figures

    def many_pairs(self, n_audio: int, mixed: bool) -> None:
        """Pairs over shared clips: the first few are compared with the reference, all are timed."""
        n_clips, n_pairs, quarter = self.args.clips, self.args.pairs, n_audio // 4
        lengths = [n_audio] * n_clips
        if mixed:
            steps = [2 * quarter * i // max(1, n_clips - 1) for i in range(n_clips)]
            lengths = [min(n_audio - quarter + step, LONGEST) for step in steps]
        made = clips(self.subject, lengths, self.args.seed)
        pairs = draw_pairs(n_clips, n_pairs, self.args.seed)
        some = pairs[: self.args.checked]
        expected = self.reference(made, some)
        figures = self.measure([self.fast, self.fast_tower], made, pairs, expected, self.args.set_rounds, some)
        if not mixed and some:  # a pass a layer and pair each: a few pairs say what a pair costs
            figures |= self.measure([self.loop, *self.others], made, some, expected, 1)
            self.speed(n_audio, figures)
        used = len({i for pair in pairs for i in pair})
        spread = f"{min(lengths)} to {max(lengths)}" if mixed else str(n_audio)
        by_count = (used + len(pairs) * len(self.points)) / len(pairs)
        title = f"{len(pairs)} pairs over {used} clips of {spread} audio positions, per pair"
        self.table(
            title,
            figures,
            f" (batches of {BATCH}; by count, the plain loop costs {by_count:.1f} passes a pair; loops and other "
            f"libraries over the first {len(some)} pairs, and so is all peak memory)",
        )
        if not mixed:
            self.drawn[f"{title}; memory: the first {len(some)} pairs"] = figures
            peak = peak_memory(partial(self.fast.sweep, made, pairs), self.subject.device)
            print(f"\n{self.fast.name}, over all {len(pairs)} pairs: peak memory {in_mb(peak)} MB")


def in_mb(peak: int | None) -> str:
    return "-" if peak is None else f"{peak / 2**20:.0f}"


def _kept(way: Way, made: Sequence[Prompted], pairs: Pairs, found: list[Tensor]) -> None:
    found.append(way.sweep(made, pairs))


def arguments() -> argparse.Namespace:
    """Read the command line; --quick replaces the defaults, not what was typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    full = {"d_model": 512, "layers": 28, "audio": [120, 400], "rounds": 5, "loop_rounds": 2, "set_rounds": 2}
    full |= {"pairs": 50, "clips": 20}
    quick = {"d_model": 128, "layers": 6, "audio": [24], "rounds": 2, "loop_rounds": 1, "set_rounds": 1}
    quick |= {"pairs": 6, "clips": 4}
    parser.add_argument("--quick", action="store_true", help="a small model and few rounds")
    for name, default in full.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(default, list):
            parser.add_argument(flag, type=int, nargs="+", help=f"default {' '.join(map(str, default))}")
        else:
            parser.add_argument(flag, type=int, help=f"default {default}")
    parser.add_argument("--kv-heads", type=int, help="key heads (default: as many as heads)")
    parser.add_argument("--checked", type=int, default=2, help="pairs of the set that are compared with the loop")
    parser.add_argument("--blocks-only", action="store_true", help="leave out layer -1 (the embeddings)")
    parser.add_argument("--equal-only", action="store_true", help="leave out single pairs of unequal lengths")
    parser.add_argument("--no-sets", action="store_true", help="leave out the sets of pairs")
    parser.add_argument("--no-peers", action="store_true", help="leave out other libraries")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw passes and peak memory of every way, too")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch threads")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name, default in (quick if args.quick else full).items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    return args


def main() -> int:
    """Print the tables; 1 where a way's logits are not the reference's, or a set is slower than is wanted."""
    args = arguments()
    torch.set_num_threads(args.threads)
    subject = random_subject(Size(args.d_model, args.layers, args.kv_heads), args.device, args.seed)
    points = sweep_layers("resid_post", subject.n_layers, range(subject.n_layers) if args.blocks_only else None)
    bench = Bench(subject, points, args)
    print(
        f"{date.today()}, {args.device}, {os.cpu_count()} cores, {args.threads} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}; float32, {args.layers} layers of width {args.d_model}, "
        f"{len(points)} points to patch, 16 positions before the audio, 24 after"
    )
    for line in bench.skipped:
        print(f"({line})")
    for n_audio in args.audio:
        clean_pass(subject, clips(subject, [n_audio], args.seed)[0])  # warm-up
        bench.one_pair(n_audio)
        if not args.no_sets:
            bench.many_pairs(n_audio, mixed=False)
            bench.many_pairs(n_audio, mixed=True)
    clock = "wall" if args.device == "cuda" else "cpu"
    if args.plot:
        draw(
            args.plot,
            {
                title: {name: (median(getattr(found, clock)), found.peak) for name, found in figures.items()}
                for title, figures in bench.drawn.items()
            },
            {"cpu": "CPU"}.get(clock, clock),
        )
    for fault in bench.faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if bench.faults else 0


if __name__ == "__main__":
    sys.exit(main())
