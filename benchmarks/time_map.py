"""What a time map of one pair costs, beside writing it with hooks: one forward pass of the model a layer and window.

Everything that a person pays is in both: the clean runs of both clips, captures, the patches, the readout. Both ways
run in one process, in turn; times are of the process (CPU), the fastest round of each. Label logits that differ by more
than 1e-4, or a map of all layers under 6 times as fast, end in exit code 1.

    python -m benchmarks.time_map            # demo-emotion, 12 layers x 8 windows
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.ways import hooked
from interp_core.data.pairs import Pair
from interp_core.engine import Engine
from interp_core.experiments.patching.experiment import PATCHING
from interp_core.experiments.patching.positions import align_positions
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.windows import Span
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.labels import LabelTokens
from interp_core.models.prompted import Prompted
from interp_core.trace.clean import clean_runs
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import sweep

CLOSE, FASTER = 1e-4, 6.0


def ours(subject: AudioLLM, a: Prompted, b: Prompted, labels: LabelTokens, layers: Sequence[int], count: int) -> Tensor:
    """[layers, windows, labels] by one sweep, whose rows are windows x layers."""
    run_a, run_b = clean_runs(subject, [a])[0], clean_runs(subject, [b])[0]
    aligned = align_positions(a, b)
    whole = Patch(run_a, run_b, aligned.positions, aligned.source)
    windows = [window.of(whole) for window in Span(a, whole).cut(count)]
    spec = SiteSpec("resid_post", layers=tuple(layers))
    return sweep(subject, windows, labels, spec).label_logits.transpose(0, 1)


@torch.inference_mode()
def plain_hooks(
    subject: AudioLLM, a: Prompted, b: Prompted, labels: LabelTokens, layers: Sequence[int], count: int
) -> Tensor:
    """The same by torch's own hooks and the model's own forward from the raw inputs."""

    def forward(clip: Prompted) -> Tensor:
        return subject.hf(**clip.inputs, use_cache=False).logits[0, -1].float()

    states: dict[int, Tensor] = {}
    with hooked(subject, layers, lambda layer, value: states.update({layer: value.clone()})):
        forward(b)
    forward(a)  # the answer that the patched ones are compared with
    first, stop = a.audio[0], min(a.audio[1], b.audio[1])
    edges = [first + number * (stop - first) // count for number in range(count + 1)]
    found = []
    for layer in layers:
        for start, end in zip(edges, edges[1:], strict=False):

            def put(layer: int, value: Tensor, start: int = start, end: int = end) -> Tensor:
                value = value.clone()
                value[:, start:end] = states[layer][:, start:end]
                return value

            with hooked(subject, (layer,), put):
                found.append(forward(a)[list(labels.ids)].cpu())
    return torch.stack(found).view(len(layers), count, -1)


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def pair_of(model: str, manifest: str | None = None) -> tuple[AudioLLM, Prompted, Prompted, LabelTokens, Pair]:
    asked = PatchRequest(
        model, manifest, device="cpu", dtype="float32", kinds="prosody", max_pairs=1, controls=(), flow=()
    )
    ready = PATCHING.prepare(Engine(), asked)
    pair, prompt, subject = ready.plan.pairs.pairs[0], ready.request.prompts[0], ready.store.subject
    assert isinstance(subject, AudioLLM), "the plain loop is written for an audio LLM"
    a, b = (ready.store.prompted(clip, prompt) for clip in (pair.recipient, pair.donor))
    return subject, a, b, ready.plan.labels[0], pair


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo-emotion")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    subject, a, b, labels, pair = pair_of(given.model)
    sys.stdout.write(f"{given.model}, pair {pair.pair_id}: {a.n_pos} positions, {a.audio[1] - a.audio[0]} of audio\n")
    worst = 0.0
    for name, layers in (("all layers", range(subject.n_layers)), ("and the embeddings", range(-1, subject.n_layers))):
        times: list[tuple[float, float]] = []
        for _ in range(given.rounds + 1):
            fast, mine = timed(partial(ours, subject, a, b, labels, layers, given.windows))
            slow, wanted = timed(partial(plain_hooks, subject, a, b, labels, layers, given.windows))
            times.append((fast, slow))
        off = float((mine - wanted).abs().max() / max(1.0, float(wanted.abs().max())))
        ours_s, plain_s = (min(each) for each in zip(*times[1:], strict=True))  # other processes only add time
        faster = plain_s / ours_s
        sys.stdout.write(
            f"{len(layers)} x {given.windows} cells ({name}): Patchbay {ours_s:.2f} s, plain hooks {plain_s:.2f} s, "
            f"{faster:.1f} times as fast, max abs diff {off:.1e}\n"
        )
        worst = max(worst, off / CLOSE, FASTER / faster if layers[0] == 0 else 0.0)
    return int(worst > 1)


if __name__ == "__main__":
    sys.exit(main())
