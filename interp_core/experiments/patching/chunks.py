"""What a chunk of pairs is turned into: patches, and the records of their sweep."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from interp_core.data.clips import Clip
from interp_core.data.pairs import Pair
from interp_core.experiments.patching.controls import seed_of
from interp_core.experiments.patching.plan import Chunk, Plan
from interp_core.experiments.patching.positions import align_positions
from interp_core.models.labels import LabelTokens
from interp_core.sinks import Records, Sink, recorded
from interp_core.trace.patch import Patch
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import sweep

Step = Callable[[int, str], None]
"""Told of so many pairs that are done, and of what."""


def records_by_chunk(
    plan: Plan,
    chunks: Iterable[Chunk],
    sink: Sink,
    step: Step,
    *,
    file: Callable[[Chunk], str],
    compute: Callable[[Chunk], Records],
    said: Callable[[Chunk], str],
) -> Iterator[tuple[Chunk, Records]]:
    """Each chunk that is this run's with its records; those that the sink has are not computed again.

    `step` is told of a chunk, with what is `said` of it, behind whatever the caller does with its records, and of
    another shard's at once.

    Args:
        file: the name of the file that a chunk's records are kept in.
    """
    for chunk in chunks:
        if not sink.skips(plan.group_of(chunk)):
            yield chunk, recorded(sink, file(chunk), chunk.number, partial(compute, chunk))
        step(len(chunk.pairs), said(chunk))


def patches_of(plan: Plan, store: CleanStore, chunk: Chunk) -> tuple[list[Patch], list[float], list[Clip | None]]:
    """Return a chunk's patches, the share of the span that each covers, and the donor of each."""
    settings = plan.settings
    prompt = settings.prompts[chunk.prompt]
    store.ahead(_heard(plan, (chunk, *plan.behind(chunk))))
    positions = chunk.condition if chunk.condition in ("question", "last", "prefix") else settings.positions
    patches: list[Patch] = []
    covered: list[float] = []
    donors: list[Clip | None] = []
    for pair in chunk.pairs:
        donor = _donor_of(plan, chunk, pair)
        recipient = store.run(pair.recipient, prompt, (plan.spec.kind,))
        if donor is None:
            aligned = align_positions(recipient.prompted, recipient.prompted, positions, settings.align)
            seed = seed_of(settings.seed, "noise", pair.pair_id)
            patches.append(Patch(recipient, None, aligned.positions, aligned.source, chunk.alpha, seed))
        else:
            run = store.run(donor, prompt, (plan.spec.kind,))
            mean = _mean_of(plan, pair, donor, chunk)
            source = run.prompted if mean is None else recipient.prompted
            aligned = align_positions(recipient.prompted, source, positions, settings.align)
            patches.append(Patch(recipient, run, aligned.positions, aligned.source, chunk.alpha, mean=mean))
        covered.append(aligned.covered)
        donors.append(donor)
    return patches, covered, donors


def _donor_of(plan: Plan, chunk: Chunk, pair: Pair) -> Clip | None:
    """The clip that a pair's recipient is given states of; None: noise."""
    if chunk.condition == "noise":
        return None
    return plan.random_donors[pair.pair_id] if chunk.condition == "random" else pair.donor


def _heard(plan: Plan, chunks: Iterable[Chunk]) -> Iterator[tuple[Clip, str]]:
    """The clips of chunks, each with its prompt, in the order in which they are run."""
    for chunk in chunks:
        for pair in chunk.pairs:
            for clip in (pair.recipient, _donor_of(plan, chunk, pair)):
                if clip is not None:
                    yield clip, plan.settings.prompts[chunk.prompt]


def _mean_of(plan: Plan, pair: Pair, donor: Clip, chunk: Chunk) -> Mapping[int, torch.Tensor] | None:
    """The mean of the class that a donor is of; None where the donor's own states are patched."""
    if plan.means is None:
        return None
    label = pair.target if donor is pair.donor else donor.label(pair.column)
    assert label is not None, "a random donor without a class is left out of the plan"
    return plan.means.of(pair, label, chunk.prompt)


def run_chunk(plan: Plan, store: CleanStore, chunk: Chunk) -> list[dict[str, Any]]:
    """Sweep one chunk and return its records, pair by pair and layer by layer."""
    patches, covered, donors = patches_of(plan, store, chunk)
    labels = plan.labels[chunk.prompt]
    found = sweep(store.subject, patches, labels, plan.spec, method=plan.settings.method)
    patched = found.label_logits.numpy()
    mass = found.log_mass.exp().numpy()
    records = []
    for i, (pair, patch) in enumerate(zip(chunk.pairs, patches, strict=True)):
        base, base_mass = read_labels(labels, patch.recipient.logits)
        donor, _ = (None, None) if patch.donor is None else read_labels(labels, patch.donor.logits)
        for at, layer in enumerate(plan.spec.layers):
            records.append(
                {
                    "kind": chunk.kind,
                    "prompt": chunk.prompt,
                    "alpha": chunk.alpha,
                    "condition": chunk.condition,
                    "site": plan.spec.kind,
                    "pair_id": pair.pair_id,
                    "layer": layer,
                    "recipient": pair.recipient.clip_id,
                    "donor": None if donors[i] is None else donors[i].clip_id,  # type: ignore[union-attr]
                    "target": pair.target,
                    "base_prediction": labels.labels[int(np.argmax(base))],
                    "donor_prediction": None if donor is None else labels.labels[int(np.argmax(donor))],
                    "patched_prediction": labels.labels[int(patched[i, at].argmax())],
                    "base_logits": base,
                    "donor_logits": donor,
                    "patched_logits": rounded(patched[i, at]),
                    "base_label_mass": base_mass,
                    "patched_label_mass": round(float(mass[i, at]), 6),
                    "span_covered": round(covered[i], 4),
                    "method": found.methods[i],
                }
            )
    return records


def read_labels(labels: LabelTokens, logits: torch.Tensor) -> tuple[list[float], float]:
    """Logits of the labels at one readout [n_classes], and the full-vocabulary probability on them."""
    at, mass = labels.read(logits[None])
    return rounded(at[0].cpu().numpy()), round(float(mass.exp()), 6)


def rounded(values: np.ndarray) -> list[float]:
    """As a record keeps logits."""
    return [round(float(v), 5) for v in values]
