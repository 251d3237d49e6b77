"""Steering as an experiment."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from interp_core.data.clips import Clip
from interp_core.data.columns import TASKS, column_of, units_of
from interp_core.data.manifest import check_inside
from interp_core.data.relabel import advice, as_answers, both_sides
from interp_core.data.sampling import halves
from interp_core.digests import digest_of
from interp_core.engine import Engine
from interp_core.errors import InterpError, Unanswered, few
from interp_core.experiments.answers import head_labels, low_mass, question
from interp_core.experiments.basis import of_labels
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.cost import Cost
from interp_core.experiments.edited_words import left_out, said_of
from interp_core.experiments.experiment import Experiment, Ready
from interp_core.experiments.steering import files, tables
from interp_core.experiments.steering.cost import estimate
from interp_core.experiments.steering.plan import Question, SteerPlan, partners_of
from interp_core.experiments.steering.request import LABEL, SteerRequest
from interp_core.experiments.steering.run import SteeringResult, run_steering, states_of
from interp_core.experiments.steering.vectors import SteeringVectors, foreign, load_vectors, misfit
from interp_core.experiments.steering.words import clips_in_words
from interp_core.jobs import Progress, silent
from interp_core.models.bundled import demo_of
from interp_core.models.subject import Subject
from interp_core.sinks import Sink
from interp_core.sites import Kind, Site
from interp_core.trace.store import CleanStore

USES = ("fit vectors on", "add them to")


class Steering(Experiment[SteerRequest, SteerPlan, SteeringResult]):
    """See `Experiment`."""

    request = SteerRequest
    files = files

    def lacks(self, kinds: Collection[Kind], subject: type[Subject]) -> str | None:
        return None

    def prepare(
        self, engine: Engine, request: SteerRequest, progress: Progress = silent
    ) -> Ready[SteerRequest, SteerPlan]:
        request.check()
        vectors = None
        if request.vector:
            check_inside(Path(request.vector).expanduser(), engine.roots)
            vectors = load_vectors(Path(request.vector).expanduser())
        store = engine.store(request, progress)
        subject = store.subject
        check_subject(subject, request.positions)
        manifest = engine.manifest(request, store.limits)
        classes = engine.corpus(request).classes if request.corpus else ()
        demo = demo_of(request.model)
        said = demo.task if demo is not None and request.manifest in (None, str(demo.manifest)) else ""
        task = column_of(manifest.clips, request.task or said, TASKS, "task")
        units = request.units or units_of(manifest.clips)
        prompts = request.prompts or usual_prompts(subject, request)
        values = {clip.label(task) for clip in manifest.clips} - {None}
        labels = head_labels(subject, request.labels or (demo.labels if demo else ()), prompts[0], values, classes)
        manifest = as_answers(manifest, labels.labels)
        first, second = _sides(manifest.clips, units, request, vectors, task)
        named = tuple(str(clip.label(task)) for clip in first)
        targets = _targets(request, labels.labels, vectors.labels if vectors is not None else named)
        layers = _layers(subject, request, vectors)
        questions = [Question(ClipReader(store, prompts[0]), labels)]
        questions += [Question(ClipReader(store, p), subject.labels(labels.labels, p)) for p in prompts[1:]]
        widths = _widths(questions[0].reader, second[0], subject, request)
        notes: list[str] = []
        if vectors is not None:
            if wrong := misfit(vectors, subject, layers, widths):
                raise InterpError(f"{wrong}.")
            notes += filter(None, [foreign(vectors, subject)])
        found = replace(
            request, task=task, units=units, prompts=tuple(prompts), labels=labels.labels, targets=targets,
            layers=layers, control_alpha=request.at_controls,
        )  # fmt: skip
        usable = range(subject.n_layers) if vectors is None else vectors.layers
        partners = partners_of(layers, usable, widths, subject.n_layers) if "layer" in request.controls else {}
        told, why_not = _told(store, found) if "prompt" in request.controls else ({}, "")
        columns = _columns(second, task, labels.labels)
        sides = _halves_fact(first, second, named, found, vectors)
        about = _about(found, subject, sides, first, second)
        plan = SteerPlan(
            found, tuple(questions), told, tuple(first), named, tuple(second), targets, layers, partners, vectors,
            columns, about,
        )  # fmt: skip
        low = low_mass(questions[0].reader, second, labels)
        notes += [*filter(None, [why_not]), *_few(named, targets, vectors), *low, *subject.unread_notes()]
        if found.words:
            subject.check_writes()
            notes += left_out(subject, clips_in_words(plan))
        if vectors is not None and "shuffled" in request.controls:
            notes.append("vectors of a file have no shuffled labels beside them: that control is left out")
        facts = {
            "halves": sides,
            "unanswered": both_sides(manifest.clips, task, labels.labels),
            **({"read_directly": [subject.n_layers - 1]} if subject.by_construction else {}),
        }
        rests_on = [*of_labels(manifest.clips, task, labels.labels), _said(sides, units), *low]
        used = (*first, *second)
        return Ready(request, found, engine, store, manifest, plan, facts, tuple(notes), used, rests_on)

    def cost(self, ready: Ready[SteerRequest, SteerPlan]) -> Cost:
        return estimate(ready.plan)

    def compute(self, ready: Ready[SteerRequest, SteerPlan], sink: Sink, progress: Progress) -> SteeringResult:
        return run_steering(ready.plan, ready.manifest.clips, ready.config, sink=sink, progress=progress)

    def summary(self, result: SteeringResult) -> Iterator[str]:
        yield from result.remarks()
        yield from said_of(result.answers, "label")
        dose, small = result.dose, result.smallest
        for label, rows in small.groupby("label", sort=False):
            reached = rows[rows["alpha"].notna()]
            if not rows["eligible"].max():
                continue
            layer = tables.best_layer(dose, str(label))
            row = rows[rows["layer"] == layer].iloc[0]
            where = f"layer {layer}, alpha {row['alpha']:g}" if len(reached) else f"layer {layer}, the best"
            beside = "" if row["random_rate"] != row["random_rate"] else f"; random vectors {row['random_rate']:.0%}"
            yield f"  {label}: {where}: {row['moved_rate']:.0%} of {row['eligible']} clips move{beside}"


STEERING = Steering()


def check_subject(subject: Subject, positions: str = "audio") -> None:
    """Refuse a model that has no states to add to, or no answer that could move."""
    if "resid_post" not in subject.kinds:
        raise InterpError(
            f"{subject.name} has no resid_post to add a vector to (its sites: {', '.join(subject.kinds)})."
        )
    if positions not in subject.spans:
        raise InterpError(
            f"{subject.name} has no positions {positions!r} (it has {', '.join(subject.spans)}); choose audio."
        )
    if subject.needs_probe:
        raise InterpError(
            f"{subject.name} has no classifier, so there is no answer that a vector could move; fit a probe as its "
            "readout (--probe COLUMN)."
        )


def usual_prompts(subject: Subject, request: SteerRequest) -> tuple[str, ...]:
    """What a model is asked unless somebody says so; a demo's further questions ask about its own clips alone."""
    demo = demo_of(request.model)
    if subject.asks and demo is not None and demo.prompts and not request.corpus:
        texts = tuple(text for _, text in demo.prompts)
        return texts if request.manifest in (None, str(demo.manifest)) else texts[:1]
    return (question(subject, request.model, request.labels),)


def _sides(
    clips: Sequence[Clip], units: str, request: SteerRequest, vectors: SteeringVectors | None, task: str
) -> tuple[list[Clip], list[Clip]]:
    """The clips to fit on, those without a label left out, and the clips to steer."""
    if vectors is not None:
        of_fit = set(vectors.about.get("fitted", ()))
        first: list[Clip] = []
        second = [clip for clip in clips if clip.digest not in of_fit]
        if not second:
            raise InterpError("the vectors were fitted on every one of these clips; give others to add them to.")
    else:
        first, second = halves(clips, units, request.seed, USES)
        first = [clip for clip in first if clip.label(task) is not None]
    if request.pilot is not None:
        by_label: dict[str, list[Clip]] = {}
        for clip in first:
            by_label.setdefault(str(clip.label(task)), []).append(clip)
        kept = {clip.clip_id for some in by_label.values() for clip in some[: request.pilot]}
        first = [clip for clip in first if clip.clip_id in kept]
    most = min([len(second), *filter(None, (request.pilot, request.max_steered))])
    at = np.linspace(0, len(second) - 1, most).round().astype(int)
    return first, [second[i] for i in at.tolist()]


def _targets(request: SteerRequest, answers: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The labels whose vectors are added.

    Args:
        answers: of the model. known: labels that have a vector, or a clip to fit it on.
    """
    if wrong := [label for label in request.targets if label not in answers]:
        raise InterpError(f"--targets {', '.join(map(repr, wrong))}: no answer of the model ({', '.join(answers)}).")
    outside = sorted(set(known) - set(answers))
    mapping = f"; {advice(outside, answers)}" if outside else ""
    if missing := [label for label in request.targets if label not in known]:
        raise Unanswered(
            f"--targets {', '.join(map(repr, missing))}: there is no clip to fit on, or no vector in the file (there "
            f"are {', '.join(sorted(set(known))) or 'none'}){mapping}.",
            outside, answers,
        )  # fmt: skip
    found = request.targets or tuple(label for label in answers if label in known)
    if not found:
        raise Unanswered(
            f"none of the answers {', '.join(answers)} is a label of the clips that vectors are fitted on "
            f"({few(sorted(set(known))) or 'none has a label'}){mapping or '; give clips with labels'}.",
            outside, answers,
        )  # fmt: skip
    if not set(known) - set(found[:1]):
        raise InterpError(f"every clip that vectors are fitted on is {found[0]!r}; a difference needs another label.")
    return found


def _layers(subject: Subject, request: SteerRequest, vectors: SteeringVectors | None) -> tuple[int, ...]:
    usual = range(subject.n_layers) if vectors is None else (one for one in vectors.layers if one < subject.n_layers)
    layers = tuple(sorted(request.layers)) if request.layers is not None else tuple(usual)
    for layer in layers:
        subject.locate(Site("resid_post", layer))
    return layers


def _widths(reader: ClipReader, clip: Clip, subject: Subject, request: SteerRequest) -> dict[int, int]:
    """How many numbers a state has behind each layer; of a model that widens on the way, as a clip shows it."""
    layers = range(subject.n_layers)
    if not subject.whole_only:
        return dict.fromkeys(layers, subject.d_model)
    return {layer: rows.shape[1] for layer, rows in states_of(reader, [clip], layers, request.positions).items()}


def _told(store: CleanStore, found: SteerRequest) -> tuple[dict[str, Question], str]:
    """By label the question behind words that say it; nothing of a model that is not asked in words, and where there is
    something to say about it, the reason."""
    subject = store.subject
    if not subject.asks:
        return {}, ""
    asked = {label: f"{found.told.replace(LABEL, label)} {found.prompts[0]}" for label in found.targets}
    try:
        return {
            label: Question(ClipReader(store, text), subject.labels(found.labels, text))
            for label, text in asked.items()
        }, ""
    except InterpError as error:
        return {}, f"the control of the prompt is left out: {str(error).rstrip('.')}"


def _columns(clips: Sequence[Clip], task: str, answers: Sequence[str]) -> tuple[str, ...]:
    """Label columns of which two values or more are answers, the task first."""
    names = dict.fromkeys([task, *(name for clip in clips for name in clip.labels)])
    return tuple(name for name in names if len({clip.label(name) for clip in clips} & set(answers)) > 1)


def _few(named: Sequence[str], targets: Sequence[str], vectors: SteeringVectors | None) -> list[str]:
    counts = {label: named.count(label) for label in targets}
    some = [f"{label} {count}" for label, count in counts.items() if count < tables.FEW]
    if vectors is not None or not some:
        return []
    return [f"few clips to fit on: {', '.join(some)}; a mean of so few holds what is peculiar to them"]


def _halves_fact(
    first: Sequence[Clip],
    second: Sequence[Clip],
    named: Sequence[str],
    found: SteerRequest,
    vectors: SteeringVectors | None,
) -> dict[str, Any]:
    """Both halves, as the config of a run says them."""

    def side(clips: Sequence[Clip]) -> dict[str, Any]:
        names = sorted({clip.label(found.units) or f"clip {clip.clip_id}" for clip in clips})
        return {"clips": len(clips), "units": len(names), "names": names}

    if vectors is not None:
        fitted = {**vectors.about.get("fitted_on", {"clips": 0, "units": 0}), "by_label": vectors.about.get("n", {})}
        path = Path(found.vector).expanduser()
        return {
            "fitted_on": fitted,
            "steered": side(second),
            "vector": {"path": path.name, "sha256": digest_of(path), "model": vectors.about.get("model", {})},
        }
    counts = {label: named.count(label) for label in sorted(set(named))}
    return {"fitted_on": {**side(first), "by_label": counts}, "steered": side(second)}


def _about(
    found: SteerRequest,
    subject: Subject,
    sides: Mapping[str, Any],
    first: Sequence[Clip],
    second: Sequence[Clip],
) -> dict[str, Any]:
    """What the file of the vectors says of them."""
    return {
        "model": {
            "id": found.model,
            "type": subject.config.model_type,
            "weights_sha256": subject.weights_hash,
            "n_layers": subject.n_layers,
        },
        "site": "resid_post",
        "positions": found.positions,
        "prompt": found.prompts[0],
        "task": found.task,
        "units": found.units,
        "seed": found.seed,
        "n": sides["fitted_on"]["by_label"],
        "fitted_on": {name: sides["fitted_on"].get(name) for name in ("clips", "units")},
        "steered": {name: sides["steered"][name] for name in ("clips", "units")},
        "fitted": sorted(clip.digest for clip in first),
        "held_out": sorted(clip.digest for clip in second),
    }


def _said(sides: Mapping[str, Any], units: str) -> str:
    fitted, steered = sides["fitted_on"], sides["steered"]
    return (
        f"vectors fitted on {fitted['clips']} clips ({fitted['units']} of {units}), added to {steered['clips']} others "
        f"({steered['units']} of {units})"
    )
