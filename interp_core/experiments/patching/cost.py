"""What a run will cost, said before it starts."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from interp_core.data.pairs import Pair
from interp_core.experiments.cost import WAY_BACK, Cost, ready_seconds, timed, token_seconds
from interp_core.experiments.patching import conflict, words
from interp_core.experiments.patching.chunks import patches_of
from interp_core.experiments.patching.head_map import map_chunks
from interp_core.experiments.patching.head_table import RANDOM_HEADS
from interp_core.experiments.patching.necessity import MASKS, RANDOM_WINDOWS, masked_side, sides_of
from interp_core.experiments.patching.plan import Plan
from interp_core.experiments.patching.run import flows_of
from interp_core.experiments.patching.subspace import subspace_chunks
from interp_core.experiments.patching.time_map import TIME
from interp_core.experiments.patching.windows import windows_of
from interp_core.trace.clean import clean_runs
from interp_core.trace.generate import Row
from interp_core.trace.knockout import windows
from interp_core.trace.patch import Patch, SiteSpec, sweep_layers
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import cost


def estimate(plan: Plan, store: CleanStore) -> Cost:
    """Estimate a run from the first chunk of each condition and one timed forward pass."""
    per_pair: dict[tuple[str, float], float] = {}
    first: list[Patch] = []
    forwards = 0.0
    for chunk in plan.chunks:
        key = (chunk.condition, chunk.alpha)
        if key not in per_pair:
            patches = patches_of(plan, store, chunk)[0]
            first = first or patches
            total = sum(cost(store.subject, patch, plan.spec, plan.settings.method) for patch in patches)
            per_pair[key] = total / len(patches)
        forwards += per_pair[key] * len(chunk.pairs)
    of_pairs = {c.clip_id for pair in plan.pairs.pairs for c in (pair.recipient, pair.donor)}
    used = of_pairs | {c.clip_id for chunk in plan.chunks for p in chunk.pairs for c in (p.recipient, p.donor)}
    if "random" in plan.settings.controls:
        used |= {clip.clip_id for clip in plan.random_donors.values()}
    forwards += len(used) * len(plan.settings.prompts)
    if within := subspace_chunks(plan):
        some = replace(first[0], within={})  # no shortcut, whatever the subspace
        each = cost(store.subject, some, plan.spec, plan.settings.method) * (1 + plan.settings.subspace_draws)
        forwards += sum(len(chunk.pairs) for chunk in within) * each
        forwards += len({clip.clip_id for clip in plan.fitted_on} - set(used))
    if plan.means is not None:
        forwards += len({clip.clip_id for clip in plan.fitted_on} - set(used)) * len(plan.settings.prompts)
    if "knockout" in flows_of(plan.settings, store.subject):
        each = _knockout(first[0], store.subject.n_layers, plan.settings.knockout_width)
        forwards += len(of_pairs) * len(plan.settings.prompts) * each
    if "heads" in plan.settings.maps:
        forwards += _head_map(plan, store, first[0], len(used))
    forwards += _time_map(plan, store) + conflict.cost_of(plan, store)
    if plan.settings.checks:
        forwards += _checks(plan, store, first)
    stem = first[0].recipient.prompted
    each = timed(lambda: clean_runs(store.subject, [stem]))
    spoken = words.chunks_of(plan)
    pairs, n_tokens = sum(len(chunk.pairs) for chunk in spoken), plan.settings.words
    texts = len(plan.spec.layers) + 2
    # The prompt of A at every layer and of both clips as they are, then a position a token; see `in_words`.
    forwards += pairs * texts * (1 + n_tokens / stem.n_pos)
    waiting = len(spoken) * n_tokens * token_seconds(store.subject, Row(stem), texts) if spoken else 0.0
    also = f"up to {n_tokens} tokens in words of {pairs} pairs at every layer" if spoken else ""
    of = f"{len(plan.pairs.pairs)} pairs over {len(of_pairs)} clips"
    clips = {c.clip_id: c for chunk in plan.chunks for p in chunk.pairs for c in (p.recipient, p.donor)}
    asked = plan.settings.prompts[0]
    preparing = ready_seconds(lambda clip: store.prompted(clip, asked), list(clips.values()))
    waiting += len(used) * len(plan.settings.prompts) * preparing
    return Cost(forwards, forwards * each + waiting, of, also)


def _time_map(plan: Plan, store: CleanStore) -> float:
    """Windows at every layer of each pair, and the masks at one; from the first chunk of each condition."""
    per_pair: dict[str, float] = {}
    total = 0.0
    for chunk in plan.map_chunks:
        if chunk.map != TIME:
            continue
        if chunk.condition not in per_pair:
            patches = patches_of(plan, store, chunk)[0]
            every = zip(chunk.pairs, patches, strict=True)
            passes = sum(_windows(plan, store, chunk.condition, pair, patch) for pair, patch in every)
            per_pair[chunk.condition] = passes / len(patches)
        total += per_pair[chunk.condition] * len(chunk.pairs)
    if not total:
        return 0.0
    masked = [clip for pair in plan.pairs.pairs for clip in (pair.recipient, pair.donor)[: len(sides_of(plan))]]
    return total + len({len(store.samples(clip)) for clip in masked})  # a clean run of silence as long as each


def _windows(plan: Plan, store: CleanStore, condition: str, pair: Pair, patch: Patch) -> float:
    method = plan.settings.method
    windows = windows_of(plan.settings, patch)
    passes = sum(cost(store.subject, window.of(patch), plan.spec, method) for window in windows)
    if condition == "matched":  # masked windows lie anywhere, at a layer that is known afterwards: the first costs most
        first = replace(plan.spec, layers=plan.spec.layers[:1])
        for side in sides_of(plan):
            _, run, span, middle = masked_side(side, pair, patch, windows[len(windows) // 2])
            random = min(RANDOM_WINDOWS, span.frames - (middle.stop - middle.first))
            mask = Patch(run, run, middle.positions, middle.positions.double(), averaged=True)
            passes += len(MASKS) * (1 + random) * cost(store.subject, mask, first, method)
    return passes


def _knockout(patch: Patch, n_layers: int, width: int) -> float:
    """A clip's windows, each from its first layer on: over the readout position, and over all behind the audio."""
    prompted = patch.recipient.prompted
    blocks = sum(n_layers - first for first, _ in windows(n_layers, width))
    return blocks * (1 + prompted.n_pos - prompted.audio[1]) / (n_layers * prompted.n_pos)


def _head_map(plan: Plan, store: CleanStore, patch: Patch, used: int) -> float:
    """A pair: one pass of A forward and back, and for each verified head a patch with B and one with a random donor,
    every layer as likely; and each clip once more, with the activations at the sites of the map."""
    subject, settings = store.subject, plan.settings
    heads = sum(subject.heads_at(layer) for layer in range(subject.n_layers))
    verified = min(settings.top_heads + RANDOM_HEADS, heads)
    every = SiteSpec("head_out", layers=tuple(range(subject.n_layers)))
    each = cost(subject, patch, every, settings.method) / subject.n_layers
    pairs = sum(len(chunk.pairs) for chunk in map_chunks(plan))
    return pairs * (1 + WAY_BACK + 2 * verified * each) + used * len(settings.prompts)


def _checks(plan: Plan, store: CleanStore, patches: Sequence[Patch]) -> float:
    """Self-patch, whole donor and prefix, and two patches by both methods; see `run_checks`."""
    run = patches[0].recipient
    every = torch.arange(run.prompted.n_pos)
    whole = Patch(run, run, every, every.double())
    all_layers = SiteSpec("resid_post", layers=sweep_layers("resid_post", store.subject.n_layers))
    passes = 2.0 + cost(store.subject, whole, plan.spec)  # the two clips cut to one length, and the prefix
    for method in ("fast", "reference"):
        passes += cost(store.subject, whole, plan.spec, method) + cost(store.subject, whole, all_layers, method)
        passes += sum(cost(store.subject, patch, plan.spec, method) for patch in patches[:2])
    return passes
