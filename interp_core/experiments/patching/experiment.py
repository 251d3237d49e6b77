"""Layer patching as an experiment: what a request leaves open, what it runs, and single pairs by hand."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd
from scipy.special import log_softmax
from torch import Tensor

from interp_core.data.clips import Clip
from interp_core.data.corpora import Corpus
from interp_core.data.manifest import Manifest
from interp_core.data.pairs import NAMED_KINDS, Pair, PairSet, acoustic_differences, build_pairs, limits_of, parse_kinds
from interp_core.data.relabel import as_answers, both_sides
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.answers import low_mass
from interp_core.experiments.basis import of_pairs
from interp_core.experiments.checks import CheckReport, run_checks
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.cost import Cost
from interp_core.experiments.edited_words import left_out as words_left_out
from interp_core.experiments.experiment import Experiment, Ready
from interp_core.experiments.patching import files, words
from interp_core.experiments.patching.back_map import back_by_hand, check_back_map
from interp_core.experiments.patching.by_hand import pair_of, pair_set
from interp_core.experiments.patching.chunks import patches_of
from interp_core.experiments.patching.clip_chunks import clips_of_pairs
from interp_core.experiments.patching.cost import estimate
from interp_core.experiments.patching.edit_doses import doses_said
from interp_core.experiments.patching.edited import edit_pairs, edit_table, said_of
from interp_core.experiments.patching.head_map import PairHeads, check_head_map, heads_of_pair
from interp_core.experiments.patching.head_words import headline
from interp_core.experiments.patching.means import donor_notes, targets_of
from interp_core.experiments.patching.plan import Chunk, Plan, check_window, plan, plan_of_pair
from interp_core.experiments.patching.positions import Replaced, check_positions, replaced_by, time_window
from interp_core.experiments.patching.request import PatchRequest
from interp_core.experiments.patching.result import PatchingResult
from interp_core.experiments.patching.run import (
    base_predictions,
    pair_line,
    patch_pair,
    run_patching,
)
from interp_core.experiments.patching.stated import check_stated, left_out, stated_by_hand
from interp_core.experiments.patching.states import with_means
from interp_core.experiments.patching.subspace import check_subspace
from interp_core.experiments.patching.subspace_words import subspace_summary
from interp_core.experiments.patching.time_map import map_of_pair
from interp_core.jobs import Progress, silent
from interp_core.sinks import Sink
from interp_core.trace.store import CleanStore

MOST_ANSWERS = 30
"""A classifier of more classes than this is asked about those that the manifest names."""


class Patching(Experiment[PatchRequest, Plan, PatchingResult]):
    """See `Experiment`; the plan is what `plan` lays out."""

    request = PatchRequest
    files = files

    def prepare(self, engine: Engine, request: PatchRequest, progress: Progress = silent) -> Ready[PatchRequest, Plan]:
        request.check()
        check_positions(request.positions or "audio", request.align)
        if not request.pairs:
            parse_kinds(request.filled().kinds)
        engine.manifest(request)  # a first time before the model is opened, which may take a minute
        found = resolve(engine, request)
        store = engine.store(request, progress)
        self.check_kind(store.subject)
        manifest, pairs = clips_of(engine, found, store), pairs_of(engine, found, progress)
        made = plan(store.subject, pairs, manifest.clips, found)
        check_window(made, store)
        check_head_map(store.subject, found)
        for check_clips in (check_back_map, check_stated):
            check_clips(store.subject, found, clips_of_pairs(made))
        check_subspace(found, pairs.pairs, made.fitted_on)
        means = [] if made.means is None else made.means.counts(pairs.pairs)
        targets = dict.fromkeys(kind.target_column for kind in pairs.kinds)
        sides = [both_sides(manifest.clips, column, found.labels)["labels"] for column in targets]
        outside = list(dict.fromkeys(label for side in sides for label in side))
        facts = {
            **({"donor_means": means} if means else {}),
            "donors_answer_by_construction": made.by_construction,
            "donors_answer_but_for_padding": made.but_for_padding,
            "shortcut_refusal": store.subject.shortcut_refusal(),
            "unanswered": {"labels": outside, "answers": list(found.labels)},
        }
        notes: list[str] = [*left_out(made), *donor_notes(means, found.controls, found.flow)]
        notes += store.subject.unread_notes()
        if found.words:
            store.subject.check_writes()
            notes += words_left_out(store.subject, clips_of_pairs(made))
        if not request.site and found.kind != "resid_post":
            nearly = "nearly " if made.padding_stays else ""
            notes.append(
                f"patching {found.kind}: at resid_post the donor's answer would come out {nearly}by construction"
            )
        elif made.construction:
            instead = "; choose --site attn_out" if "attn_out" in store.subject.kinds else ""
            notes.append(f"at {found.kind} {made.construction}, whatever the layer{instead}")
        low: list[str] = []
        for prompt, labels in zip(found.prompts, made.labels, strict=True):

            def kept(clip: Clip, prompt: str = prompt) -> Tensor:
                return store.run(clip, prompt, (found.kind,)).logits[None]

            low += low_mass(ClipReader(store, prompt), [pair.recipient for pair in pairs.pairs], labels, kept)
        notes += low
        both = [c if c.original is None else c.original for p in pairs.pairs for c in (p.recipient, p.donor)]
        used = tuple({clip.clip_id: clip for clip in both}.values())
        rests_on = of_pairs(pairs.report, manifest.clips)
        rests_on += [f"the class mean of {row['label']} ({row['kind']}) of {row['clips']} clips" for row in means]
        rests_on += low
        return Ready(request, found, engine, store, manifest, made, facts, tuple(notes), used, rests_on)

    def cost(self, ready: Ready[PatchRequest, Plan]) -> Cost:
        return estimate(ready.plan, ready.store)

    def compute(self, ready: Ready[PatchRequest, Plan], sink: Sink, progress: Progress) -> PatchingResult:
        pairs = ready.plan.pairs
        for kind in pairs.kinds:
            sink.jsonl(f"pair_list_{kind.name}.jsonl", map(pair_line, pairs.of(kind.name)))
        result = run_patching(ready.plan, ready.store, ready.manifest.clips, ready.config, sink=sink, progress=progress)
        # How the donors of each kind sound different is what the reader of a flip rate has to know.
        used = {c.clip_id: c for p in pairs.pairs for c in (p.recipient, p.donor)}
        measured = ready.engine.acoustics(list(used.values()), ready.store.subject.sample_rate)
        report = {
            **result.reports["pair_construction_report"],
            "acoustic_differences": acoustic_differences(pairs.pairs, measured),
            "acoustics": {clip_id: asdict(a) for clip_id, a in sorted(measured.items())},
        }
        return replace(
            result,
            reports={**result.reports, "pair_construction_report": report},
            edits=edit_table(pairs.pairs, ready.store, measured),
        )

    def summary(self, result: PatchingResult) -> Iterator[str]:
        yield from result.remarks()
        matched = result.metrics[(result.metrics.condition == "matched") & (result.metrics.prompt == 0)]
        for kind, rows in matched.groupby("kind", sort=False):
            best: dict[Any, Any] = max(rows.to_dict("records"), key=lambda row: row["flip_to_target_rate_reachable"])
            layer = "the embeddings" if best["layer"] == -1 else f"layer {best['layer']}"
            rate, reachable = best["flip_to_target_rate_reachable"], best["reachable_count"]
            reach = f"{rate:.2f} of {reachable} reachable ones flip at {layer}" if reachable else "none is reachable"
            yield f"{kind}: {best['n']} pair{'s' * (best['n'] != 1)}; {reach}"
            if len(rows := result.heads_of(str(kind))):
                yield f"{kind}: {headline(rows, result.agreement_of(str(kind)))}"
            if len(exchanged := result.subspace_of(str(kind))):
                yield f"{kind}: {subspace_summary(exchanged)}"
        yield from words.summary(result.words_moved)
        yield from doses_said(result.edit_doses)
        yield from said_of(result.edits)
        yield from result.conflict.summary()


PATCHING = Patching()


def resolve(engine: Engine, request: PatchRequest) -> PatchRequest:
    """Fill in what the request leaves open: a demo's own words, else the model's, else the default ones."""
    demo = engine.demo(request.model)
    own: dict[str, Any] = {}
    if demo is not None:
        own = {"kinds": demo.kinds, "labels": demo.labels, "site": demo.site, "positions": demo.positions}
        # Its further prompts ask about the labels that its own clips have; of other clips only the first is asked.
        texts = tuple(text for _, text in demo.prompts)
        own["prompts"] = texts if request.manifest is None else texts[:1]
    if (
        not (request.labels or own.get("labels"))
        or not (request.prompts or own.get("prompts"))
        or not (request.site or own.get("site"))
    ):
        subject = engine.subject(request)
        own["labels"] = own.get("labels") or answers_of(engine, request, subject.answers)
        own["prompts"] = own.get("prompts") or subject.prompts_for(request.labels or own["labels"])
        own["site"] = own.get("site") or subject.default_site
    if request.corpus and not request.kinds:
        own["kinds"] = _kinds_in(engine.corpus(request), request.filled(**own).kinds)
    return request.filled(**own)


def _kinds_in(corpus: Corpus, kinds: str) -> str:
    """The kinds of pair that a corpus can make: all sentences of RAVDESS mean the same, so no two differ in that."""
    one_value = {str(column) for column in corpus.clips if corpus.clips[column].nunique() < 2}
    names = kinds.split(",")
    return ",".join(n for n in names if n not in NAMED_KINDS or NAMED_KINDS[n].differ not in one_value) or kinds


def answers_of(engine: Engine, request: PatchRequest, answers: tuple[str, ...]) -> tuple[str, ...]:
    """A classifier's classes; of many those that the clips name."""
    if len(answers) <= MOST_ANSWERS:
        return answers
    seen = {value for clip in engine.manifest(request).clips for value in clip.labels.values()}
    return tuple(answer for answer in answers if answer in seen)


def clips_of(engine: Engine, found: PatchRequest, store: CleanStore) -> Manifest:
    """The clips of a resolved request, labels that are an answer but for case and blanks read as it."""
    return as_answers(engine.manifest(found, store.limits), found.labels)


def pairs_of(engine: Engine, request: PatchRequest, progress: Progress = silent) -> PairSet:
    """Build the pairs of a request; `progress` is told how many edited clips were answered."""
    found = resolve(engine, request)
    store = engine.store(found)
    clips = clips_of(engine, found, store).clips
    if found.pairs:
        made = pair_set(store, clips, found)
    else:
        made = _of_kinds(store, clips, found, progress)
    if found.pilot is None:
        return made
    kept = tuple(p for kind in made.kinds for p in made.of(kind.name)[: found.pilot])
    return replace(made, pairs=kept, report={**made.report, "pilot": found.pilot})


def _of_kinds(store: CleanStore, clips: Sequence[Clip], found: PatchRequest, progress: Progress) -> PairSet:
    """The pairs of all kinds, those that labels build and those of edited copies, in the order of the setting."""
    kinds = parse_kinds(found.kinds)
    labels = targets_of(found, kinds, clips)
    limits = limits_of(kinds, found.max_pairs)
    by_label = [kind for kind in kinds if not kind.edit]
    made = PairSet((), (), {"kinds": {}})
    if by_label:
        most = {kind.name: limits[kind.name] for kind in by_label}
        made = build_pairs(clips, by_label, labels=labels, max_pairs=most, seed=found.seed)
    if len(by_label) == len(kinds):
        return made
    of_edits = edit_pairs(store, clips, kinds, found, progress)
    reports = made.report["kinds"] | of_edits.report["kinds"]
    ordered = [pair for kind in kinds for pair in (of_edits if kind.edit else made).of(kind.name)]
    report = {**of_edits.report, **made.report, "kinds": {kind.name: reports[kind.name] for kind in kinds}}
    return PairSet(tuple(ordered), kinds, report)


def check(engine: Engine, request: PatchRequest) -> tuple[CheckReport, tuple[str, ...]]:
    """Run the checks of a request alone; their report, and what there is to know before a run.

    Raises:
        CheckFailed: one does not hold.
    """
    ready = PATCHING.prepare(engine, request)
    made = with_means(ready.plan, ready.store)
    patches = patches_of(made, ready.store, made.chunks[0])[0]
    asked = ready.request.prompts[0]
    return run_checks(ready.store, made.pairs.pairs, made.labels[0], asked, patches, made.spec), (
        *ready.manifest.notes,
        *ready.notes,
    )


def pair_by_hand(engine: Engine, request: PatchRequest, recipient: Clip, donor: Clip, *, prompt: int = 0) -> Pair:
    """Two clips as a pair by hand; see `by_hand`."""
    found = resolve(engine, request)
    return pair_of(engine.store(found), recipient, donor, found, prompt=prompt)


def patch_by_hand(
    engine: Engine, request: PatchRequest, pair: Pair, *, prompt: int = 0, alphas: Sequence[float] = (1.0,)
) -> pd.DataFrame:
    """Sweep one pair; see `patch_pair`."""
    found = resolve(engine, request)
    store = engine.store(found)
    clips = _of_means(engine, found, store)
    return patch_pair(store, pair, found, prompt=prompt, alphas=alphas, clips=clips)


def _of_means(engine: Engine, found: PatchRequest, store: CleanStore) -> Sequence[Clip]:
    """The clips of which class means are taken; none where the donor is none."""
    return clips_of(engine, found, store).clips if found.donor_state else ()


def answer_by_hand(
    engine: Engine,
    request: PatchRequest,
    pair: Pair,
    *,
    n_tokens: int,
    prompt: int = 0,
    alpha: float = 1.0,
    layers: Sequence[int] | None = None,
) -> words.Answers:
    """What A, B, and A patched at each of some layers (None: all of the request) answer in words; see `in_words`."""
    found = resolve(engine, request)
    found = replace(found, layers=found.layers if layers is None else tuple(layers), controls=(), flow=())
    store = engine.store(found)
    made = plan_of_pair(store.subject, pair, found, prompt, _of_means(engine, found, store))
    made = with_means(made, store, prompts=(prompt,))
    patches = patches_of(made, store, Chunk(0, pair.kind, prompt, alpha, "matched", (pair,)))[0]
    (answers,) = words.in_words(store.subject, patches, made.spec, n_tokens)
    return answers


def heads_by_hand(engine: Engine, request: PatchRequest, pair: Pair, *, prompt: int = 0) -> PairHeads:
    """Every head's estimate for one pair, and where the heads look; see `heads_of_pair`."""
    found = resolve(engine, request)
    return heads_of_pair(engine.store(found), pair, found, prompt)


def head_patch_by_hand(
    engine: Engine, request: PatchRequest, pair: Pair, layer: int, head: int, *, prompt: int = 0
) -> pd.Series:
    """The record of one pair when one head alone is patched, at the first strength.

    Returns:
        As of `run_chunk`, and `target_change`: of the target's log-probability among the labels, nats.
    """
    asked = replace(request, site=f"head_out:{head}", layers=(layer,))
    row = patch_by_hand(engine, asked, pair, prompt=prompt, alphas=request.alphas[:1]).iloc[0]
    at = resolve(engine, asked).labels.index(row["target"])
    before, after = (log_softmax(row[f"{run}_logits"])[at] for run in ("base", "patched"))
    return pd.concat([row, pd.Series({"target_change": float(after - before)})])


def map_by_hand(
    engine: Engine, request: PatchRequest, pair: Pair, *, prompt: int = 0, alpha: float = 1.0
) -> list[dict[str, Any]]:
    """The time map of one pair, one record a layer; see `map_of_pair`."""
    found = resolve(engine, request)
    store = engine.store(found)
    return map_of_pair(store, pair, found, prompt=prompt, alpha=alpha, clips=_of_means(engine, found, store))


def later_by_hand(engine: Engine, request: PatchRequest, clip: Clip, *, prompt: int = 0) -> dict[str, Any]:
    """One clip's later layers in its earlier ones, whatever maps the request asks for; see `back_by_hand`."""
    found = resolve(engine, request)
    return back_by_hand(engine.store(found), clip, found, prompt)


def statement_by_hand(engine: Engine, request: PatchRequest, clip: Clip, *, prompt: int = 0) -> list[dict[str, Any]]:
    """What is answered about one clip without and with a statement of each label; see `stated_by_hand`."""
    found = resolve(engine, request)
    return stated_by_hand(engine.store(found), clip, found, prompt)


def window_by_hand(engine: Engine, request: PatchRequest, pair: Pair, *, prompt: int = 0) -> Replaced:
    """What the time window in `request.positions` replaces in a pair's recipient.

    Raises:
        InterpError: the positions are no time window, or it lies outside one of the clips.
    """
    found = resolve(engine, request)
    window = time_window(found.positions)
    if window is None:
        raise InterpError(f"positions {found.positions!r} are no time window; give one like 0.5-1.2 (seconds).")
    store = engine.store(found)
    a, b = (store.prompted(clip, found.prompts[prompt]) for clip in (pair.recipient, pair.donor))
    return replaced_by(a, b, window, found.align)


def base_table(engine: Engine, request: PatchRequest, progress: Progress = silent) -> pd.DataFrame:
    """Ask the model about every clip, unedited: one row a clip and prompt."""
    found = resolve(engine, request)
    store = engine.store(found)
    clips = clips_of(engine, found, store).clips
    rows, total = [], len(clips) * len(found.prompts)
    for row in base_predictions(store, clips, found):
        rows.append(row)
        progress(len(rows), total, "base predictions")
    return pd.DataFrame(rows)


__all__ = [
    "PATCHING",
    "InterpError",
    "Patching",
    "answer_by_hand",
    "base_table",
    "check",
    "head_patch_by_hand",
    "heads_by_hand",
    "later_by_hand",
    "map_by_hand",
    "pair_by_hand",
    "pairs_of",
    "patch_by_hand",
    "resolve",
    "statement_by_hand",
    "window_by_hand",
]
