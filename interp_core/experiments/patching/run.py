"""Layer patching between two clips: if A's audio positions at a layer become B's, does the answer move toward B?

A run is a list of *chunks*: some pairs under one prompt, one strength and one condition. Chunks are the unit of
progress, of cancelling and of resuming, and their make-up depends on the settings alone, so that a run that was
killed and resumed ends with the same numbers to the last digit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from interp_core.data.clips import Clip
from interp_core.data.columns import choose_cluster_column, cluster_map
from interp_core.data.pairs import Pair
from interp_core.errors import CheckFailed
from interp_core.experiments.checks import TOLERANCE, CheckReport, run_checks
from interp_core.experiments.example import Example
from interp_core.experiments.experiment import Result
from interp_core.experiments.patching import conflict, figures, head_figures, one_pair, words
from interp_core.experiments.patching.chunks import patches_of, read_labels, records_by_chunk, run_chunk
from interp_core.experiments.patching.conflict import Conflict
from interp_core.experiments.patching.edit_doses import dose_table
from interp_core.experiments.patching.edit_figures import edit_figures
from interp_core.experiments.patching.flow import knockout_table, lens_table
from interp_core.experiments.patching.head_map import map_chunks, run_head_map
from interp_core.experiments.patching.limits import LIMITS
from interp_core.experiments.patching.means import counts_said
from interp_core.experiments.patching.metrics import base_accuracy, summarise
from interp_core.experiments.patching.necessity import run_time_maps, summarise_masks
from interp_core.experiments.patching.plan import Chunk, Plan, fitting, plan_of_pair
from interp_core.experiments.patching.request import PatchRequest, donor_in_title
from interp_core.experiments.patching.states import steps_of, with_means
from interp_core.experiments.patching.subspace import run_subspaces, subspace_chunks
from interp_core.experiments.patching.subspace_figures import subspace_figure
from interp_core.experiments.patching.subspace_table import summarise_subspace
from interp_core.experiments.patching.time_figures import time_figure
from interp_core.experiments.patching.time_map import summarise_time
from interp_core.jobs import Progress, silent
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.sinks import Sink
from interp_core.trace.store import CleanStore

REACHABLE, ANY_CHANGE = "flips to the target, of reachable pairs", "any change of the answer, of all pairs"
"""Of a run that goes on."""


@dataclass(frozen=True, eq=False, repr=False)
class PatchingResult(Result):
    """One patching run, finished: what the pages draw and a run folder keeps.

    Attributes:
        pairs: one dict a pair: pair_id, kind, recipient, donor, target, column.
        records: one row a prompt, alpha, condition, pair and layer.
        metrics: one row a kind, prompt, alpha, condition and layer.
        reports: tokenization_report, pair_construction_report, sanity_check_self_patch, sanity_check_audio_span.
        lens, knockout: information-flow tables; empty where not asked for.
    answers: in words, one row a pair and layer; see `words`. words_moved: their means, one row a kind and layer.
        head_map, head_agreement: every head's estimate and the verified ones' truth; how far the two agree. Or empty.
        time_map, necessity: `summarise_time` and `summarise_masks`; empty where no time map was asked for.
        time_records, mask_records: what they rest on, one row a pair and layer, and one a pair and mask.
        edits: what each edit did to each recording; edit_doses: the effect by dose. Empty where no donor is edited.
        conflict: of the clips alone: later layers in earlier ones, and prompts that state an answer.
        subspace, subspace_records: `summarise_subspace`, and a row a pair and layer; empty where none was exchanged.
    """

    pairs: Sequence[Mapping[str, Any]]
    records: pd.DataFrame
    metrics: pd.DataFrame
    reports: Mapping[str, Any]
    lens: pd.DataFrame = field(default_factory=pd.DataFrame)
    knockout: pd.DataFrame = field(default_factory=pd.DataFrame)
    answers: pd.DataFrame = field(default_factory=pd.DataFrame)
    words_moved: pd.DataFrame = field(default_factory=pd.DataFrame)
    head_map: pd.DataFrame = field(default_factory=pd.DataFrame)
    head_agreement: pd.DataFrame = field(default_factory=pd.DataFrame)
    time_map: pd.DataFrame = field(default_factory=pd.DataFrame)
    necessity: pd.DataFrame = field(default_factory=pd.DataFrame)
    time_records: pd.DataFrame = field(default_factory=pd.DataFrame)
    mask_records: pd.DataFrame = field(default_factory=pd.DataFrame)
    edits: pd.DataFrame = field(default_factory=pd.DataFrame)
    edit_doses: pd.DataFrame = field(default_factory=pd.DataFrame)
    conflict: Conflict = field(default_factory=Conflict)
    subspace: pd.DataFrame = field(default_factory=pd.DataFrame)
    subspace_records: pd.DataFrame = field(default_factory=pd.DataFrame)

    def tables(self) -> dict[str, pd.DataFrame]:
        maps = {"head_map": self.head_map, "head_agreement": self.head_agreement}
        maps |= {"time_map": self.time_map, "necessity": self.necessity, "subspace": self.subspace}
        maps |= {"edit_doses": self.edit_doses, "edits": self.edits}
        return {
            **{"metrics": self.metrics, "records": self.records, "lens": self.lens, "knockout": self.knockout},
            **{"answers": self.answers, "words_moved": self.words_moved},
            **{name: table for name, table in maps.items() if len(table)},
            **self.conflict.tables(),
        }

    def figure(self) -> Figure:
        """Flip rates by layer of the first kind of pair; `figures` draws the others."""
        kind = self.pairs[0]["kind"]
        return figures.flip_rate_figure(self.shown(kind), self.heading(kind))

    def figures(self) -> dict[str, Figure]:
        found: dict[str, Figure] = {}
        for kind in self.kinds:
            shown, title = self.shown(kind), self.heading(kind)
            found[f"flip_rate_curve_{kind}"] = figures.flip_rate_figure(shown, title)
            found[f"delta_logit_curve_{kind}"] = figures.delta_logit_figure(shown, title)
            if len(rows := self.heads_of(kind)):
                found[f"head_map_{kind}"] = head_figures.head_map_figure(
                    rows, self.agreement_of(kind), self.title_of_heads(kind)
                )
            if len(self.time_map):
                found[f"time_map_{kind}"] = time_figure(self.time_map[self.time_map["kind"] == kind], title)
            if len(self.subspace):
                found[f"subspace_{kind}"] = subspace_figure(self.subspace_of(kind), title)
        found |= edit_figures(self.edit_doses, self.model_name)
        return found | self.conflict.figures(conflict.question_names(self.prompts), self.model_name)

    def checks(self) -> Sequence[Mapping[str, Any]]:
        return self.reports.get("sanity_check_self_patch", {}).get("checks", ())

    def examples(self, most: int) -> list[Example]:
        return one_pair.examples(self.config, self.records, self.metrics, self.kinds, most)

    @property
    def limits(self) -> str:  # type: ignore[override]
        return LIMITS + self.conflict.limits()

    profile_x = "layer"

    def profile(self) -> pd.DataFrame:
        rows = self.metrics[self.metrics["condition"] == "matched"]
        series = [
            f"{kind}, question {prompt + 1}, alpha {alpha:g}: flips to the target, of reachable pairs"
            for kind, prompt, alpha in zip(rows["kind"], rows["prompt"], rows["alpha"], strict=True)
        ]
        values = rows["flip_to_target_rate_reachable"].to_numpy()
        return pd.DataFrame({"series": series, "x": rows["layer"].to_numpy(), "value": values})

    def shown(self, kind: str) -> pd.DataFrame:
        """What a figure of a kind of pair draws: metrics under the first question, controls at the first strength."""
        rows = self.metrics[(self.metrics["kind"] == kind) & (self.metrics["prompt"] == 0)]
        return rows[rows["alpha"] == rows.loc[rows["condition"] == "matched", "alpha"].iloc[0]]

    def heads_of(self, kind: str, prompt: int = 0) -> pd.DataFrame:
        """Rows of the map of heads of a kind of pair under a question; none where the run has no such map."""
        if self.head_map.empty:
            return self.head_map
        return self.head_map[(self.head_map["kind"] == kind) & (self.head_map["prompt"] == prompt)]

    def agreement_of(self, kind: str, prompt: int = 0) -> pd.Series:
        """How far the estimates of `heads_of` can be trusted."""
        table = self.head_agreement
        return table[(table["kind"] == kind) & (table["prompt"] == prompt)].iloc[0]

    def subspace_of(self, kind: str) -> pd.DataFrame:
        """Rows of `subspace` of a kind of pair; none where the run has none."""
        return self.subspace[self.subspace["kind"] == kind] if len(self.subspace) else self.subspace

    def title_of_heads(self, kind: str) -> str:
        return f"{self.model_name}: {kind} pairs, every head at {self.config['settings']['positions']} positions"

    def heading(self, kind: str) -> str:
        """Of the figures of a kind of pair."""
        settings = self.config["settings"]
        return f"{self.model_name}: {kind} pairs, {settings['site']}{donor_in_title(settings)}"

    def remarks(self) -> Sequence[str]:
        return [said] if (said := counts_said(self.config.get("donor_means", ()))) else []

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of pairs, in the order of the run."""
        return tuple(dict.fromkeys(line["kind"] for line in self.pairs))

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.config["settings"]["labels"])

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(self.config["settings"]["prompts"])


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
