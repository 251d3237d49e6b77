"""What a clip's answers in words under a patch at every layer cost, beside `generate()` under plain hooks.

Patchbay writes A, B and A patched at every layer as the rows of one batch; the plain way calls the library's own
`generate()` once for each, with a torch hook that puts B's states into the prompt. Both start from raw inputs and run
in one process, in turn; times are of the process (CPU), the fastest round of each. The bundled model answers with one
word, so a random one of the same class, which does not come to an end by itself, is written with, too. Tokens that
differ, or answers that are not written faster, end in exit code 1.

    python -m benchmarks.words               # one pair at 12 layers, up to 20 tokens
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.time_map import pair_of
from benchmarks.ways import hooked
from interp_core.experiments.patching.positions import align_positions
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.bundled import demo_of
from interp_core.models.prompted import Prompted
from interp_core.trace.clean import clean_runs
from interp_core.trace.generate import Row, generate
from interp_core.trace.patch import Patch, PatchAt, SiteSpec
from tests.tiny import save_qwen2_audio

Texts = list[tuple[int, ...]]


def ours(subject: AudioLLM, a: Prompted, b: Prompted, layers: Sequence[int], n_tokens: int) -> Texts:
    """The tokens of A, of B, and of A under the patch at each layer."""
    run_a, run_b = clean_runs(subject, [a])[0], clean_runs(subject, [b])[0]
    aligned = align_positions(a, b)
    patch, spec = Patch(run_a, run_b, aligned.positions, aligned.source), SiteSpec("resid_post", layers=tuple(layers))
    rows = [Row(a), Row(b), *(Row(a, (PatchAt(patch, spec, layer),)) for layer in layers)]
    return [text.tokens for text in generate(subject, rows, n_tokens)]


@torch.inference_mode()
def plain_hooks(subject: AudioLLM, a: Prompted, b: Prompted, layers: Sequence[int], n_tokens: int) -> Texts:
    """The same by torch's own hooks and the library's `generate()`."""
    end = subject.hf.generation_config.eos_token_id
    ends = [end] if isinstance(end, int) else list(end or ())

    def said(clip: Prompted) -> tuple[int, ...]:
        out = subject.hf.generate(**clip.inputs, max_new_tokens=n_tokens, do_sample=False)
        tokens = out[0, clip.inputs["input_ids"].shape[1] :].tolist()
        return tuple(tokens[:-1] if tokens and tokens[-1] in ends else tokens)

    states: dict[int, Tensor] = {}
    with hooked(subject, layers, lambda layer, value: states.update({layer: value.clone()})):
        subject.hf(**b.inputs, use_cache=False)
    aligned = align_positions(a, b)
    found = [said(a), said(b)]
    for layer in layers:

        def put(layer: int, value: Tensor) -> Tensor | None:
            if value.shape[1] == 1:  # a word that is written, behind the prompt
                return None
            value = value.clone()
            value[:, aligned.positions] = states[layer][:, aligned.source.long()]
            return value

        with hooked(subject, (layer,), put):
            found.append(said(a))
    return found


def timed(work: Callable[[], Texts]) -> tuple[float, Texts]:
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    demo = demo_of("demo-emotion")
    assert demo is not None
    failed = False
    with tempfile.TemporaryDirectory() as kept:
        drawn = save_qwen2_audio(Path(kept) / "random", n_layers=12, d_model=256, n_heads=8, n_kv_heads=8)
        for name, model in (("demo-emotion", "demo-emotion"), ("random weights, width 256", str(drawn))):
            failed |= compare(name, model, str(demo.manifest), given.tokens, given.rounds)
    return int(failed)


def compare(name: str, model: str, manifest: str, n_tokens: int, rounds: int) -> bool:
    """Print one line; whether something is not as it has to be."""
    subject, a, b, _, _ = pair_of(model, manifest)
    layers, times, wrong = range(subject.n_layers), [], 0
    for _ in range(rounds + 1):
        fast, mine = timed(partial(ours, subject, a, b, layers, n_tokens))
        slow, wanted = timed(partial(plain_hooks, subject, a, b, layers, n_tokens))
        times.append((fast, slow))
        wrong = max(wrong, sum(one != other for one, other in zip(mine, wanted, strict=True)))
    ours_s, plain_s = (min(each) for each in zip(*times[1:], strict=True))  # other processes only add time
    sys.stdout.write(
        f"{name}: {len(mine)} texts ({len(set(mine))} different, {sum(map(len, mine))} tokens): Patchbay {ours_s:.2f} "
        f"s, generate() under plain hooks {plain_s:.2f} s, {plain_s / ours_s:.1f} times as fast; {wrong} texts differ\n"
    )
    sys.stdout.flush()
    return wrong > 0 or plain_s <= ours_s


if __name__ == "__main__":
    sys.exit(main())
