"""What a GPU makes of a model of Qwen2-Audio-7B's sizes: seconds a sweep, share of the card's rate, largest batch.

    python benchmarks/gpu.py                         # 8 billion random weights in bfloat16: 17 GB, some minutes
    python benchmarks/gpu.py --small --device cpu    # the same steps on a small model, to see that they run

Random weights of the published config (32 layers of width 4096 behind an audio tower of 32 layers of width 1280), 120
and 750 audio positions, sweeps of `resid_post` at all layers and the embeddings as a run of `patch` does them. The rate
of the card is that of its own products of square bfloat16 matrices; the work of a sweep is counted (linear layers and
causal attention of the block-positions that it passes), so a share says how much of the time is arithmetic. Label
logits of the fast sweep are compared with plain hooks within the dtype's tolerance, and end in exit code 1 beyond it.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import transformers
from transformers import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2AudioForConditionalGeneration, Qwen2Config

from benchmarks.scene import AUDIO_TOKEN, LABELS, MEL_FRAMES, VOCAB, clips, draw_pairs
from benchmarks.ways import clean_pass, ours, patch, plain_loop
from interp_core.experiments.checks import TOLERANCE
from interp_core.models.arch import ARCHS
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.prompted import Prompted
from interp_core.trace.clean import clean_runs
from interp_core.trace.patch import SiteSpec, sweep_layers
from interp_core.trace.sweep import cost, sweep

LARGEST = 512
"""Pairs in one sweep, at most, when the largest batch is looked for."""


def published(small: bool) -> Qwen2AudioConfig:
    """Qwen2-Audio-7B's config, but for the tower's mel bands and the vocabulary, which no block reads."""
    wide, layers, heads, tower = (512, 6, 4, 256) if small else (4096, 32, 32, 1280)
    audio = Qwen2AudioEncoderConfig(
        num_mel_bins=80, d_model=tower, encoder_layers=layers, encoder_attention_heads=tower // 64,
        encoder_ffn_dim=4 * tower, max_source_positions=MEL_FRAMES // 2,
    )  # fmt: skip
    text = Qwen2Config(
        vocab_size=VOCAB, hidden_size=wide, intermediate_size=11008 * wide // 4096, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=8192,
    )  # fmt: skip
    return Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=AUDIO_TOKEN)


def built(small: bool, device: str, dtype: torch.dtype) -> AudioLLM:
    """The model with random weights, made where they stay."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            hf = Qwen2AudioForConditionalGeneration(published(small)).eval()
    finally:
        torch.set_default_dtype(before)
    hf.to(device=device, dtype=dtype)
    return AudioLLM(name="random", weights_hash="0" * 64, hf=hf, arch=ARCHS["qwen2_audio"])


def seconds(work: Callable[[], object], device: str, rounds: int = 5) -> float:
    """The median of some calls behind one that is not counted."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    times = []
    for _ in range(rounds + 1):
        wait()
        started = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - started)
    return median(times[1:])


def rate(device: str, dtype: torch.dtype, side: int) -> float:
    """Operations a second of products of two matrices [side, side]."""
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: one @ other, device, 20)


def operations(subject: AudioLLM, n_pos: int) -> float:
    """Of one pass through the blocks: linear layers, and attention to what stands before."""
    linear = sum(weight.numel() for block in subject.blocks for weight in block.parameters())
    return 2.0 * linear * n_pos + 2.0 * subject.n_layers * n_pos**2 * subject.n_heads * subject.d_head


def peak_gb(work: Callable[[], object]) -> float:
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e9


def largest_batch(subject: AudioLLM, made: Sequence[Prompted], points: tuple[int, ...]) -> tuple[int, float]:
    """(pairs, peak GB) of the largest sweep that the memory holds whole: twice as many run out of it."""
    held = (0, 0.0)
    count = 1
    while count <= LARGEST:
        pairs = (draw_pairs(len(made), len(made) * (len(made) - 1), 0) * count)[:count]
        ooms = torch.cuda.memory_stats().get("num_ooms", 0)
        try:
            peak = peak_gb(partial(_at_once, subject, made, pairs, points))
        except torch.OutOfMemoryError:
            break
        if torch.cuda.memory_stats().get("num_ooms", 0) > ooms:  # the sweep went on in halves
            break
        held, count = (count, peak), 2 * count
    torch.cuda.empty_cache()
    return held


def _at_once(
    subject: AudioLLM, made: Sequence[Prompted], pairs: Sequence[tuple[int, int]], points: tuple[int, ...]
) -> None:
    runs = {i: clean_runs(subject, [made[i]])[0] for i in {i for pair in pairs for i in pair}}
    spec = SiteSpec("resid_post", None, subject.d_head, points)
    sweep(subject, [patch(runs[a], runs[b]) for a, b in pairs], LABELS, spec)


def main() -> int:
    """Print the tables; 1 where the fast sweep's logits are not those of plain hooks, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --small")
    parser.add_argument("--small", action="store_true", help="6 layers of width 512")
    parser.add_argument("--audio", type=int, nargs="+", default=[120, 750], help="audio positions")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--clips", type=int, default=40)
    asked = parser.parse_args()
    gpu = asked.device.startswith("cuda")
    if gpu and not torch.cuda.is_available():
        print("there is no GPU that torch can use; --small --device cpu goes through the same steps", file=sys.stderr)
        return 2
    dtype = torch.bfloat16 if gpu else torch.float32
    peak = rate(asked.device, dtype, 8192 if gpu else 1024)
    started = time.perf_counter()
    subject = built(asked.small, asked.device, dtype)
    name = torch.cuda.get_device_name() if gpu else "CPU"
    size = sum(weight.numel() for weight in subject.hf.parameters())
    print(f"{date.today()}, {name}, torch {torch.__version__}, transformers {transformers.__version__}, {dtype}")
    made_in = time.perf_counter() - started
    print(f"{size / 1e9:.2f} billion weights, made in {made_in:.0f} s; matrix products at {peak / 1e12:.1f} TFLOP/s\n")
    points = sweep_layers("resid_post", subject.n_layers)
    fast, loop = ours(subject, points, "fast"), plain_loop(subject, points, tower=False)
    columns = ["audio positions", "clean pass, ms", "share of the rate", "sweep of a pair, ms", "share of the rate"]
    columns += ["passes counted", "plain loop, ms", "times as fast", "a pair of the set, ms", "largest batch", "GB"]
    print(f"| {' | '.join(columns)} |")
    print("| --- " * len(columns) + "|")
    fine, pairs = True, draw_pairs(asked.clips, asked.pairs, 0)
    for n_audio in asked.audio:
        made = clips(subject, [n_audio] * asked.clips, 0)
        runs = [clean_runs(subject, [made[i]])[0] for i in (0, 1)]
        counted = cost(subject, patch(*runs), SiteSpec("resid_post", None, subject.d_head, points)) + 2
        work = operations(subject, made[0].n_pos)
        one = seconds(partial(clean_pass, subject, made[0]), asked.device)
        mine = seconds(partial(fast.sweep, made, [(0, 1)]), asked.device)
        theirs = seconds(partial(loop.sweep, made, [(0, 1)]), asked.device, 2)
        found, right = fast.sweep(made, [(0, 1)]), loop.sweep(made, [(0, 1)])
        fine &= float((found - right).abs().max()) <= TOLERANCE[dtype] * max(1.0, float(right.abs().max()))
        each = seconds(partial(fast.sweep, made, pairs), asked.device, 1) / len(pairs)
        largest = "{} | {:.1f}".format(*largest_batch(subject, made, points)) if gpu else "- | -"
        print(
            f"| {n_audio} | {1e3 * one:.1f} | {work / one / peak:.2f} | {1e3 * mine:.1f} | "
            f"{counted * work / mine / peak:.2f} | {counted:.2f} | {1e3 * theirs:.1f} | {theirs / mine:.1f} | "
            f"{1e3 * each:.1f} | {largest} |",
            flush=True,
        )
    if not fine:
        print(f"FAULT: logits differ from those of plain hooks by more than {TOLERANCE[dtype]:g}", file=sys.stderr)
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
