"""Probes as an experiment."""

from collections.abc import Iterator
from dataclasses import replace

from interp_core.data.relabel import as_answers
from interp_core.engine import Engine
from interp_core.experiments.answers import question
from interp_core.experiments.basis import of_labels
from interp_core.experiments.clips import ClipReader, check_question
from interp_core.experiments.cost import Cost
from interp_core.experiments.experiment import Experiment, Ready
from interp_core.experiments.probes import files, tables
from interp_core.experiments.probes.cost import estimate
from interp_core.experiments.probes.plan import ProbesPlan, plan_probes
from interp_core.experiments.probes.request import ProbesRequest
from interp_core.experiments.probes.run import ProbesResult, run_probes
from interp_core.jobs import Progress, silent
from interp_core.models.subject import Subject
from interp_core.sinks import Sink


class Probes(Experiment[ProbesRequest, ProbesPlan, ProbesResult]):
    """See `Experiment`."""

    request = ProbesRequest
    files = files

    def prepare(
        self, engine: Engine, request: ProbesRequest, progress: Progress = silent
    ) -> Ready[ProbesRequest, ProbesPlan]:
        request.check()
        store = engine.store(request, progress)
        subject = store.subject
        self.check_kind(subject)
        manifest = as_answers(engine.manifest(request, store.limits), subject.answers)
        prompt = asked_of(subject, request)
        subject.check_prompt(prompt)
        plan = plan_probes(subject, manifest.clips, request)
        if all(point.place == "mean" for point in plan.points):
            usual = question(subject, request.model)
            check_question(store, plan.clips[0], prompt, usual, "read the last position too (--places)")
        columns = tuple(target.name for target in plan.targets if target.is_label)
        places = tuple(dict.fromkeys(point.place for point in plan.points))
        layers = tuple(sorted({point.layer for point in plan.points}))
        found = replace(request, prompt=prompt, columns=columns, places=places, layers=layers)
        plan = replace(plan, settings=found)
        facts = {
            "prompt": prompt,
            "targets": {
                target.name: {
                    "is_label": target.is_label,
                    "clips": len(target.rows),
                    "unit": target.unit,
                    "units": len(set(target.units)),
                    "classes": {name: target.labels.count(name) for name in sorted(set(target.labels))},
                }
                for target in plan.targets
            },
            "classes_left_out": {target.name: target.left_out for target in plan.targets if target.left_out},
            "left_out": dict(plan.left_out),
            **({"read_directly": [subject.n_layers - 1]} if subject.by_construction else {}),
        }
        rests_on = [f"left out: {count} {what}" for what, count in plan.left_out.items() if count]
        rests_on += [f"of {target.name}, left out: {target.left_out}" for target in plan.targets if target.left_out]
        rests_on += [said for name in columns for said in of_labels(plan.clips, name)]
        return Ready(request, found, engine, store, manifest, plan, facts, tuple(rests_on), plan.clips, rests_on)

    def cost(self, ready: Ready[ProbesRequest, ProbesPlan]) -> Cost:
        return estimate(ClipReader(ready.store, ready.request.prompt), ready.plan)

    def compute(self, ready: Ready[ProbesRequest, ProbesPlan], sink: Sink, progress: Progress) -> ProbesResult:
        reader = ClipReader(ready.store, ready.request.prompt)
        return run_probes(reader, ready.plan, ready.config, sink=sink, progress=progress)

    def summary(self, result: ProbesResult) -> Iterator[str]:
        yield from result.remarks()
        yield from tables.summary(result.table)


PROBES = Probes()


def asked_of(subject: Subject, request: ProbesRequest) -> str:
    """What the model is asked."""
    return request.prompt or question(subject, request.model)
