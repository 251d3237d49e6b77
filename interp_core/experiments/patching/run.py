"""Layer patching between two clips: if A's audio positions at a layer become B's, does the answer move toward B?

A run is a list of *chunks*: some pairs under one prompt, one strength and one condition. Chunks are the unit of
progress, of cancelling and of resuming, and their make-up depends on the settings alone, so that a run that was
killed and resumed ends with the same numbers to the last digit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from interp_core.data.clips import Clip
from interp_core.data.columns import choose_cluster_column, cluster_map
from interp_core.data.pairs import Pair
from interp_core.errors import CheckFailed
from interp_core.experiments.checks import TOLERANCE, CheckReport, run_checks
from interp_core.experiments.patching import conflict, words
from interp_core.experiments.patching.chunks import patches_of, read_labels, records_by_chunk, run_chunk
from interp_core.experiments.patching.edit_doses import dose_table
from interp_core.experiments.patching.flow import knockout_table, lens_table
from interp_core.experiments.patching.head_map import map_chunks, run_head_map
from interp_core.experiments.patching.metrics import base_accuracy, summarise
from interp_core.experiments.patching.necessity import run_time_maps, summarise_masks
from interp_core.experiments.patching.plan import Chunk, Plan, fitting, plan_of_pair
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.result import PatchingResult
from interp_core.experiments.patching.states import steps_of, with_means
from interp_core.experiments.patching.subspace import run_subspaces, subspace_chunks
from interp_core.experiments.patching.subspace_table import summarise_subspace
from interp_core.experiments.patching.time_map import summarise_time
from interp_core.jobs import Progress, silent
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.sinks import Sink
from interp_core.trace.store import CleanStore

REACHABLE, ANY_CHANGE = "flips to the target, of reachable pairs", "any change of the answer, of all pairs"
"""Of a run that goes on."""


def run_patching(
    plan: Plan,
    store: CleanStore,
    clips: Sequence[Clip],
    config: Mapping[str, Any],
    *,
    sink: Sink,
    progress: Progress = silent,
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
    asked = [*plan.chunks, *plan.map_chunks, *words.chunks_of(plan)]
    total = sum(len(chunk.pairs) for chunk in asked) + used * len(flows) + conflict.steps_of(plan)
    if "heads" in settings.maps:
        total += 2 * sum(len(chunk.pairs) for chunk in map_chunks(plan))
    if within := subspace_chunks(plan):
        total += len(plan.fitted_on) + sum(len(chunk.pairs) for chunk in within)
    total += steps_of(plan)
    done = 0

    def step(count: int, note: str) -> None:
        nonlocal done
        done += count
        progress(done, total, note)

    plan = with_means(plan, store, sink, step)
    step(0, "checking the model")
    checks = CheckReport({"skipped": True}, {"skipped": True})
    if settings.checks:
        first = patches_of(plan, store, plan.chunks[0])[0]
        try:
            checks = run_checks(store, pairs, plan.labels[0], settings.prompts[0], first, plan.spec)
            checks = conflict.checked(plan, store, checks)
        except CheckFailed as error:
            for name, report in error.report.items():
                sink.json(f"sanity_check_{name}.json", report)
            raise
    for name in {chunk.records_file: None for chunk in (*plan.chunks, *plan.map_chunks)}:
        sink.expect(name, plan.expected(name))
    rows: list[dict[str, Any]] = []
    for _, kept in records_by_chunk(
        plan, plan.chunks, sink, step, file=lambda chunk: chunk.records_file,
        compute=partial(run_chunk, plan, store), said=lambda chunk: f"{chunk.condition} {chunk.kind}",
    ):  # fmt: skip
        rows += kept
        sink.show(partial(rates_so_far, rows, settings))
    said = words.answers_of(plan, store.subject, lambda chunk: patches_of(plan, store, chunk)[0], sink, step)
    windows, masks = run_time_maps(plan, store, sink, step)
    of_clips = conflict.records_of(plan, store, sink, step)
    exchanged = run_subspaces(plan, store, sink, step)
    lens, knock = pd.DataFrame(), pd.DataFrame()
    column = choose_cluster_column(clips)
    clusters = cluster_map([*clips, *(clip for p in pairs for clip in (p.recipient, p.donor) if clip.edit)], column)
    if "lens" in flows:
        lens = _per_prompt(
            plan,
            lambda n, p, t: lens_table(store, pairs, p, t, lambda: step(0, "logit lens"), sink=sink, first=n * used),
        )
        step(used, "logit lens")
    if "knockout" in flows:
        knock = _per_prompt(
            plan,
            lambda n, p, t: knockout_table(
                store,
                pairs,
                p,
                t,
                settings.knockout_width,
                lambda: step(0, "attention knockout"),
                clusters=clusters,
                sink=sink,
                first=n * used,
            ),
        )
        step(used, "attention knockout")
    heads, agreement = pd.DataFrame(), pd.DataFrame()
    if "heads" in settings.maps:
        heads, agreement = run_head_map(plan, store, clusters, column, sink=sink, step=step)
    sink.gather()
    records = pd.DataFrame(rows)
    metrics = summarise(records, settings.labels, clusters, seed=settings.seed, cluster_column=column)
    moved = words.metrics_of(said, plan, clusters, column, settings.seed) if len(said) else said
    tolerance = TOLERANCE[store.subject.dtype]
    time_map = summarise_time(
        windows, plan.labels[0].labels, clusters, tolerance=tolerance, seed=settings.seed, cluster_column=column
    )
    necessity = summarise_masks(masks, clusters, seed=settings.seed, cluster_column=column)
    within_table = summarise_subspace(
        exchanged, records, settings.labels, clusters,
        tolerance=tolerance, seed=settings.seed, cluster_column=column,
    )  # fmt: skip
    reports = {
        "tokenization_report": {"prompts": [tokens.report for tokens in plan.labels]},
        "pair_construction_report": {
            **plan.pairs.report,
            "random_donor_missing": sorted({p.pair_id for p in pairs} - set(plan.random_donors)),
            "base_accuracy": base_accuracy(records, clips, settings.labels),
            **({} if plan.means is None else {"donor_means": plan.means.counts(pairs)}),
        },
        "sanity_check_self_patch": checks.self_patch,
        "sanity_check_audio_span": checks.audio_span,
    }
    tables = {
        **{"lens": lens, "knockout": knock, "answers": said, "words_moved": moved},
        **{"head_map": heads, "head_agreement": agreement, "time_map": time_map, "necessity": necessity},
        **{"time_records": pd.DataFrame(windows), "mask_records": pd.DataFrame(masks)},
        "edit_doses": dose_table(records, plan.pairs, clips),
        **{"subspace": within_table, "subspace_records": pd.DataFrame(exchanged)},
    }
    added = conflict.tables_of(plan, of_clips, clusters, column)
    return PatchingResult(config, [pair_line(p) for p in pairs], records, metrics, reports, **tables, conflict=added)


def rates_so_far(rows: Sequence[Mapping[str, Any]], settings: PatchRequest) -> pd.DataFrame:
    """Rates of the chunks that are done: matched, first question, first strength; no intervals.

    Args:
        rows: records, to which another thread may add meanwhile.
    """
    records = pd.DataFrame(list(rows))
    here = (records["condition"] == "matched") & (records["prompt"] == 0) & (records["alpha"] == settings.alphas[0])
    records = records[here]
    base, patched, donor = (records[f"{name}_prediction"] for name in ("base", "patched", "donor"))
    reachable = (base != records["target"]) & (donor == records["target"])
    tables = [
        part.groupby([records["kind"], records["layer"]]).agg(value="mean", n="size").reset_index().assign(series=said)
        for said, part in (
            (REACHABLE, (patched == records["target"])[reachable]),
            (ANY_CHANGE, patched != base),
        )
    ]
    curves = pd.concat(tables, ignore_index=True).rename(columns={"layer": "x"})
    return curves.assign(series=curves["kind"] + ": " + curves["series"])[["series", "x", "value", "n"]]


def flows_of(settings: PatchRequest, subject: Subject) -> list[str]:
    """Return which curves along the clean runs are drawn; both belong to whole blocks, knockout to keys held fixed."""
    fits = fitting(subject)[1] if settings.kind == "resid_post" else ()
    return [flow for flow in ("lens", "knockout") if flow in settings.flow and flow in fits]


def patch_pair(
    store: CleanStore,
    pair: Pair,
    settings: PatchRequest,
    *,
    prompt: int = 0,
    alphas: Sequence[float] = (1.0,),
    clips: Sequence[Clip] = (),
) -> pd.DataFrame:
    """Sweep one pair by hand, at several strengths in one go.

    Args:
        clips: of which class means are taken, where the donor is one.
    Returns:
        Records as of `run_chunk`, condition "matched", one row an alpha and layer.
    """
    made = plan_of_pair(store.subject, pair, replace(settings, alphas=tuple(alphas)), prompt, clips)
    made = with_means(made, store, prompts=(prompt,))
    rows = [
        record
        for number, alpha in enumerate(alphas)
        for record in run_chunk(made, store, Chunk(number, pair.kind, prompt, alpha, "matched", (pair,)))
    ]
    return pd.DataFrame(rows)


def base_predictions(store: CleanStore, clips: Sequence[Clip], settings: PatchRequest) -> Iterator[dict[str, Any]]:
    """Yield what the model answers for each clip under each prompt, unedited: one dict a clip and prompt."""
    for number, prompt in enumerate(settings.prompts):
        labels = store.subject.labels(settings.labels, prompt, several_tokens=settings.several_tokens)
        for clip in clips:
            logits, mass = read_labels(labels, store.run(clip, prompt).logits)
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


def _per_prompt(plan: Plan, table: Callable[[int, str, LabelTokens], pd.DataFrame]) -> pd.DataFrame:
    frames = [
        table(number, prompt, tokens).assign(prompt=number)
        for number, (prompt, tokens) in enumerate(zip(plan.settings.prompts, plan.labels, strict=True))
    ]
    return pd.concat(frames, ignore_index=True)
