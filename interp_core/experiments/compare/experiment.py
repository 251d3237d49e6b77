"""Comparing two models as an experiment."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from interp_core.content import FILES
from interp_core.data.relabel import as_answers, both_sides
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.answers import low_mass
from interp_core.experiments.basis import of_labels
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.compare import files
from interp_core.experiments.compare.cost import estimate
from interp_core.experiments.compare.parts import mix_refusal
from interp_core.experiments.compare.plan import ComparePlan, parts_report, plan_comparison
from interp_core.experiments.compare.report import undefined_before_onset
from interp_core.experiments.compare.request import CompareRequest
from interp_core.experiments.compare.run import Comparison, run_comparison
from interp_core.experiments.cost import Cost
from interp_core.experiments.experiment import Experiment, Ready
from interp_core.jobs import Progress, silent
from interp_core.models.bundled import demo_of
from interp_core.sinks import Sink


class Compare(Experiment[CompareRequest, ComparePlan, Comparison]):
    """See `Experiment`."""

    request = CompareRequest
    files = files

    def prepare(
        self, engine: Engine, request: CompareRequest, progress: Progress = silent
    ) -> Ready[CompareRequest, ComparePlan]:
        request.check()
        found = resolve(request)
        if request.pilot is not None and request.pilot < 4:
            raise InterpError(f"a pilot of {request.pilot} clips cannot be compared; give 4 or more.")
        engine.manifest_path(found)  # refused before two models are opened
        sides = zip(found.models, found.adapters, strict=True)
        base, donor = (engine.store(replace(found, model=model, adapter=of), progress) for model, of in sides)
        self.check_kind(base.subject)
        tightest = min((base, donor), key=lambda store: store.limits.max_seconds)
        manifest = as_answers(engine.manifest(found, tightest.limits), found.labels or base.subject.answers)
        clips = manifest.clips
        if request.pilot is not None and request.pilot < len(clips):
            at = np.linspace(0, len(clips) - 1, request.pilot).round().astype(int)
            clips = tuple(clips[i] for i in sorted(set(at.tolist())))
        plan = plan_comparison(base, donor, clips, found)
        check_settings(request, plan)
        other = donor.subject
        facts: dict[str, Any] = {
            "donor": {
                "id": found.donor,
                "type": other.config.model_type,
                "weights_sha256": other.weights_hash,
                FILES: dict(other.files),
                "n_layers": other.n_layers,
            },
            "clips_compared": len(clips),
        }
        low = low_mass(ClipReader(base, plan.task.prompt), clips, plan.task.labels)
        notes = (*plan.notes, *low)
        label, answers = plan.units.columns.label, plan.task.labels.labels
        facts |= {"unanswered": both_sides(clips, label, answers)}
        rests_on = of_labels(clips, label, answers, "leave no accuracy to give") if label else []
        basis = [plan.units.split, *rests_on, *low]
        return Ready(request, plan.settings, engine, base, manifest, plan, facts, notes, clips, basis)

    def cost(self, ready: Ready[CompareRequest, ComparePlan]) -> Cost:
        return estimate(ready.plan)

    def compute(self, ready: Ready[CompareRequest, ComparePlan], sink: Sink, progress: Progress) -> Comparison:
        plan = ready.plan
        transplants = plan.transplants([0.0] * plan.base.subject.n_layers)
        if not transplants:
            sink.gather()
        sink.json("identical_parts.json", parts_report(plan, transplants))
        return run_comparison(plan, ready.config, sink=sink, progress=progress)

    def summary(self, result: Comparison) -> Iterator[str]:
        onset, least = result.findings["onset"], result.findings["most_divergent"]
        doubt = undefined_before_onset(result.findings)
        yield (
            f"the models are alike at every layer{doubt}"
            if onset is None
            else f"the models part at layer {onset}{doubt}; least alike at layer {least}"
        )
        table = result.summary
        measure = next((name for name in ("eer", "accuracy") if name in table), None)
        shown = table[~table["reverse"].astype(bool) & ~table["chosen"].str.startswith(("each", "cumulative"))]
        for row in shown.to_dict("records"):
            value = "" if measure is None else f"{measure} {row[measure]:.1%}"
            moved = f"score moved by {row['score_change_mean']:.3g} on average" if row["mode"] else ""
            null = "null by construction" if row["null"] else ""
            yield f"  {row['model']:<28} " + "; ".join(filter(None, (value, moved, null)))


COMPARE = Compare()


def check_settings(request: CompareRequest, plan: ComparePlan) -> None:
    """Refuse settings that these two models and clips leave nothing to do for: InterpError."""
    refusal, domain = mix_refusal(plan.base.subject, plan.donor.subject), plan.units.columns.domain
    if refusal and not request.weights:
        raise InterpError(f"--no-weights means nothing here: {refusal}; leave it out.")
    if request.bonafide_index not in (None, plan.base.subject.bonafide_index) and not plan.units.scored:
        raise InterpError(
            "--bonafide-index means nothing here: the clips are not of two classes with a bona fide one; leave it out."
        )
    request.check_beside(replace(plan.settings, weights=not refusal and request.weights, domain=domain or "none"))


def resolve(request: CompareRequest) -> CompareRequest:
    """Fill in a bundled model's counterpart and clips, and what a demo is asked."""
    _, donor = request.models
    if not donor:
        raise InterpError(
            f"say what {request.model} is compared with (--donor MODEL, or --donor-adapter DIR for itself with an "
            "adapter): it has no bundled counterpart."
        )
    demo = demo_of(request.model)
    manifest = request.manifest or (str(demo.manifest) if demo is not None and not request.corpus else None)
    found = replace(request, donor=donor, manifest=manifest)
    if demo is not None and demo.name == request.model and demo.prompts:
        found = replace(found, prompt=found.prompt or demo.prompts[0][1], labels=found.labels or demo.labels)
    return found
