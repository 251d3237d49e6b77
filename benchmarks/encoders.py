"""Encoders of published sizes against plain hooks: every layer of one pair, windows of time, and a set of pairs.

    python -m benchmarks.encoders                     # WavLM and Whisper of base size; ten minutes
    python -m benchmarks.encoders --models wavlm --seconds 3

Random weights, saved and opened as anybody's. The other way is what is written first: torch's own hooks, a forward of
the whole model from its inputs a layer (and a window), the donor's states from one forward. Process CPU time, the
median over rounds in turn, stems and clean runs in both. Of a set of pairs, whose clips sit in several, the loop goes
over the first two alone and keeps nothing from one to the next. Logits that differ by more than 1e-4, or WavLM less
than 2.2 times as fast at `attn_out` over the set, end in exit code 1.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GPT2Tokenizer,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from interp_core.experiments.patching.positions import align_positions
from interp_core.experiments.patching.windows import Span
from interp_core.models.labels import LabelTokens
from interp_core.models.load import open_model
from interp_core.models.prompted import Prompted
from interp_core.models.subject import Subject
from interp_core.sites import Kind
from interp_core.trace.clean import clean_run, clean_runs, prompt_clip
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import sweep

CLOSE, FASTER = 1e-4, 2.2
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|translate|>", "<|nocaptions|>",
           "<|notimestamps|>")  # fmt: skip


def wavlm(folder: Path) -> Path:
    """WavLM-base: 12 layers of width 768, 94 million parameters."""
    config = WavLMConfig(num_labels=4)
    WavLMForSequenceClassification(config).eval().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    return folder


def whisper(folder: Path) -> Path:
    """Whisper-base: 6 + 6 layers of width 512, with a vocabulary of bytes."""
    letters = sorted({chr(code) for code in range(33, 127)} | {"Ġ"})
    words = {word: i for i, word in enumerate([*letters, *SPECIAL])}
    tokenizer = GPT2Tokenizer(vocab=words, merges=[], unk_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    config = WhisperConfig(
        vocab_size=len(words), d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, pad_token_id=words["<|endoftext|>"],
        eos_token_id=words["<|endoftext|>"], decoder_start_token_id=words["<|startoftranscript|>"],
        bos_token_id=words["<|endoftext|>"], suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).eval().save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


MODELS: dict[str, tuple[Callable[[Path], Path], str, str, str]] = {
    "WavLM-base": (wavlm, "", "wavlm.encoder.layers", "attention"),
    "Whisper-base, encoder": (whisper, "encoder", "model.encoder.layers", "self_attn"),
    "Whisper-base, decoder": (whisper, "decoder", "model.decoder.layers", "self_attn"),
}
"""Writer of the folder, part, the list of blocks by name, and the attention within a block."""


def first_of(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def hooked(modules: Sequence[torch.nn.Module], function: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Call `function(number, output)` at some modules, by torch's own hooks; what it returns replaces the output."""

    def hook(number: int, _module: Any, _args: Any, output: Any) -> Any:
        new = function(number, first_of(output))
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handles = [module.register_forward_hook(partial(hook, number)) for number, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def plain(
    subject: Subject, modules: Sequence[torch.nn.Module], pairs: Sequence[tuple[Prompted, Prompted, list[Patch]]]
) -> Tensor:
    """[layers, patches, n_classes] by a forward a layer and patch; of a pair A, B and its patches."""
    found = []
    for a, b, parts in pairs:
        states: dict[int, Tensor] = {}
        with hooked(modules, lambda number, value: states.update({number: value.clone()})):  # noqa: B023
            subject.forward(b.inputs)
        subject.forward(a.inputs)  # the answer that the patched ones are compared with
        for part in parts:
            for number in range(len(modules)):
                at, source = part.positions, part.source.long()

                def put(_number: int, value: Tensor, donor: Tensor = states[number]) -> Tensor:
                    value = value.clone()
                    value[:, at] = donor[:, source]  # noqa: B023 (called within this turn of the loop)
                    return value

                with hooked(modules[number : number + 1], put):
                    found.append(subject.forward(a.inputs)[0].float())
    return torch.stack(found).view(-1, len(modules), found[0].shape[-1]).transpose(0, 1)


def ours(
    subject: Subject,
    kind: Kind,
    clips: Sequence[np.ndarray],
    pairs: Sequence[tuple[int, int]],
    labels: LabelTokens,
    cut: Callable[..., list[Patch]],
) -> Tensor:
    """[layers, patches, n_classes] of pairs of clips, each clip run once; sweeps of 8 pairs."""
    prompt = subject.default_prompts[0]
    runs = [clean_run(subject, clip, prompt, str(i), [kind]) for i, clip in enumerate(clips)]
    spec = SiteSpec(kind, layers=tuple(range(subject.n_layers)))
    found = []
    for first in range(0, len(pairs), 8):
        parts = [part for a, b in pairs[first : first + 8] for part in cut(runs[a], runs[b])]
        found.append(sweep(subject, parts, labels, spec).label_logits)
    return torch.cat(found).transpose(0, 1)


def whole(a: Any, b: Any) -> list[Patch]:
    """All audio positions that both have."""
    found = align_positions(a.prompted, b.prompted)
    return [Patch(a, b, found.positions, found.source)]


def windows(count: int, a: Any, b: Any) -> list[Patch]:
    """`count` equal windows of them."""
    [all_of_it] = whole(a, b)
    return [window.of(all_of_it) for window in Span(a.prompted, all_of_it).cut(count)]


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def noise(seconds: float, seed: int) -> np.ndarray:
    """Noise that swells and fades, float32 at 16 kHz."""
    n = round(seconds * 16_000)
    swell = np.sin(np.linspace(0, (seed + 2) * np.pi, n)) ** 2
    return (0.1 * swell * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def main() -> int:
    """Print a line a model, site and cut; 1 where a wanted figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help=", ".join(MODELS) + "; beginnings will do")
    parser.add_argument("--seconds", type=float, default=3.0, help="of both clips")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=20, help="of the set")
    parser.add_argument("--clips", type=int, default=8, help="of the set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{date.today()}, {os.cpu_count()} cores, {args.threads} threads, torch {torch.__version__}, float32, random")
    print(f"weights, clips of {args.seconds:g} s; the set has {args.pairs} pairs over {args.clips} clips\n")
    print(
        "| model | site | cells | Patchbay, CPU s a pair | plain hooks, CPU s a pair | times as fast | max rel. diff |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    fine = True
    every = [(a, b) for a in range(args.clips) for b in range(args.clips) if a != b]
    pairs = [every[i] for i in np.random.default_rng(0).permutation(len(every))[: args.pairs]]
    for name in [known for known in MODELS if any(known.lower().startswith(m.lower()) for m in args.models)]:
        write, part, blocks, attention = MODELS[name]
        with tempfile.TemporaryDirectory() as place:
            torch.manual_seed(0)
            subject = open_model(str(write(Path(place) / "model")), device="cpu", dtype="float32").part(part)
            prompt = subject.default_prompts[0]
            clips = [noise(args.seconds, seed) for seed in range(args.clips)]
            stems = [prompt_clip(subject, clip, prompt, str(i)) for i, clip in enumerate(clips)]
            listed = list(subject.hf.get_submodule(blocks))
            cases: list[tuple[Kind, int, list[tuple[int, int]]]] = [
                ("attn_out", 1, [(0, 1)]), ("attn_out", 1, pairs), ("resid_post", args.windows, [(0, 1)])
            ]  # fmt: skip
            if part == "decoder":  # its positions are the few tokens of the prompt
                cases.pop()
            for kind, count, some in cases:
                cut = whole if count == 1 else partial(windows, count)
                modules = [block.get_submodule(attention) if kind == "attn_out" else block for block in listed]
                runs = [clean_runs(subject, [stem])[0] for stem in stems]
                ids = tuple(range(len(runs[0].logits)))
                labels = LabelTokens(tuple(map(str, ids)), ids, {})
                looped = [(stems[a], stems[b], cut(runs[a], runs[b])) for a, b in some[:2]]
                used, times = clips[: max(max(pair) for pair in some) + 1], []
                for _ in range(args.rounds + 1):
                    fast, found = timed(partial(ours, subject, kind, used, some, labels, cut))
                    slow, right = timed(partial(plain, subject, modules, looped))
                    times.append((fast / len(some), slow / len(looped)))
                found = found[:, : right.shape[1]]
                off = float((found - right).abs().max() / right.abs().max().clamp(min=1.0))
                mine, theirs = (median(each) for each in zip(*times[1:], strict=True))
                cells = f"{len(modules)} layers" + (f" x {count} windows" if count > 1 else "")
                cells += f", {len(some)} pairs" if len(some) > 1 else ""
                ratio = theirs / mine
                print(
                    f"| {name} | {kind} | {cells} | {mine:.2f} | {theirs:.2f} | {ratio:.2f} | {off:.1e} |", flush=True
                )
                asked = name == "WavLM-base" and kind == "attn_out" and len(some) > 1
                fine &= off <= CLOSE and (ratio >= FASTER or not asked)
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
