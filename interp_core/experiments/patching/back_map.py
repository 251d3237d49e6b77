"""Back-patching over the clips of a run: does the model answer better when it gets a later state earlier?

The state that a later layer (source) left at the run's positions of a clip is put where an earlier layer (target) left
its own, in the same clip under the same question; see `trace.back`. There is no donor and no pair. The whole residual
stream is replaced, whatever the run's site and strength are.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from interp_core.data.clips import Clip
from interp_core.data.pairs import Pair
from interp_core.errors import CheckFailed, InterpError
from interp_core.experiments.checks import TOLERANCE, CheckReport, compared
from interp_core.experiments.patching.chunks import read_labels, rounded
from interp_core.experiments.patching.clip_chunks import (
    ClipChunk,
    Units,
    answer_columns,
    clip_chunks,
    clips_of_pairs,
    source_of,
)
from interp_core.experiments.patching.plan import Plan, plan_of_pair
from interp_core.experiments.patching.positions import align_positions
from interp_core.experiments.patching.request import Map, PatchRequest
from interp_core.maths.arrays import Floats
from interp_core.models.subject import Subject
from interp_core.trace.back import back_cost, back_refusal, back_sweep
from interp_core.trace.patch import sweep_layers
from interp_core.trace.store import CleanStore

BACK: Map = "back"
RECORDS = "back_map_records.jsonl"
MOST_POINTS = 13
"""Points of the residual stream up to which all are mapped: the embeddings and 12 layers."""
CHANGES = ("accuracy", "logprob", "probability", "logit")
COLUMNS = [
    *["prompt", "column", "source", "target", "n", "accuracy_base", "accuracy_patched"],
    *[f"{name}_change{end}" for name in CHANGES for end in ("", "_low", "_high")],
    *["wrong_count", "restored_rate", "right_count", "broken_rate", "n_clusters", "interval_method"],
]


def check_back_map(subject: Subject, settings: PatchRequest, clips: Sequence[Clip]) -> None:
    """Refuse a map of a model whose layers do not fit each other, or of clips without a label that is an answer."""
    if BACK not in settings.maps:
        return
    if (refusal := back_refusal(subject)) is not None:
        raise InterpError(f"{subject.name} {refusal}; leave --map back out.")
    if len(layers := back_layers(subject, settings)) < 2:
        raise InterpError(
            f"back-patching puts a later layer's state into an earlier one, and the settings leave layer {layers[0]} "
            "alone; give more layers, or a smaller --back-every."
        )
    if clips and not answer_columns(clips, settings.labels):
        raise InterpError(
            "back-patching counts right answers, and no label column of the clips holds two of the answers "
            f"{', '.join(settings.labels)}; name other --labels, map those of the clips (--map-labels), or leave "
            "--map back out."
        )


def back_layers(subject: Subject, settings: PatchRequest) -> tuple[int, ...]:
    """The layers of the map: every n-th of the run's, counted from the last one."""
    points = sweep_layers("resid_post", subject.n_layers, settings.layers)
    every = settings.back_every or math.ceil(len(points) / MOST_POINTS)
    return points[::-1][::every][::-1]


def run_back_chunk(plan: Plan, store: CleanStore, chunk: ClipChunk) -> list[dict[str, Any]]:
    """Back-patch every clip of a chunk.

    Returns:
        One record a clip: its labels in the columns that answers can match, base_logits, cells (source, target),
        patched_logits [n_cells][n_labels], and diagonal_gap (see `BackSweep`). In the cells of the diagonal stand the
        base logits: that what came out there is they was checked, and what a route rounds otherwise is no effect.
    Raises:
        CheckFailed: the diagonal is not null.
    """
    settings, labels = plan.settings, plan.labels[chunk.prompt]
    runs = [store.run(clip, settings.prompts[chunk.prompt]) for clip in chunk.clips]
    positions = [align_positions(r.prompted, r.prompted, settings.positions, settings.align).positions for r in runs]
    layers, tolerance = back_layers(store.subject, settings), TOLERANCE[store.subject.dtype]
    found = back_sweep(store.subject, runs, positions, labels, layers, tolerance, method=settings.method)
    columns = answer_columns(clips_of_pairs(plan), settings.labels)
    records = []
    for clip, run, logits, gap, method in zip(
        chunk.clips, runs, found.label_logits.numpy(), found.gaps.tolist(), found.methods, strict=True
    ):
        base, mass = read_labels(labels, run.logits)
        records.append(
            {
                "prompt": chunk.prompt,
                "clip_id": clip.clip_id,
                "labels": {name: value for name in columns if (value := clip.label(name)) in settings.labels},
                "base_prediction": labels.labels[int(np.argmax(base))],
                "base_logits": base,
                "base_label_mass": mass,
                "cells": [list(cell) for cell in found.cells],
                "patched_logits": [
                    base if source == target else rounded(row)
                    for (source, target), row in zip(found.cells, logits, strict=True)
                ],
                "diagonal_gap": round(gap, 8),
                "method": method,
            }
        )
    return records


def back_by_hand(store: CleanStore, clip: Clip, settings: PatchRequest, prompt: int = 0) -> dict[str, Any]:
    """The record of one clip, as of `run_back_chunk`."""
    made = plan_of_pair(store.subject, _alone(clip, settings), replace(settings, maps=(BACK,)), prompt)
    check_back_map(store.subject, made.settings, ())
    [record] = run_back_chunk(made, store, ClipChunk(0, 0, prompt, (clip,)))
    return {**record, "labels": {name: value for name, value in clip.labels.items() if value in settings.labels}}


def _alone(clip: Clip, settings: PatchRequest) -> Pair:
    """A pair that is one clip."""
    return Pair(clip.clip_id, BACK, clip, clip, settings.labels[0], "")


def checked_back(plan: Plan, store: CleanStore, report: CheckReport) -> CheckReport:
    """Add to a report that on the first clip the fast route gives the reference's logits, cell by cell.

    Raises:
        CheckFailed: it does not.
    """
    subject, settings, labels = store.subject, plan.settings, plan.labels[0]
    clip = plan.pairs.pairs[0].recipient
    run = store.run(clip, settings.prompts[0])
    at = align_positions(run.prompted, run.prompted, settings.positions, settings.align).positions
    layers, tolerance = back_layers(subject, settings), TOLERANCE[subject.dtype]
    fast, slow = (
        back_sweep(subject, [run], [at], labels, layers, tolerance, method=method).label_logits[0]
        for method in ("fast", "reference")
    )
    found = compared("back-patching, fast = reference", fast, slow, subject)
    self_patch = {**report.self_patch, "checks": [*report.self_patch["checks"], found]}
    if not found["passed"]:
        raise CheckFailed(
            f"the pre-run checks failed, so nothing was swept: {found['check']} is off by "
            f"{found['max_difference']:.2g} (allowed {found['allowed']:.2g}); --no-checks runs it all the same.",
            {"self_patch": {**self_patch, "passed": False}, "audio_span": report.audio_span},
        )
    return CheckReport(self_patch, report.audio_span)


def cost_of_back(plan: Plan, store: CleanStore) -> float:
    """Clean forward passes that the map takes, and its check."""
    run = store.run(plan.pairs.pairs[0].recipient, plan.settings.prompts[0])
    at = align_positions(run.prompted, run.prompted, plan.settings.positions, plan.settings.align).positions
    layers = back_layers(store.subject, plan.settings)
    each = back_cost(store.subject, run, int(at[0]), layers, plan.settings.method)
    check = back_cost(store.subject, run, int(at[0]), layers, "reference") if plan.settings.checks else 0.0
    return each * sum(len(chunk.clips) for chunk in clip_chunks(plan)) + check


def changes(record: Mapping[str, Any], labels: Sequence[str], column: str) -> dict[str, Floats] | None:
    """What each cell did to one clip's answer to a label column; None where the clip has no such label.

    Returns:
        [n_cells] each: right (1 where the patched answer is the label), base_right, and the changes of the label's
        accuracy, log-probability (nats) and probability among the labels, and logit (nats).
    """
    label = record["labels"].get(column)
    if label is None:
        return None
    at = list(labels).index(label)
    base = np.asarray(record["base_logits"], np.float64)
    patched = np.asarray(record["patched_logits"], np.float64)  # [n_cells, n_labels]
    before, after = log_softmax(base)[at], log_softmax(patched, axis=-1)[:, at]
    right, base_right = (patched.argmax(-1) == at).astype(float), float(base.argmax() == at)
    return {
        "right": right,
        "base_right": np.full(len(patched), base_right),
        "accuracy": right - base_right,
        "logprob": after - before,
        "probability": np.exp(after) - np.exp(before),
        "logit": patched[:, at] - base[at],
    }


def summarise_back(
    records: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    clusters: Mapping[str, str],
    *,
    cluster_column: str = "text_id",
) -> pd.DataFrame:
    """The map over clips.

    Args:
        records: of `run_back_chunk`. clusters: clip_id -> unit that was sampled. cluster_column: what that is.
    Returns:
        COLUMNS, one row a prompt, label column, source and target. Changes are patched minus base, means over the n
        clips with such a label, with 95 % limits (bootstrap of units; NaN under 10). restored_rate: of the wrong_count
        clips that the model answers wrongly, the share that it answers rightly when patched; broken_rate: the other
        way, of the right_count. No cell is tested: the best of many is chosen by looking at them.
    """
    tables = list(_tables(records, labels, clusters, cluster_column))
    return pd.concat(tables, ignore_index=True)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)


def _tables(
    records: Sequence[Mapping[str, Any]], labels: Sequence[str], clusters: Mapping[str, str], unit: str
) -> Iterator[pd.DataFrame]:
    columns = dict.fromkeys(column for record in records for column in record["labels"])
    for prompt in dict.fromkeys(record["prompt"] for record in records):
        for column in columns:
            own = [r for r in records if r["prompt"] == prompt and column in r["labels"]]
            if not own:
                continue
            each = [made for record in own if (made := changes(record, labels, column)) is not None]
            stacked = {name: np.stack([made[name] for made in each]) for name in each[0]}  # [n, n_cells]
            units = Units([record["clip_id"] for record in own], clusters, unit)
            cells = np.asarray(own[0]["cells"])
            table: dict[str, Any] = {"prompt": prompt, "column": column, "source": cells[:, 0], "target": cells[:, 1]}
            for name in CHANGES:
                found = pd.DataFrame(units.means(stacked[name]))
                table |= {f"{name}_change": found["mean"]}
                table |= {f"{name}_change_{end}": found[end] for end in ("low", "high")}
                table |= {about: found[about] for about in ("n", "n_clusters", "interval_method")}
            right, base = stacked["right"], stacked["base_right"]
            wrong, was = (1 - base).sum(0), base.sum(0)
            table |= {"accuracy_base": base.mean(0), "accuracy_patched": right.mean(0)}
            table |= {"wrong_count": wrong.astype(int), "right_count": was.astype(int)}
            table["restored_rate"] = _rate((right * (1 - base)).sum(0), wrong)
            table["broken_rate"] = _rate(((1 - right) * base).sum(0), was)
            yield pd.DataFrame(table)


def _rate(hits: Floats, of: Floats) -> Floats:
    return np.divide(hits, of, out=np.full(len(of), np.nan), where=of > 0)


def back_summary(table: pd.DataFrame) -> Iterator[str]:
    """A sentence a label column under the first question: its best cell, said to be one of many."""
    for column, rows in table[table["prompt"] == 0].groupby("column", sort=False):
        off = rows[rows["source"] > rows["target"]]
        best: dict[Any, Any] = max(off.to_dict("records"), key=lambda row: row["accuracy_change"])
        yield (
            f"back-patching, {source_of(str(column))} ({column}): {best['accuracy_base']:.2f} of {best['n']} clips "
            f"right; at best {best['accuracy_patched']:.2f}, with layer {best['source']} in layer "
            f"{layer_name(int(best['target']))} (the best of {len(off)} cells, so too good by selection)"
        )


def layer_name(layer: int) -> str:
    return "the embeddings" if layer == -1 else str(layer)
