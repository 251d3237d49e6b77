"""Neuron ablation as an experiment; its command is `ablate`."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from interp_core.data.columns import DOMAINS, TASKS, column_of, units_of
from interp_core.data.relabel import as_answers, both_sides
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.answers import head_labels, low_mass, question
from interp_core.experiments.basis import of_labels
from interp_core.experiments.clips import ClipReader, Collected, collect
from interp_core.experiments.cost import Cost
from interp_core.experiments.downstream import TailDownstream, downstream_of, impact
from interp_core.experiments.edited_words import left_out, said_of
from interp_core.experiments.experiment import Experiment, Ready
from interp_core.experiments.neurons import epochs, files
from interp_core.experiments.neurons.cost import estimate
from interp_core.experiments.neurons.erase import erasure_sentence
from interp_core.experiments.neurons.plan import AblationPlan, draws_of
from interp_core.experiments.neurons.request import AblateRequest
from interp_core.experiments.neurons.splits import Splits, split
from interp_core.experiments.neurons.sweep import AblationResult, Table, run_sweep
from interp_core.experiments.neurons.words import check_site, clips_in_words, run_words
from interp_core.jobs import Progress, silent
from interp_core.models.bundled import Demo, demo_of
from interp_core.models.subject import Subject
from interp_core.prepared import once
from interp_core.sinks import Sink
from interp_core.sites import OF_HEADS, STAGES, Kind, Site, check_kind


class Neurons(Experiment[AblateRequest, AblationPlan, AblationResult]):
    """See `Experiment`."""

    request = AblateRequest
    files = files

    def lacks(self, kinds: Collection[Kind], subject: type[Subject]) -> str | None:
        return None

    def prepare(
        self, engine: Engine, request: AblateRequest, progress: Progress = silent
    ) -> Ready[AblateRequest, AblationPlan]:
        request.check()
        asked, one = request, epochs.one_of(engine, request, self.accuracy)
        request, choice = resolve(one), epochs.choice_of(engine, one)
        store = engine.store(request, progress)
        subject = store.subject
        filters = {"train": request.train, "id": request.id, "ood": request.ood}
        choices = request.corpus_choices
        manifest = engine.manifest(request, store.limits, choices)
        if choices:
            filters = {"train": "train", "id": "id_val", "ood": "ood"}  # the reader has made them
        classes = engine.corpus(request, choices).classes if request.corpus else ()
        task = column_of(manifest.clips, request.task, TASKS, "task")
        domain = column_of(manifest.clips, request.domain, DOMAINS, "domain")
        units = request.units or units_of(manifest.clips)
        site = site_of(subject, request.at)
        demo = engine.demo(request.model)
        prompt = request.prompt or question(subject, request.model, request.labels)
        wanted = request.labels or (demo.labels if demo else ())
        labels = head_labels(subject, wanted, prompt, {c.label(task) for c in manifest.clips} - {None}, classes)
        manifest = as_answers(manifest, labels.labels)
        if request.words:
            subject.check_writes()
            check_site(site)
        splits = split(manifest.clips, domain, units, **filters)
        if request.pilot is not None:
            splits = _first(splits, request.pilot)
        used = tuple(manifest.clips[i] for rows in (splits.train, splits.id, splits.ood) for i in rows)
        ends = np.cumsum([0, len(splits.train), len(splits.id), len(splits.ood)])
        rows = [np.arange(ends[i], ends[i + 1]) for i in range(3)]
        splits = Splits(rows[0], rows[1], rows[2], splits.said)
        found = replace(
            request, task=task, domain=domain, units=units, at=_written(site), prompt=prompt, labels=labels.labels
        )
        made = AblationPlan(used, splits, ClipReader(store, prompt), site, labels)
        low = low_mass(made.reader, used, labels)
        notes = (f"task {task}, domain {domain}, units {units}; {splits.said}", *low)
        notes += left_out(subject, [used[i] for i in clips_in_words(splits, found)])
        facts = {"splits": splits.said, "unanswered": both_sides(used, task, labels.labels)}
        so = "do not count in accuracies"
        rests_on = [splits.said, *of_labels(used, task, labels.labels, so), *of_labels(used, domain), *low]
        if choice:
            facts["choice"] = choice
            rests_on.insert(0, choice["said"])
        return Ready(asked, found, engine, store, manifest, made, facts, notes, used, rests_on)

    def cost(self, ready: Ready[AblateRequest, AblationPlan]) -> Cost:
        return estimate(ready.plan, ready.request)

    def compute(self, ready: Ready[AblateRequest, AblationPlan], sink: Sink, progress: Progress) -> AblationResult:
        request, plan = ready.request, ready.plan
        collected = collect(
            plan.reader, plan.clips, plan.site, plan.labels, batch_size=request.batch_size, sink=sink, progress=progress
        )
        rest = downstream_of(plan.reader, collected, plan.site, plan.labels, sink=sink, progress=progress)
        if isinstance(rest, TailDownstream):
            sink.gather()
        weight = impact(plan.reader, collected, rest, plan.site, plan.splits.train).double().numpy()
        request = replace(request, draws=draws_of(request, isinstance(rest, TailDownstream)))
        made = run_sweep(
            _table(ready, collected), rest, weight, request, config=ready.config, progress=progress, gather=sink.gather
        )
        report = {
            **made.report,
            "splits": plan.splits.said,
            "draws": request.draws,
            "site": _written(plan.site),
            "labels": list(plan.labels.labels),
            **_planted(request),
        }
        answers = run_words(
            plan.reader,
            plan.site,
            collected,
            plan.splits,
            made.scores,
            report["evidence"]["k"],
            request,
            sink,
            progress,
        )
        return replace(made, report=report, words=answers)

    def summary(self, result: AblationResult) -> Iterator[str]:
        report, evidence = result.report, result.report["evidence"]
        for reason in report["refused"].values():
            yield f"not measured: {reason}"
        base = report["base"]
        yield (
            f"unedited: {base['head_ood']:.1%} right out of domain, {base['head_id']:.1%} in domain; "
            f"{report['route']}, {report['ablations']} sets"
        )
        yield f"at K = {evidence['k']}: {report['verdict']} ({report['why']})"
        yield from said_of(result.words, "set")
        if len(result.erasure):
            yield erasure_sentence(result.erasure, report)
        if planted := report.get("planted"):
            yield f"the shortcut was planted: {planted}"

    def requests(
        self, engine: Engine, request: AblateRequest, say: Callable[[str], None]
    ) -> Mapping[str, AblateRequest]:
        if not request.epoch:
            return {"": request}
        chosen = epochs.chosen(engine, request, self.accuracy, say)
        return {f"epoch_{epoch:05}": one for epoch, one in chosen.items()}

    def accuracy(self, engine: Engine, request: AblateRequest) -> tuple[float, float]:
        """Accuracy of the unedited model in domain and out of domain."""

        def measured() -> tuple[float, float]:
            ready = self.prepare(engine, request)
            plan = ready.plan
            found = collect(plan.reader, plan.clips, plan.site, plan.labels, batch_size=request.batch_size)
            names = np.asarray(plan.labels.labels)[found.logits.argmax(-1).numpy()]
            right = names == np.asarray([clip.label(ready.request.task) or "" for clip in plan.clips])
            return float(right[plan.splits.id].mean()), float(right[plan.splits.ood].mean())

        inside, out = once(epochs.accuracy_key(engine, request), measured)
        return inside, out


NEURONS = Neurons()


def resolve(request: AblateRequest) -> AblateRequest:
    """Fill in what a bundled demo says of its own clips: columns and splits."""
    demo = _own_demo(request)
    if demo is None:
        return request
    filled = {name: getattr(request, name) or getattr(demo, name) for name in ("task", "domain")}
    if not (request.train or request.id or request.ood):
        filled |= {name: getattr(demo, name) for name in ("train", "id", "ood")}
    return replace(request, **filled)


def _own_demo(request: AblateRequest) -> Demo | None:
    """The bundled demo that a request names, on the demo's own clips."""
    demo = demo_of(request.model)
    own = demo is not None and demo.name == request.model and request.manifest in (None, str(demo.manifest))
    return demo if own else None


def _planted(request: AblateRequest) -> dict[str, str]:
    """What was planted, for the report of a run that looks for it; empty elsewhere."""
    demo = _own_demo(request)
    return {"planted": demo.planted} if demo and demo.planted and request.domain == demo.domain else {}


def _table(ready: Ready[AblateRequest, AblationPlan], collected: Collected) -> Table:
    request, plan = ready.request, ready.plan

    def column(name: str) -> np.ndarray:
        return np.asarray([clip.label(name) or "" for clip in plan.clips], dtype=str)

    units = [clip.label(request.units) or f"clip {clip.clip_id}" for clip in plan.clips]
    return Table(
        features=collected.features,
        answers=collected.logits.argmax(-1).numpy(),
        labels=plan.labels.labels,
        ids=np.asarray([clip.clip_id for clip in plan.clips]),
        task=column(request.task),
        domain=column(request.domain),
        units=np.asarray(units),
        train=plan.splits.train,
        id=plan.splits.id,
        ood=plan.splits.ood,
    )


def site_of(subject: Subject, text: str) -> Site:
    """The site that `pooled`, `resid_post:4` or `head_out:4:2` names; the pooled features unless given."""
    if not text:
        return Site("pooled") if "pooled" in subject.stages else Site("resid_post", subject.n_layers // 2)
    kind, *numbers = text.split(":")
    try:
        places = [int(number) for number in numbers]
    except ValueError as error:
        raise InterpError(f"site {text!r}: write pooled, resid_post:LAYER or head_out:LAYER:HEAD.") from error
    checked = check_kind(kind.strip())
    if checked not in STAGES and not places:
        raise InterpError(f"site {text!r} needs a layer: write {checked}:LAYER.")
    if len(places) > (2 if checked in OF_HEADS else 0 if checked in STAGES else 1):
        raise InterpError(f"site {text!r} has too many numbers: write pooled, resid_post:LAYER or head_out:LAYER:HEAD.")
    site = Site(checked, *places)
    subject.locate(site)
    return site


def _written(site: Site) -> str:
    if site.kind in STAGES:
        return site.kind
    return f"{site.kind}:{site.layer}" + ("" if site.head is None else f":{site.head}")


def _first(splits: Splits, most: int) -> Splits:
    if most < 4:
        raise InterpError(f"a pilot of {most} clips a split is too small to rank neurons; give 4 or more.")
    rows = [part[np.linspace(0, len(part) - 1, min(most, len(part))).round().astype(int)] for part in
            (splits.train, splits.id, splits.ood)]  # fmt: skip
    return Splits(rows[0], rows[1], rows[2], f"{splits.said}; a pilot of {most} clips of each")
