"""Is a few directions' worth of B enough? Only the subspace in which the classes' mean states differ is exchanged.

The subspace is fitted for every pair without the clips of A's and B's units, so that neither has had a hand in it.
Beside it stand the whole state, which is the run's own matched patch, and random subspaces of the same rank.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.data.columns import choose_cluster_column, cluster_map
from interp_core.data.pairs import Pair
from interp_core.errors import InterpError, few
from interp_core.experiments.patching.chunks import Step, patches_of, read_labels, records_by_chunk, rounded
from interp_core.experiments.patching.means import own_units
from interp_core.experiments.patching.plan import Chunk, Plan
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.states import read_states
from interp_core.maths.subspaces import mean_differences, random_basis
from interp_core.sinks import Sink
from interp_core.trace.patch import Patch
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import sweep

STATES = "subspace_states"
Bases = Mapping[int, Tensor]
"""[rank, width] by layer."""


def records_file(kind: str) -> str:
    """The file of a run folder that holds the patches of a kind of pair within subspaces."""
    return f"subspace_records_{kind}.jsonl"


def subspace_chunks(plan: Plan) -> list[Chunk]:
    """The chunks whose pairs are patched within subspaces: matched, first question, first strength; or none."""
    settings = plan.settings
    if settings.subspace == "none":
        return []
    asked = (0, "matched", settings.alphas[0])
    return [chunk for chunk in plan.chunks if (chunk.prompt, chunk.condition, chunk.alpha) == asked]


def expected(plan: Plan) -> dict[str, dict[int, int]]:
    """How many records each chunk has, by file."""
    found: dict[str, dict[int, int]] = {}
    for chunk in subspace_chunks(plan):
        found.setdefault(records_file(chunk.kind), {})[chunk.number] = len(chunk.pairs) * len(plan.spec.layers)
    return found


def check_subspace(settings: PatchRequest, pairs: Sequence[Pair], clips: Sequence[Clip]) -> None:
    """Refuse a rank for which the clips without a pair's own units have too few classes, naming all such pairs.

    Args:
        clips: those whose states it may be fitted on.
    """
    if settings.subspace == "none":
        return
    units, short, nameless = cluster_map(clips, choose_cluster_column(clips)), [], []
    for pair in pairs:
        column = settings.subspace_label or pair.column
        if not column:
            nameless.append(pair.pair_id)
            continue
        own = own_units(pair, units)
        left = {clip.label(column) for clip in clips if units[clip.clip_id] not in own} - {None}
        if len(left) <= settings.rank:
            short.append(f"{pair.pair_id} ({len(left)} of {column})")
    if nameless:
        raise InterpError(
            f"no column says which classes differ in {len(nameless)} pairs by hand ({few(nameless, 5)}); name one with "
            "--subspace-label."
        )
    if short:
        raise InterpError(
            f"a subspace of rank {settings.rank} needs the mean states of {settings.rank + 1} classes, and without the "
            f"units of A and B (their {choose_cluster_column(clips)}) fewer are left for {len(short)} of {len(pairs)} "
            f"pairs: {few(short, 5)}. Lower --rank, or name another column with --subspace-label."
        )


@dataclass(frozen=True, eq=False)
class Subspaces:
    """What subspaces are made of.

    Attributes:
        clips: whose states there are. states: by layer, [n_clips, width] float32, each clip's mean over the positions
            that a patch replaces. units: clip_id -> unit. settings: rank, draws, column, seed.
    """

    clips: Sequence[Clip]
    states: Bases
    units: Mapping[str, str]
    settings: PatchRequest
    _made: dict[tuple[str, frozenset[str]], tuple[Bases, int, int]] = field(default_factory=dict, repr=False)

    def of(self, pair: Pair) -> tuple[Bases, int, int]:
        """The subspace of a pair by layer, and how many classes and clips it was fitted on."""
        column, own = self.settings.subspace_label or pair.column, own_units(pair, self.units)
        if (column, own) not in self._made:
            used = [
                (row, value)
                for row, clip in enumerate(self.clips)
                if self.units[clip.clip_id] not in own and (value := clip.label(column)) is not None
            ]
            counts = Counter(value for _, value in used)
            rows = torch.tensor([row for row, _ in used])
            names = sorted(counts)
            member = torch.tensor([[value == name for _, value in used] for name in names]).double()
            weights = member / member.sum(1, keepdim=True)
            bases = {
                layer: mean_differences(weights @ state[rows].double(), self.settings.rank)
                for layer, state in self.states.items()
            }
            self._made[column, own] = bases, len(names), len(used)
        return self._made[column, own]

    def random(self, draw: int) -> Bases:
        """A random subspace of the same rank, the same one for every pair."""
        return {
            layer: random_basis(state.shape[1], self.settings.rank, self.settings.seed, "subspace", draw, layer)
            for layer, state in self.states.items()
        }


def read_subspaces(plan: Plan, store: CleanStore, sink: Sink, step: Step) -> Subspaces:
    """What the subspaces of a run are made of, under its first question.

    Raises:
        InterpError: a width that has no subspace of the rank.
    """
    settings, clips = plan.settings, plan.fitted_on
    states = read_states(plan, store, sink, step, name=STATES, said="states that subspaces are fitted on", prompt=0)
    narrow = min(state.shape[1] for state in states.values())
    if settings.rank > narrow:
        raise InterpError(f"site {settings.site} is {narrow} wide, too narrow for a subspace of rank {settings.rank}.")
    return Subspaces(clips, states, cluster_map(clips, choose_cluster_column(clips)), settings)


def run_subspaces(plan: Plan, store: CleanStore, sink: Sink, step: Step) -> list[dict[str, Any]]:
    """The records of all chunks that are this run's; none where no subspace is asked for."""
    for name, counts in expected(plan).items():
        sink.expect(name, counts)
    chunks = subspace_chunks(plan)
    if not chunks:
        return []
    fitted = read_subspaces(plan, store, sink, step)
    rows: list[dict[str, Any]] = []
    for _, kept in records_by_chunk(
        plan, chunks, sink, step, file=lambda chunk: records_file(chunk.kind),
        compute=partial(run_subspace_chunk, plan, store, fitted), said=lambda chunk: f"within subspaces, {chunk.kind}",
    ):  # fmt: skip
        rows += kept
    return rows


def run_subspace_chunk(plan: Plan, store: CleanStore, fitted: Subspaces, chunk: Chunk) -> list[dict[str, Any]]:
    """Patch a chunk's pairs within their subspace, and within every random one.

    Returns:
        One record a pair and layer: patched_logits and share (of the squared length of B - A, how much lies in the
        subspace, over the replaced positions); random_logits [draws][n_labels] and random_share [draws] of the others.
    """
    patches = patches_of(plan, store, chunk)[0]
    labels, settings = plan.labels[chunk.prompt], plan.settings
    own = [fitted.of(pair) for pair in chunk.pairs]
    ways = [[bases for bases, _, _ in own]]
    ways += [[fitted.random(draw)] * len(patches) for draw in range(settings.subspace_draws)]
    logits, shares, methods = [], [], []
    for bases in ways:
        some = [replace(patch, within=basis) for patch, basis in zip(patches, bases, strict=True)]
        found = sweep(store.subject, some, labels, plan.spec, method=settings.method)
        logits.append(found.label_logits.numpy())
        shares.append([[_share(plan, store, patch, layer) for layer in plan.spec.layers] for patch in some])
        methods.append(found.methods)
    records = []
    for i, (pair, patch) in enumerate(zip(chunk.pairs, patches, strict=True)):
        assert patch.donor is not None, "a matched patch has a donor"
        (base, _), (donor, _) = (read_labels(labels, run.logits) for run in (patch.recipient, patch.donor))
        for at, layer in enumerate(plan.spec.layers):
            records.append(
                {
                    "kind": chunk.kind,
                    "prompt": chunk.prompt,
                    "alpha": chunk.alpha,
                    "pair_id": pair.pair_id,
                    "layer": layer,
                    "recipient": pair.recipient.clip_id,
                    "donor": pair.donor.clip_id,
                    "target": pair.target,
                    "rank": settings.rank,
                    "fitted_classes": own[i][1],
                    "fitted_clips": own[i][2],
                    "base_prediction": labels.labels[int(np.argmax(base))],
                    "donor_prediction": labels.labels[int(np.argmax(donor))],
                    "base_logits": base,
                    "donor_logits": donor,
                    "patched_logits": rounded(logits[0][i, at]),
                    "share": round(shares[0][i][at], 6),
                    "random_logits": [rounded(drawn[i, at]) for drawn in logits[1:]],
                    "random_share": [round(drawn[i][at], 6) for drawn in shares[1:]],
                    "methods": [used[i] for used in methods],
                }
            )
    return records


def _share(plan: Plan, store: CleanStore, patch: Patch, layer: int) -> float:
    """Of the squared length of B - A, what lies in the patch's subspace at a layer; 0 where A and B are the same."""
    spec = plan.spec
    assert patch.donor is not None, "a subspace has a donor"
    own, other = patch.recipient.at(spec.kind, layer), patch.donor.at(spec.kind, layer)
    here = patch.over(len(own)) if store.subject.whole_only else patch
    a = own[here.positions.to(own.device)][:, spec.columns_at(layer)].float()
    b = here.donor_value(other)[:, spec.columns_at(layer)].to(a)
    whole = float((b - a).square().sum())
    return float(here.exchanged(a, b, layer).square().sum()) / whole if whole > 0 else 0.0
