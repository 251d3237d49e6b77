"""Sign flips as an experiment."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from interp_core.data.clips import Clip
from interp_core.data.columns import TASKS, column_of, units_of
from interp_core.data.relabel import as_answers, both_sides
from interp_core.engine import Engine
from interp_core.errors import InterpError
from interp_core.experiments.answers import head_labels, low_mass, question
from interp_core.experiments.basis import of_labels
from interp_core.experiments.clips import ClipReader
from interp_core.experiments.cost import Cost
from interp_core.experiments.experiment import Experiment, Ready
from interp_core.experiments.signflip import files
from interp_core.experiments.signflip.cost import estimate
from interp_core.experiments.signflip.layers import check_layers, check_subject, has_series
from interp_core.experiments.signflip.request import SignflipRequest
from interp_core.experiments.signflip.run import SignflipResult, run_signflip
from interp_core.jobs import Progress, silent
from interp_core.models.bundled import demo_of
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.sinks import Sink
from interp_core.sites import Kind


@dataclass(frozen=True)
class SignflipPlan:
    """The clips of a run, and what the head answers."""

    clips: tuple[Clip, ...]
    reader: ClipReader
    labels: LabelTokens


class Signflip(Experiment[SignflipRequest, SignflipPlan, SignflipResult]):
    """See `Experiment`."""

    request = SignflipRequest
    files = files

    def lacks(self, kinds: Collection[Kind], subject: type[Subject]) -> str | None:
        return None if has_series(subject) else "has no frames in time that stay in their places from block to block"

    def prepare(
        self, engine: Engine, request: SignflipRequest, progress: Progress = silent
    ) -> Ready[SignflipRequest, SignflipPlan]:
        request.check()
        store = engine.store(request, progress)
        subject = store.subject
        check_subject(subject)
        check_layers(subject, request.layers or ())
        manifest = engine.manifest(request, store.limits)
        classes = engine.corpus(request).classes if request.corpus else ()
        demo = demo_of(request.model)
        said = demo.task if demo is not None and request.manifest in (None, str(demo.manifest)) else ""
        task = column_of(manifest.clips, request.task or said, TASKS, "task")
        units = request.units or units_of(manifest.clips)
        prompt = request.prompt or question(subject, request.model, request.labels)
        values = {clip.label(task) for clip in manifest.clips} - {None}
        labels = head_labels(subject, request.labels or (demo.labels if demo else ()), prompt, values, classes)
        manifest = as_answers(manifest, labels.labels)
        clips = manifest.clips
        if request.pilot is not None:
            if request.pilot < 2:
                raise InterpError(f"a pilot of {request.pilot} clips cannot be halved; give 2 or more.")
            at = np.linspace(0, len(clips) - 1, min(request.pilot, len(clips))).round().astype(int)
            clips = tuple(clips[i] for i in sorted(set(at.tolist())))
        target = request.target or labels.labels[0]
        if target not in labels.labels:
            raise InterpError(f"target {target!r} is none of {', '.join(labels.labels)}.")
        found = replace(request, task=task, units=units, prompt=prompt, labels=labels.labels, target=target)
        rests_on = of_labels(clips, task, labels.labels)
        facts = {"unanswered": both_sides(clips, task, labels.labels)}
        plan = SignflipPlan(clips, ClipReader(store, prompt), labels)
        notes = low_mass(plan.reader, clips, labels)
        rests_on += notes
        return Ready(request, found, engine, store, manifest, plan, facts, notes, clips, rests_on)

    def cost(self, ready: Ready[SignflipRequest, SignflipPlan]) -> Cost:
        return estimate(ready.plan.reader, ready.plan.clips, ready.plan.labels, ready.request)

    def compute(self, ready: Ready[SignflipRequest, SignflipPlan], sink: Sink, progress: Progress) -> SignflipResult:
        plan = ready.plan
        return run_signflip(
            plan.reader, plan.clips, plan.labels, ready.request,
            config=ready.config, acoustics=ready.engine.acoustics, sink=sink, progress=progress,
        )  # fmt: skip

    def summary(self, result: SignflipResult) -> Iterator[str]:
        report = result.report
        measured, attributed = report["measured_on"], report["attributed_on"]
        yield (
            f"{report['topk']} of {report['width']} neurons of {report['target']!r}, attributed on "
            f"{attributed['clips']} clips by {report['head']} head, measured on {measured['clips']} "
            f"({measured['units']} of {measured['unit']})"
        )
        if zeros := sorted(set(result.changes[result.changes["by_construction"]]["proxy"])):
            yield f"0 by construction at the edited layer itself: {', '.join(zeros)}"
        for row in result.effects[result.effects["condition"] == "top"].to_dict("records"):
            yield (
                f"  layer {row['flipped']}: target probability {row['target_probability_change']:+z.3f} "
                f"(se {row['target_probability_change_se']:.3f}), {row['changed_rate']:.0%} of the answers change"
            )


SIGNFLIP = Signflip()
