"""Ways to sweep every layer of some pairs: ours, and the plain hook loop that everybody writes first.

Each way is given the clips and (recipient, donor) pairs and returns label logits [n_pairs, n_points, n_labels]. What it
does inside the call is all that it costs: clean runs, captures, sweep and readout. A clip that sits in several
pairs is run once by every way, the plain loop included.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.scene import LABELS, stem
from interp_core.experiments.patching.positions import align_positions
from interp_core.models.audio_llms.subject import AudioLLM
from interp_core.models.prompted import Prompted
from interp_core.trace.clean import CleanRun, clean_runs
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.sweep import Method, sweep

Pairs = Sequence[tuple[int, int]]
BATCH = 8
"""Pairs in one sweep, the default of a patching run."""


@dataclass(frozen=True)
class Way:
    """A named way to sweep; `heavy` ones cost a pass a layer and are run in fewer rounds."""

    name: str
    sweep: Callable[[Sequence[Prompted], Pairs], Tensor]
    heavy: bool = False


def ours(subject: AudioLLM, points: tuple[int, ...], method: Method, *, tower: bool = False) -> Way:
    """The product's way: a clean run a clip, then sweeps of up to `BATCH` pairs.

    Args:
        subject: the model.
        points: layers, -1 = what enters block 0.
        method: of the sweep.
        tower: start from the raw inputs, so that the audio tower is run once a clip.
    """

    spec = SiteSpec("resid_post", None, subject.d_head, points)

    def run(clips: Sequence[Prompted], pairs: Pairs) -> Tensor:
        runs: dict[int, CleanRun] = {}
        for i in dict.fromkeys(i for pair in pairs for i in pair):
            clip = stem(subject, clips[i].inputs, clips[i].clip_id) if tower else clips[i]
            runs[i] = clean_runs(subject, [clip])[0]
        found = []
        for at in range(0, len(pairs), BATCH):
            patches = [patch(runs[a], runs[b]) for a, b in pairs[at : at + BATCH]]
            found.append(sweep(subject, patches, LABELS, spec, method=method).label_logits)
        return torch.cat(found)

    return Way(f"Patchbay, {method}" + (", audio tower once a clip" if tower else ""), run)


def patch(recipient: CleanRun, donor: CleanRun) -> Patch:
    """All audio positions that both clips have, at full strength: what a patching run does by default."""
    aligned = align_positions(recipient.prompted, donor.prompted)
    return Patch(recipient, donor, aligned.positions, aligned.source)


def plain_loop(subject: AudioLLM, points: tuple[int, ...], *, tower: bool) -> Way:
    """One hook and one forward pass a layer, with torch's own hooks and nothing of ours.

    Args:
        subject: the model.
        points: layers, -1 = what enters block 0.
        tower: call the whole model on the raw inputs, which runs the audio tower each time; otherwise the decoder
            alone on embeddings that were made before.
    """

    def forward(clip: Prompted) -> Tensor:
        if tower:
            return subject.hf(**clip.inputs, use_cache=False).logits[0, -1].float()
        hidden = subject.decoder(inputs_embeds=clip.embeds[None], use_cache=False).last_hidden_state
        return subject.hf.lm_head(hidden[:, -1])[0].float()

    @torch.inference_mode()
    def run(clips: Sequence[Prompted], pairs: Pairs) -> Tensor:
        states: dict[int, dict[int, Tensor]] = {}
        for i in dict.fromkeys(i for pair in pairs for i in pair):
            kept = states.setdefault(i, {})

            def keep(layer: int, value: Tensor, kept: dict[int, Tensor] = kept) -> None:
                kept[layer] = value.clone()

            with hooked(subject, points, keep):
                forward(clips[i])  # also the base logits, which every study reports
        logits = []
        for a, b in pairs:
            first, stop = shared_span(clips[a], clips[b])
            for layer in points:

                def put(layer: int, value: Tensor, donor: Tensor = states[b][layer]) -> Tensor:
                    value = value.clone()
                    value[:, first:stop] = donor[:, first:stop]  # noqa: B023 (called within this turn of the loop)
                    return value

                with hooked(subject, (layer,), put):
                    logits.append(forward(clips[a])[list(LABELS.ids)].cpu())
        return torch.stack(logits).view(len(pairs), len(points), -1)

    return Way(f"plain hook loop, {'audio tower each time' if tower else 'decoder only'}", run, heavy=True)


def shared_span(a: Prompted, b: Prompted) -> tuple[int, int]:
    """Return the audio positions of `a` that `b` has too; the text before the audio is the same in both."""
    return a.audio[0], min(a.audio[1], b.audio[1])


@contextmanager
def hooked(subject: AudioLLM, points: Sequence[int], function: Callable[[int, Tensor], Any]) -> Iterator[None]:
    """Call `function(layer, [1, pos, d_model])` at each point; what it returns replaces the value, None keeps it."""
    handles = []
    for layer in points:
        if layer == -1:

            def before(_module: Any, args: tuple[Any, ...]) -> Any:
                new = function(-1, args[0])
                return None if new is None else (new, *args[1:])

            handles.append(subject.blocks[0].register_forward_pre_hook(before))
        else:

            def after(_module: Any, _args: Any, output: Tensor, layer: int = layer) -> Any:
                return function(layer, output)

            handles.append(subject.blocks[layer].register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def clean_pass(subject: AudioLLM, clip: Prompted) -> Tensor:
    """The unit of every figure: one forward pass of the decoder from embeddings, read at the last position."""
    with torch.inference_mode():
        hidden = subject.decoder(inputs_embeds=clip.embeds[None], use_cache=False).last_hidden_state
        return subject.hf.lm_head(hidden[:, -1])[0].float()
