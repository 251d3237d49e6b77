"""Heads, blocks and stages as an experiment, and what is asked about one head."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from interp_core.choices import EMOTIONS, HEAD_EDITS, During
from interp_core.data.clips import Clip
from interp_core.data.relabel import as_answers, both_sides
from interp_core.engine import Engine
from interp_core.experiments.answers import low_mass
from interp_core.experiments.basis import of_labels
from interp_core.experiments.clips import ClipReader, check_question
from interp_core.experiments.cost import Cost
from interp_core.experiments.edited_words import left_out as errors_left_out
from interp_core.experiments.edited_words import said_of
from interp_core.experiments.experiment import Experiment, Ready
from interp_core.experiments.heads import files
from interp_core.experiments.heads.ablate import Head, Task, ablate, patch
from interp_core.experiments.heads.capture import capture
from interp_core.experiments.heads.cost import estimate
from interp_core.experiments.heads.points import geometry_of, has_heads
from interp_core.experiments.heads.request import HeadsRequest
from interp_core.experiments.heads.run import Drawn, HeadsResult, draw, run_heads
from interp_core.experiments.heads.words import clips_in_words, run_words
from interp_core.jobs import Job, Progress, silent
from interp_core.maths.stats import SIGNIFICANT
from interp_core.models.subject import Subject
from interp_core.sinks import Sink
from interp_core.sites import Kind
from interp_core.trace.generate import Row, Written, generate
from interp_core.trace.patch import HeadAblated

QUESTION = "What is this sound?"


class Heads(Experiment[HeadsRequest, Drawn, HeadsResult]):
    """See `Experiment`; the plan is the clips that were drawn."""

    request = HeadsRequest
    files = files

    def lacks(self, kinds: Collection[Kind], subject: type[Subject]) -> str | None:
        return None if has_heads(kinds) else "has no attention heads"

    def prepare(self, engine: Engine, request: HeadsRequest, progress: Progress = silent) -> Ready[HeadsRequest, Drawn]:
        request.check()
        store = engine.store(request, progress)
        subject = store.subject
        geometry = geometry_of(subject)
        found = request
        manifest = as_answers(engine.manifest(request, store.limits), subject.answers)
        drawn = draw(manifest.clips, found if request.pilot is None else replace(found, per_class=request.pilot))
        if subject.asks:
            demo = engine.demo(request.model)
            own = [text for _, text in demo.prompts] if demo is not None else []
            usual = (own or [*subject.prompts_for(sorted(set(drawn.labels))), QUESTION])[0]
            found = replace(found, prompt=request.prompt or usual)
            subject.check_prompt(found.prompt)
            if not (found.ablate or found.words):
                check_question(store, drawn.clips[0], found.prompt, usual, "give --ablate or --words with it")
        subject.check_prompt(found.prompt)
        if found.words:
            subject.check_writes()
        facts = {
            "prompt": found.prompt,
            "geometry": {"stages": [[s.start, s.stop] for s in geometry.stages], "heads": list(geometry.heads)},
            "classes": {str(name): int(row["drawn"]) for name, row in drawn.counts.iterrows()},
            "available": {str(name): int(row["available"]) for name, row in drawn.counts.iterrows()},
            "grouped_by": drawn.grouped_by,
            "left_out": dict(drawn.left_out),
        }
        left_out = [f"left out: {count} {what}" for what, count in drawn.left_out.items() if count]
        notes = list(left_out)
        low: tuple[str, ...] = ()
        if found.ablate:
            demo = engine.demo(request.model)
            words = (demo.labels if demo is not None else ()) or EMOTIONS
            task = Task.of(store, found.prompt, drawn.labels, drawn.groups, words)
            facts |= {"unanswered": both_sides(manifest.clips, found.label, subject.answers or task.labels.labels)}
            low = low_mass(ClipReader(store, found.prompt), drawn.clips, task.labels)
            notes += low
        if found.words:
            notes += errors_left_out(subject, clips_in_words(drawn, found))
        of_split = [said for said in left_out if "without a label" not in said]  # of_labels counts these
        rests_on = [*of_split, *of_labels(drawn.pool, found.label), *low]
        return Ready(request, found, engine, store, manifest, drawn, facts, tuple(notes), drawn.clips, rests_on)

    def cost(self, ready: Ready[HeadsRequest, Drawn]) -> Cost:
        return estimate(ready)

    def compute(self, ready: Ready[HeadsRequest, Drawn], sink: Sink, progress: Progress) -> HeadsResult:
        store, drawn, request = ready.store, ready.plan, ready.request
        made = run_heads(store, drawn, request, ready.config, sink=sink, progress=progress)
        return replace(made, words=run_words(store, drawn, made.points("head"), request, sink, progress))

    def summary(self, result: HeadsResult) -> Iterator[str]:
        for granularity, name in (("head", "heads"), ("block", "blocks"), ("stage", "stages or layers")):
            rows = result.points(granularity)
            sure = int((rows["p_adjusted"] < SIGNIFICANT).sum())
            best: dict[Any, Any] = max(rows.to_dict("records"), key=lambda row: row["fisher_f"])
            yield (
                f"{name}: {sure} of {len(rows)} beyond chance (adjusted p < {SIGNIFICANT}); the most at "
                f"{best['name']}, {best['fisher_f']:.2f} times what labels without meaning give"
            )
            partly = rows[rows["live_dims"] < rows["width"]] if "fisher_f_live" in rows else rows[:0]
            if len(partly) and partly["live_dims"].any():
                seen = partly[partly["live_dims"] > 0].to_dict("records")
                live: dict[Any, Any] = max(seen, key=lambda row: row["fisher_f_live"])
                yield (
                    f"{name}: {len(partly)} hold dimensions that never vary and count as 0; over the others alone, the "
                    f"most of these at {live['name']}: {live['fisher_f_live']:.2f} ({live['live_dims']} of "
                    f"{live['width']} vary)"
                )
        if result.config["settings"].get("words") and not len(result.words):
            yield "in words: nothing was written, as no head has a ratio (nothing varies in any of them)"
        yield from said_of(result.words, "head")


HEADS = Heads()


# ---- one head, asked for on the page and kept in memory -----------------------------------------------------------


@dataclass(frozen=True)
class HeadEffect:
    """What becomes of the answers without some heads, each alone."""

    request: HeadsRequest
    heads: tuple[Head, ...]
    kinds: tuple[str, ...] = HEAD_EDITS

    def key_in(self, engine: Engine) -> str:
        """Names the job."""
        return f"head-effect {engine.key_of(self.request)} {self.heads} {self.kinds}"

    @property
    def title(self) -> str:
        named = ", ".join(f"layer {layer}, head {head}" for layer, head in self.heads[:1])
        more = f" and {len(self.heads) - 1} more" if len(self.heads) > 1 else ""
        return f"Without {named}{more}: {Path(self.request.model).name}"


def effect_of(engine: Engine, effect: HeadEffect, progress: Progress = silent) -> pd.DataFrame:
    """Return the rows of `ablate` for the heads and kinds of an effect."""
    ready = HEADS.prepare(engine, replace(effect.request, ablate=effect.kinds))  # type: ignore[arg-type]
    request, clips = ready.request, ready.plan.clips
    task = Task.of(ready.store, request.prompt, ready.plan.labels, ready.plan.groups)
    size = request.batch_size
    vectors = capture(ready.store, clips, request.prompt, batch_size=size) if "mean" in effect.kinds else None
    return ablate(
        ready.store, clips, task, effect.heads, effect.kinds, vectors,
        batch_size=size, seed=request.seed, progress=progress,
    )  # fmt: skip


def start_effect(engine: Engine, effect: HeadEffect) -> Job[pd.DataFrame]:
    """Start it as a job; the same effect, asked twice, is one job."""
    return engine.jobs.submit(effect.key_in(engine), effect.title, lambda progress: effect_of(engine, effect, progress))


def answer_without(
    engine: Engine, request: HeadsRequest, clip: Clip, head: Head, *, n_tokens: int, during: During = "prefill"
) -> tuple[Written, Written]:
    """What a clip is answered in words: as it is, and with one head's output at zero; see `generate`."""
    ready = HEADS.prepare(engine, request.counting())
    prompted = ready.store.prompted(clip, ready.request.prompt)
    ablated = HeadAblated(*head, ready.store.subject.d_head_at(head[0]))
    own, without = generate(ready.store.subject, [Row(prompted), Row(prompted, (ablated,))], n_tokens, during=during)
    return own, without


def patch_head(engine: Engine, request: HeadsRequest, recipient: Clip, donor: Clip, head: Head) -> pd.DataFrame:
    """Put one head's output on B in the place of its output on A: logits of every class before, after, and of B."""
    ready = HEADS.prepare(engine, replace(request, ablate=HEAD_EDITS[:1]))
    task = Task.of(ready.store, ready.request.prompt, ready.plan.labels, None)
    return patch(ready.store, recipient, donor, head, task.labels, ready.request.prompt)
