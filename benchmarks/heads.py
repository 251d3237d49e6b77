"""What it costs to read every head, block and stage of a real-sized HTS-AT, and whether memory stays bounded.

    python benchmarks/heads.py                   # speed: 24 clips, five rounds; memory: 2,000 clips of five seconds
    python benchmarks/heads.py --clips 8 --rounds 1 --stream 200

Speed, on the published geometry with random weights: Patchbay's one pass a batch (of 4 and of 8), against what a
notebook does: three passes of batch 1, one a granularity, with queries, keys and values computed again for the heads.
Both start from the same spectrograms; a figure is the median over rounds of process CPU time. The vectors of both have
to agree to 1e-4 of the largest, or the exit code is 1.

Memory: clips of five seconds are decoded, run and pooled; what the process takes after a tenth of them is compared with
what it takes at the end. Where token maps or clips were kept, the difference would be their size.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil
import soundfile
import torch
from torch import Tensor
from transformers import ClapAudioConfig, ClapAudioModel, ClapFeatureExtractor

from interp_core.cache import ByteCache
from interp_core.data.clips import Clip
from interp_core.experiments.clips import ReadyBatch, ReadyClip
from interp_core.experiments.heads.capture import capture, pooled
from interp_core.experiments.heads.points import geometry_of
from interp_core.models.arch import ENCODERS
from interp_core.models.clap.subject import ClapAudio
from interp_core.trace.store import CleanStore

BATCHES, TOLERANCE = (4, 8), 1e-4
BATCH = 8  # of the stream
CLIP = Clip("made", Path("made"), {}, "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stream", type=int, default=2000, help="clips of the memory test; 0 for none")
    args = parser.parse_args()
    torch.set_num_threads(1)
    subject = htsat()
    features = [torch.randn(1, 1, 1001, 64, generator=torch.Generator().manual_seed(i)) for i in range(args.clips)]
    worst = compare(subject, features, args.rounds)
    if args.stream:
        stream(args.stream)
    return int(worst > TOLERANCE)


def htsat(**sizes: object) -> ClapAudio:
    """The published geometry, or another, with random weights that are not next to nothing."""
    torch.manual_seed(0)
    model = ClapAudioModel(ClapAudioConfig(**sizes)).eval()
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "bias" not in name:
            torch.nn.init.normal_(weight, std=0.7 * weight.shape[1] ** -0.5)
    return ClapAudio("htsat", "0", model, ENCODERS["clap"], extractor=ClapFeatureExtractor(truncation="rand_trunc"))


def compare(subject: ClapAudio, features: list[Tensor], rounds: int) -> float:
    geometry = geometry_of(subject)
    slow = "three passes of batch 1"
    times: dict[str, list[float]] = {name: [] for name in (*(f"one pass, batches of {n}" for n in BATCHES), slow)}
    for _ in range(rounds):
        for size in BATCHES:
            started = time.process_time()
            parts = []
            for at in range(0, len(features), size):
                some = [ReadyClip(CLIP, {"input_features": one}, 0, None) for one in features[at : at + size]]
                batch = ReadyBatch(subject, tuple(range(len(some))), tuple(some))
                parts += [found for _, found in pooled(batch, geometry.sites())]
            times[f"one pass, batches of {size}"].append(time.process_time() - started)
        ours = {site: np.concatenate([part[site] for part in parts]) for site in geometry.sites()}
        started = time.process_time()
        theirs = [notebook(subject, one) for one in features]
        times[slow].append(time.process_time() - started)
    worst = 0.0
    for granularity in ("head", "block", "stage"):
        for number, point in enumerate(geometry.points(granularity)):
            mine = ours[geometry.site_of(point)]
            if granularity == "head":
                mine = mine.reshape(len(mine), geometry.heads[point.layer], -1)[:, point.head]
            other = np.stack([clip[granularity][number] for clip in theirs])
            worst = max(worst, float(np.abs(mine - other).max() / np.abs(other).max()))
    print(f"{len(features)} clips, {len(geometry.points('head'))} heads, CPU seconds a clip (median of {rounds}):")
    for name, found in times.items():
        ratio = median(other / own for own, other in zip(found, times[slow], strict=True))
        print(f"  {name:<28} {median(found) / len(features):.3f}   {ratio:.2f} times as fast")
    print(f"  the vectors differ by {worst:.1e} of the largest")
    return worst


@torch.inference_mode()
def notebook(subject: ClapAudio, features: Tensor) -> dict[str, list[np.ndarray]]:
    """Heads, blocks and stages of one clip in three forward passes, as notebooks compute them."""
    found: dict[str, list[np.ndarray]] = {"head": [], "block": [], "stage": []}
    stages = list(subject.towers)
    attentions = [block.attention.self for stage in stages for block in stage.blocks]  # type: ignore[union-attr]
    norms = [block.layernorm_after for stage in stages for block in stage.blocks]  # type: ignore[union-attr]

    def heads(module: Any, args: tuple[Any, ...], _out: Any) -> None:
        windows, mask = args[0], args[1] if len(args) > 1 else None

        def split(value: Tensor) -> Tensor:
            return value.unflatten(-1, (module.num_attention_heads, -1)).transpose(1, 2)

        query, key, value = (split(part(windows)) for part in (module.query, module.key, module.value))
        scores = query @ key.transpose(-1, -2) / module.attention_head_size**0.5
        bias = module.relative_position_bias_table[module.relative_position_index.view(-1)]
        side = module.window_size[0] * module.window_size[1]
        scores = scores + bias.view(side, side, -1).permute(2, 0, 1)[None]
        if mask is not None:
            scores = scores.unflatten(0, (-1, len(mask))).add(mask[None, :, None]).flatten(0, 1)
        out = scores.softmax(-1) @ value  # [windows, heads, tokens, d_head]
        found["head"].extend(out.mean((0, 2)).numpy())

    def run(modules: Sequence[Any], hook: Callable[..., Any], kind: str) -> None:
        register = "register_forward_pre_hook" if kind == "block" else "register_forward_hook"
        handles = [getattr(module, register)(hook) for module in modules]
        subject.hf(input_features=features)
        for handle in handles:
            handle.remove()

    run(attentions, heads, "head")
    run(norms, lambda _m, args: found["block"].append(args[0].mean((0, 1)).numpy()), "block")
    run(stages, lambda _m, _a, out: found["stage"].append(out[0].mean((0, 1)).numpy()), "stage")
    return found


def stream(count: int) -> None:
    """Read so many clips of five seconds, and say what the process takes."""
    sizes = {"patch_embeds_hidden_size": 24, "hidden_size": 192, "num_attention_heads": [4, 8, 16, 32]}
    subject = htsat(spec_size=256, **sizes)
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        paths = []
        for number in range(40):
            paths.append(Path(folder) / f"{number}.wav")
            soundfile.write(paths[-1], 0.1 * rng.standard_normal(5 * 48_000), 48_000)
        clips = [Clip(str(i), paths[i % len(paths)], {}, f"{i:064x}") for i in range(count)]
        store = CleanStore(subject, ByteCache(64 << 20))  # clips that wait to be used again: 64 MB of them
        taken: list[int] = []
        capture_started = time.process_time()

        def note(done: int, total: int, note: str = "") -> None:
            taken.append(process.memory_info().rss)

        vectors = capture(store, clips, batch_size=BATCH, progress=note)
        seconds = time.process_time() - capture_started
    tenth, peak, last = taken[len(taken) // 10], max(taken), taken[-1]
    kept = sum(rows.nbytes for rows in vectors.at.values())
    maps = count * sum(s * s * w for s, w in ((64, 24), (32, 48), (16, 96), (8, 192))) * 4
    print(f"{count} clips of 5 s in {seconds:.0f} CPU seconds, batches of {BATCH}:")
    print(f"  vectors kept {kept / 2**20:.0f} MB; one map a stage of every clip would be {maps / 2**30:.1f} GB")
    print(
        f"  process: {tenth / 2**20:.0f} MB after a tenth, {peak / 2**20:.0f} MB at most, {last / 2**20:.0f} at the end"
    )


if __name__ == "__main__":
    sys.exit(main())
