"""Layer patching between two clips: if A's audio positions at a layer become B's, does the answer move toward B?

A run is a list of *chunks*: some pairs under one prompt, one strength and one condition. Chunks are the unit of
progress, of cancelling and of resuming, and their make-up depends on the settings alone, so that a run that was
killed and resumed ends with the same numbers to the last digit.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from interp_core.data.clips import Clip
from interp_core.data.pairs import Pair, PairSet
from interp_core.experiments.checks import CheckReport, run_checks
from interp_core.experiments.controls import seed_of
from interp_core.experiments.flips import base_accuracy, choose_cluster_column, cluster_map, summarise
from interp_core.experiments.flow import knockout_table, lens_table
from interp_core.experiments.plan import Chunk, PatchSettings, Plan, fitting, site_spec
from interp_core.experiments.positions import align_positions
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.trace.patch import Patch
from interp_core.trace.store import CleanStore
from interp_core.trace.sweep import sweep

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class PatchingResult:
    """One patching run, finished: what the pages draw and a run folder keeps.

    Attributes:
        config: settings, model, versions.
        pairs: one dict a pair: pair_id, kind, recipient, donor, target, column.
        records: one row a prompt, alpha, condition, pair and layer.
        metrics: one row a kind, prompt, alpha, condition and layer.
        reports: tokenization_report, pair_construction_report, sanity_check_self_patch, sanity_check_audio_span.
        lens, knockout: information-flow tables; empty where not asked for.
    """

    config: Mapping[str, Any]
    pairs: Sequence[Mapping[str, Any]]
    records: pd.DataFrame
    metrics: pd.DataFrame
    reports: Mapping[str, Any]
    lens: pd.DataFrame = field(default_factory=pd.DataFrame)
    knockout: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.config["settings"]["labels"])

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(self.config["settings"]["prompts"])


class Sink(Protocol):
    """Where chunks go as they are computed, and where those of an earlier, killed run come from."""

    def done(self, chunk: Chunk) -> list[dict[str, Any]] | None:
        """Return the records of a chunk that an earlier run finished."""

    def keep(self, chunk: Chunk, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Store a chunk's records and return them as a later run would read them."""


def patches_of(plan: Plan, store: CleanStore, chunk: Chunk) -> tuple[list[Patch], list[float], list[Clip | None]]:
    """Return a chunk's patches, the share of the span that each covers, and the donor of each."""
    settings = plan.settings
    prompt = settings.prompts[chunk.prompt]
    positions = chunk.condition if chunk.condition in ("question", "last", "prefix") else settings.positions
    patches: list[Patch] = []
    covered: list[float] = []
    donors: list[Clip | None] = []
    for pair in chunk.pairs:
        donor: Clip | None = plan.random_donors[pair.pair_id] if chunk.condition == "random" else pair.donor
        recipient = store.run(pair.recipient, prompt, (plan.spec.kind,))
        if chunk.condition == "noise":
            donor = None
            aligned = align_positions(recipient.prompted, recipient.prompted, positions, settings.align)
            seed = seed_of(settings.seed, "noise", pair.pair_id)
            patches.append(Patch(recipient, None, aligned.positions, aligned.source, chunk.alpha, seed))
        else:
            assert donor is not None, "only noise has no donor"
            run = store.run(donor, prompt, (plan.spec.kind,))
            aligned = align_positions(recipient.prompted, run.prompted, positions, settings.align)
            patches.append(Patch(recipient, run, aligned.positions, aligned.source, chunk.alpha))
        covered.append(aligned.covered)
        donors.append(donor)
    return patches, covered, donors


def run_chunk(plan: Plan, store: CleanStore, chunk: Chunk) -> list[dict[str, Any]]:
    """Sweep one chunk and return its records, pair by pair and layer by layer."""
    patches, covered, donors = patches_of(plan, store, chunk)
    labels = plan.labels[chunk.prompt]
    found = sweep(store.subject, patches, labels, plan.spec, method=plan.settings.method)
    patched = found.label_logits.numpy()
    mass = found.log_mass.exp().numpy()
    records = []
    for i, (pair, patch) in enumerate(zip(chunk.pairs, patches, strict=True)):
        base, base_mass = _read(labels, patch.recipient.logits)
        donor, _ = (None, None) if patch.donor is None else _read(labels, patch.donor.logits)
        for at, layer in enumerate(plan.spec.layers):
            records.append(
                {
                    "chunk": chunk.number,
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
                    "patched_logits": _rounded(patched[i, at]),
                    "base_label_mass": base_mass,
                    "patched_label_mass": round(float(mass[i, at]), 6),
                    "span_covered": round(covered[i], 4),
                    "method": found.methods[i],
                }
            )
    return records


def run_patching(
    plan: Plan,
    store: CleanStore,
    clips: Sequence[Clip],
    config: Mapping[str, Any],
    *,
    sink: Sink | None = None,
    progress: Progress = lambda done, total, note: None,
) -> PatchingResult:
    """Run a plan: checks, then every chunk, then the information flow, then the metrics.

    Args:
        plan: what to run.
        store: clean runs.
        clips: all clips of the manifest, for base accuracy.
        config: kept in the result.
        sink: takes chunks as they are done and gives back those that an earlier run finished.
        progress: called with (done, total, note) and may raise to cancel.
    Raises:
        CheckFailed: a pre-run check did not hold.
    """
    settings, pairs = plan.settings, plan.pairs.pairs
    flows = flows_of(settings, store.subject)
    used = len({c.clip_id for pair in pairs for c in (pair.recipient, pair.donor)})
    total = sum(len(chunk.pairs) for chunk in plan.chunks) + used * len(flows)
    done = 0

    def step(count: int, note: str) -> None:
        nonlocal done
        done += count
        progress(done, total, note)

    step(0, "checking the model")
    checks = CheckReport({"skipped": True}, {"skipped": True})
    if settings.checks:
        first = patches_of(plan, store, plan.chunks[0])[0]
        checks = run_checks(store, pairs, plan.labels[0], settings.prompts[0], first, plan.spec)
    rows: list[dict[str, Any]] = []
    for chunk in plan.chunks:
        kept = sink.done(chunk) if sink else None
        if kept is None:
            kept = run_chunk(plan, store, chunk)
            # Through JSON and back, so that a run that is resumed computes its metrics from the same digits.
            kept = sink.keep(chunk, kept) if sink else json.loads(json.dumps(kept))
        rows += kept
        step(len(chunk.pairs), f"{chunk.condition} {chunk.kind}")
    lens, knock = pd.DataFrame(), pd.DataFrame()
    if "lens" in flows:
        lens = _per_prompt(plan, lambda p, t: lens_table(store, pairs, p, t, lambda: step(0, "logit lens")))
        step(used, "logit lens")
    if "knockout" in flows:
        knock = _per_prompt(
            plan,
            lambda p, t: knockout_table(
                store, pairs, p, t, settings.knockout_width, lambda: step(0, "attention knockout")
            ),
        )
        step(used, "attention knockout")
    records = pd.DataFrame(rows).drop(columns="chunk")
    column = choose_cluster_column(clips)
    metrics = summarise(records, settings.labels, cluster_map(clips, column), seed=settings.seed, cluster_column=column)
    reports = {
        "tokenization_report": {"prompts": [tokens.report for tokens in plan.labels]},
        "pair_construction_report": {
            **plan.pairs.report,
            "random_donor_missing": sorted({p.pair_id for p in pairs} - set(plan.random_donors)),
            "base_accuracy": base_accuracy(records, clips, settings.labels),
        },
        "sanity_check_self_patch": checks.self_patch,
        "sanity_check_audio_span": checks.audio_span,
    }
    return PatchingResult(config, [pair_line(p) for p in pairs], records, metrics, reports, lens, knock)


def flows_of(settings: PatchSettings, subject: Subject) -> list[str]:
    """Return which curves along the clean runs are drawn; both belong to whole blocks, knockout to keys held fixed."""
    fits = fitting(subject)[1] if settings.site == "resid_post" else ()
    return [flow for flow in ("lens", "knockout") if flow in settings.flow and flow in fits]


def patch_pair(
    store: CleanStore, pair: Pair, settings: PatchSettings, *, prompt: int = 0, alphas: Sequence[float] = (1.0,)
) -> pd.DataFrame:
    """Sweep one pair by hand, at several strengths in one go.

    Returns:
        Records as of `run_chunk`, condition "matched", one row an alpha and layer.
    """
    subject = store.subject
    settings = replace(settings, controls=(), flow=(), alphas=tuple(alphas))
    settings.check()
    labels = subject.labels(settings.labels, settings.prompts[prompt], several_tokens=settings.several_tokens)
    spec = site_spec(subject, settings)
    made = Plan(settings, spec, (labels,) * len(settings.prompts), (), {}, PairSet((pair,), (), {}))
    rows = [
        record
        for number, alpha in enumerate(alphas)
        for record in run_chunk(made, store, Chunk(number, pair.kind, prompt, alpha, "matched", (pair,)))
    ]
    return pd.DataFrame(rows).drop(columns="chunk")


def base_predictions(store: CleanStore, clips: Sequence[Clip], settings: PatchSettings) -> Iterator[dict[str, Any]]:
    """Yield what the model answers for each clip under each prompt, unedited: one dict a clip and prompt."""
    for number, prompt in enumerate(settings.prompts):
        labels = store.subject.labels(settings.labels, prompt, several_tokens=settings.several_tokens)
        for clip in clips:
            logits, mass = _read(labels, store.run(clip, prompt).logits)
            yield {
                "clip_id": clip.clip_id,
                "prompt": number,
                "prediction": labels.labels[int(np.argmax(logits))],
                "logits": logits,
                "label_mass": mass,
            }


def pair_line(pair: Pair) -> dict[str, Any]:
    """Return a pair as its line in pair_list_{kind}.jsonl."""
    ids = {"recipient": pair.recipient.clip_id, "donor": pair.donor.clip_id}
    labels = {f"{side}_labels": dict(getattr(pair, side).labels) for side in ids}
    return {"pair_id": pair.pair_id, "kind": pair.kind, **ids, "target": pair.target, "column": pair.column, **labels}


def _per_prompt(plan: Plan, table: Callable[[str, LabelTokens], pd.DataFrame]) -> pd.DataFrame:
    frames = [
        table(prompt, tokens).assign(prompt=number)
        for number, (prompt, tokens) in enumerate(zip(plan.settings.prompts, plan.labels, strict=True))
    ]
    return pd.concat(frames, ignore_index=True)


def _read(labels: LabelTokens, logits: torch.Tensor) -> tuple[list[float], float]:
    at, mass = labels.read(logits[None])
    return _rounded(at[0].cpu().numpy()), round(float(mass.exp()), 6)


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(v), 5) for v in values]
