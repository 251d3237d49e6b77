"""Every head's effect estimated in one pass forward and back a pair, and the largest verified by true patches.

The estimates come first, of all pairs: what is verified hangs on their means. They are cheap, so each shard makes all
of them, and the shards share the true patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from interp_core.choices import Method
from interp_core.data.clips import Clip
from interp_core.data.pairs import Pair
from interp_core.errors import InterpError
from interp_core.experiments.patching.chunks import Step
from interp_core.experiments.patching.controls import seed_of
from interp_core.experiments.patching.head_table import Measured, Part, choose, summarise_heads
from interp_core.experiments.patching.plan import Chunk, Plan
from interp_core.experiments.patching.positions import align_positions
from interp_core.experiments.patching.request import PatchRequest
from interp_core.models.subject import Subject
from interp_core.sinks import Arrays, Sink
from interp_core.sites import ATTRIBUTED, Kind, Site
from interp_core.trace.attribution import Attention, attribute
from interp_core.trace.clean import CleanRun
from interp_core.trace.patch import Patch, SiteSpec
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import sweep

UNIT_BLOCKS = 16
"""Blocks that the neurons of a layer are cut into: all of them together are the layer's mlp_out, to the last digit."""
ESTIMATES, VERIFIED = "head_estimates", "head_patches"


def check_head_map(subject: Subject, settings: PatchRequest) -> None:
    """Refuse a map of heads of a model that has none to patch one by one, or other sites that it lacks."""
    if "heads" not in settings.maps:
        return
    for kind in ("head_out", *settings.map_sites):
        if kind not in subject.kinds:
            raise InterpError(
                f"{subject.name} has no {kind} (its sites: {', '.join(subject.kinds)}), so it has no map of heads "
                f"{'there' if kind != 'head_out' else ''}".rstrip()
                + "; leave --map heads out."
            )


def kinds_of_map(subject: Subject, settings: PatchRequest) -> tuple[Kind, ...]:
    """The sites that are estimated, heads first."""
    wanted = {"head_out", *(settings.map_sites or ATTRIBUTED)}
    return tuple(kind for kind in ATTRIBUTED if kind in wanted and kind in subject.kinds)


def map_chunks(plan: Plan) -> list[Chunk]:
    """The chunks whose pairs the map is of: matched, at the first strength."""
    first = plan.settings.alphas[0]
    return [chunk for chunk in plan.chunks if chunk.condition == "matched" and chunk.alpha == first]


def parts_of(subject: Subject, run: CleanRun, kinds: Sequence[Kind]) -> list[Part]:
    """What is estimated: every head, then whole layers of the other sites, of mlp_act blocks of neurons."""
    found = []
    for kind in kinds:
        for layer in range(subject.n_layers):
            width = run.at(kind, layer).shape[-1]
            if kind == "head_out":
                count = subject.heads_at(layer)
            else:
                count = min(UNIT_BLOCKS, width) if kind == "mlp_act" else 1
            edges = [width * at // count for at in range(count + 1)]
            for at in range(count):
                head = at if kind == "head_out" else None
                found.append(Part(kind, layer, head, edges[at], edges[at + 1]))
    return found


def run_head_map(
    plan: Plan, store: CleanStore, clusters: Mapping[str, str], column: str, *, sink: Sink, step: Step
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Estimate, choose and verify, kind by kind and question by question.

    Args:
        clusters: clip_id -> unit that was sampled; column: what it is.
        step: told (pairs, note) as they are done: each pair of `map_chunks` twice.
    Returns:
        Rows of `summarise_heads`, and one row a kind and question on how far the estimate agrees. Both empty in a
        shard, which computes the patches of its own pairs alone.
    """
    check_head_map(store.subject, plan.settings)
    kinds = kinds_of_map(store.subject, plan.settings)
    chunks = map_chunks(plan)
    first = store.run(chunks[0].pairs[0].recipient, plan.settings.prompts[0], kinds)
    parts = parts_of(store.subject, first, kinds)
    n_heads = sum(part.site == "head_out" for part in parts)
    estimated: dict[int, Arrays] = {}
    for chunk in chunks:
        saved = sink.arrays(ESTIMATES, chunk.number)
        if saved is None:
            saved = sink.keep_arrays(ESTIMATES, chunk.number, _estimates(plan, store, chunk, parts, kinds))
        estimated[chunk.number] = saved
        step(len(chunk.pairs), f"estimating heads, {chunk.kind}")
    tables, agreements, whole = [], [], True
    for kind, prompt in dict.fromkeys((chunk.kind, chunk.prompt) for chunk in chunks):
        own = [chunk for chunk in chunks if (chunk.kind, chunk.prompt) == (kind, prompt)]
        made = {name: np.concatenate([estimated[c.number][name] for c in own]) for name in estimated[own[0].number]}
        seed = seed_of(plan.settings.seed, "head map", kind, str(prompt))
        chosen = choose(made["estimates"][:, :n_heads].mean(0), plan.settings.top_heads, seed)
        verified: list[Arrays] = []
        for chunk in own:
            if sink.skips(plan.group_of(chunk)):
                whole = False
                step(len(chunk.pairs), f"patching single heads, {chunk.kind}")
                continue
            saved = sink.arrays(VERIFIED, chunk.number)
            if saved is None:
                heads = [parts[i] for i in chosen]
                saved = sink.keep_arrays(VERIFIED, chunk.number, _patches(plan, store, chunk, heads, kinds))
            verified.append(saved)
            step(len(chunk.pairs), f"patching single heads, {chunk.kind}")
        if not whole:
            continue
        pairs = [pair for chunk in own for pair in chunk.pairs]
        drawn = [plan.random_donors.get(pair.pair_id) for pair in pairs]
        measured = Measured(
            parts,
            chosen,
            made["estimates"],
            made["of_random"],
            np.concatenate([arrays["matched"] for arrays in verified]),
            np.concatenate([arrays["random"] for arrays in verified]),
            made["attention"],
            [clusters[pair.recipient.clip_id] for pair in pairs],
            [clusters[pair.donor.clip_id] for pair in pairs],
            ["" if clip is None else clusters[clip.clip_id] for clip in drawn],
        )
        table, agreement = summarise_heads(measured, kind, prompt, seed=plan.settings.seed, column=column)
        tables.append(table)
        agreements.append(agreement)
    if not whole:
        return pd.DataFrame(), pd.DataFrame()
    return pd.concat(tables, ignore_index=True), pd.DataFrame(agreements)


def patch_of(
    store: CleanStore, recipient: Clip, donor: Clip, settings: PatchRequest, prompt: int, kinds: Sequence[Kind]
) -> Patch:
    """The patch of a pair as the sweep makes it: same positions, alignment and first strength."""
    asked = settings.prompts[prompt]
    a, b = (store.run(clip, asked, kinds) for clip in (recipient, donor))
    aligned = align_positions(a.prompted, b.prompted, settings.positions, settings.align)
    return Patch(a, b, aligned.positions, aligned.source, settings.alphas[0])


@dataclass(frozen=True, eq=False)
class PairHeads:
    """One pair's heads.

    Attributes:
        estimates: (layer, head) -> nats. attention: of the recipient's pass; None where it is not to be had.
        step: seconds that a frame of the attention covers.
    """

    estimates: Mapping[tuple[int, int], float]
    attention: Attention | None
    step: float


def heads_of_pair(store: CleanStore, pair: Pair, settings: PatchRequest, prompt: int = 0) -> PairHeads:
    """Estimate every head for one pair, and see where the heads look."""
    subject = store.subject
    check_head_map(subject, settings)
    if settings.donor_state:
        raise InterpError("heads are estimated with B's own states, not with a class mean; leave --donor out.")
    labels = subject.labels(settings.labels, settings.prompts[prompt], several_tokens=settings.several_tokens)
    patch = patch_of(store, pair.recipient, pair.donor, settings, prompt, ("head_out",))
    target = labels.labels.index(pair.target)
    (found,), seen = attribute(subject, [patch], labels, target, ("head_out",), attention=True)
    parts = parts_of(subject, patch.recipient, ("head_out",))
    estimates = {
        (p.layer, p.head): float(found[Site(p.site, p.layer)][p.first : p.stop].sum())
        for p in parts
        if p.head is not None
    }
    return PairHeads(estimates, seen, patch.recipient.prompted.seconds_per_position)


def _estimates(plan: Plan, store: CleanStore, chunk: Chunk, parts: Sequence[Part], kinds: Sequence[Kind]) -> Arrays:
    """Of every pair of a chunk, one at a time: estimates [n, n_parts] with B and with its random donor (NaN without
    one), and attention [n, 2, n_heads]."""
    labels, n_heads = plan.labels[chunk.prompt], sum(part.site == "head_out" for part in parts)
    estimates, attention = np.full((2, len(chunk.pairs), len(parts)), np.nan), []
    for row, pair in enumerate(chunk.pairs):
        donors = [donor for donor in (pair.donor, plan.random_donors.get(pair.pair_id)) if donor is not None]
        patches = [patch_of(store, pair.recipient, donor, plan.settings, chunk.prompt, kinds) for donor in donors]
        target = labels.labels.index(pair.target)
        found, seen = attribute(store.subject, patches, labels, target, kinds, attention=True)
        for at, sites in enumerate(found):
            estimates[at, row] = [float(sites[Site(p.site, p.layer)][p.first : p.stop].sum()) for p in parts]
        attention.append(_shares(seen, n_heads))
    return {"estimates": estimates[0], "of_random": estimates[1], "attention": np.stack(attention)}


def _shares(seen: Attention | None, n_heads: int) -> np.ndarray:
    """[2, n_heads] of the readout and the text; NaN where there is none."""
    if seen is None or not seen.shares:
        return np.full((2, n_heads), np.nan)
    return np.stack([seen.shares[reader].reshape(-1).numpy() for reader in ("readout", "text")])


def _patches(plan: Plan, store: CleanStore, chunk: Chunk, heads: Sequence[Part], kinds: Sequence[Kind]) -> Arrays:
    """True changes of the target's log-probability [n, heads], with B and with the random donor (NaN without one)."""
    found = {"matched": np.full((len(chunk.pairs), len(heads)), np.nan)}
    found["random"] = found["matched"].copy()
    for name, donors in (
        ("matched", {row: pair.donor for row, pair in enumerate(chunk.pairs)}),
        ("random", {row: plan.random_donors.get(pair.pair_id) for row, pair in enumerate(chunk.pairs)}),
    ):
        rows = [row for row, donor in donors.items() if donor is not None]
        patches, targets = [], []
        for row in rows:
            donor, pair = donors[row], chunk.pairs[row]
            assert donor is not None
            patches.append(patch_of(store, pair.recipient, donor, plan.settings, chunk.prompt, kinds))
            targets.append(plan.labels[chunk.prompt].labels.index(pair.target))
        if rows:
            method = plan.settings.method
            found[name][rows] = true_changes(plan, store, patches, targets, chunk.prompt, heads, method)
    return found


def true_changes(
    plan: Plan,
    store: CleanStore,
    patches: Sequence[Patch],
    targets: Sequence[int],
    prompt: int,
    heads: Sequence[Part],
    method: Method,
) -> np.ndarray:
    """[n, heads] change of each target's log-probability among the labels when one head alone is patched."""
    labels, subject = plan.labels[prompt], store.subject
    base = torch.stack([labels.read(patch.recipient.logits[None])[0][0] for patch in patches])
    rows = torch.arange(len(patches))
    aims = torch.tensor(targets)
    before = base.cpu().double().log_softmax(-1)[rows, aims]
    found = np.empty((len(patches), len(heads)))
    numbers = {part: at for at, part in enumerate(heads)}
    for number in sorted({part.head for part in heads if part.head is not None}):
        own = sorted((part for part in heads if part.head == number), key=lambda part: part.layer)
        widths = {part.layer: subject.d_head_at(part.layer) for part in own}
        spec = SiteSpec("head_out", number, widths, tuple(widths))
        swept = sweep(subject, patches, labels, spec, method=method)
        after = swept.label_logits.double().log_softmax(-1)[rows, :, aims]  # [n, layers]
        for at, part in enumerate(own):
            found[:, numbers[part]] = (after[:, at] - before).numpy()
    return found
