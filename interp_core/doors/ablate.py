"""A neuron ablation as a person asks for it, as its config says it, and as its run folder keeps it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from interp_core.data.clips import Clip
from interp_core.data.manifest import Manifest
from interp_core.doors.ablate_clips import corpus_manifest
from interp_core.doors.ablate_folder import AblationResult, read_result, write_result
from interp_core.errors import InterpError
from interp_core.experiments.ablation import SweepSettings, Table, run_sweep
from interp_core.experiments.ablation_behind import Behind, TailBehind, behind, impact
from interp_core.experiments.ablation_site import Collected, Hearing, collect
from interp_core.experiments.ablation_splits import DOMAINS, TASKS, Splits, column_of, split
from interp_core.experiments.flips import choose_cluster_column
from interp_core.experiments.plan import DEFAULT_PROMPT
from interp_core.models.audio_llm import AudioLLM
from interp_core.models.bundled import demos
from interp_core.models.labels import EMOTIONS, LabelTokens
from interp_core.models.subject import Subject
from interp_core.request import Asked, base_config
from interp_core.runs import RunWriter
from interp_core.sites import OF_HEADS, STAGES, Site, check_kind
from interp_core.trace.store import CleanStore

Progress = Callable[[int, int, str], None]
CHOICES = ("max_clips", "skip_bad", "pilot")
ASKED = ("at", "task", "domain", "train", "id", "ood", "units", "labels", "prompt", "draws", "corpus", "batch_size")
DRAWS_BEHIND_HEAD, DRAWS_IN_BLOCKS = 100, 10
UNITS = ("slide", "patient")


@dataclass(frozen=True)
class AblateRequest(Asked):
    """An ablation as a person asks for it; what is empty is found (see `prepare`).

    Attributes:
        at: the site: pooled, projection, resid_post:LAYER, head_out:LAYER:HEAD, …; the pooled features unless given.
        task, domain: label columns.
        train, id, ood: filters of the splits, as of `ablation_splits.split`.
        units: the column that intervals resample.
        labels: of the head, in the order of its classes, where they are not named as in the task column.
        prompt: what a model is asked that is asked in words.
        draws: random draws; None: 100 where only the head is behind the site, 10 where blocks are.
        corpus: the reader of `manifest`, which is then a corpus's folder.
        sweep: doses, kind, scores, refits, seed.
    """

    at: str = ""
    task: str = ""
    domain: str = ""
    train: str = ""
    id: str = ""
    ood: str = ""
    units: str = ""
    labels: tuple[str, ...] = ()
    prompt: str = ""
    draws: int | None = None
    corpus: str = ""
    batch_size: int = 8
    sweep: SweepSettings = field(default_factory=SweepSettings)

    command: ClassVar[str] = "ablate"

    @property
    def seed(self) -> int:
        return self.sweep.seed

    @property
    def title(self) -> str:
        return f"ablating neurons of {Path(self.model).name}"

    def run(
        self,
        engine: Any,
        *,
        out: Path | None,
        resume: bool = False,
        progress: Progress = lambda done, total, note: None,
        announce: Callable[[str], None] | None = None,
        prepared: "Ready | None" = None,
    ) -> AblationResult:
        """Run the ablation, and keep it in a folder if one is given; a run that was killed starts over.

        Args:
            announce: told what it will cost, before it starts.
            prepared: of the same request, if it is there already.
        Raises:
            InterpError: bad input, before anything is written, or labels that cannot be measured.
        """
        ready = prepared or prepare(engine, self)
        config = run_config(ready)
        if announce is not None:
            announce(cost(ready))
        if out is None:
            return compute(ready, config, progress)
        with RunWriter.create(Path(out), config, resume=resume) as writer:
            made = compute(ready, writer.config, progress)
            write_result(writer, made)
            writer.finish()
            return replace(made, config=writer.config)


@dataclass(frozen=True)
class Ready:
    """A request with everything opened and checked, nothing computed yet; `request` has all that was found."""

    request: AblateRequest
    manifest: Manifest
    clips: tuple[Clip, ...]
    splits: Splits
    hearing: Hearing
    site: Site
    labels: LabelTokens

    @property
    def subject(self) -> Subject:
        return self.hearing.subject


def resolve(request: AblateRequest) -> AblateRequest:
    """Fill in what a bundled demo says: its columns, splits, labels and question."""
    demo = demos().get(request.model)
    if demo is None or request.manifest not in (None, str(demo.manifest)):
        return request
    said = {name: str(demo.about.get(name, "")) for name in ("task", "domain")}
    filled = {name: getattr(request, name) or value for name, value in said.items()}
    if not (request.train or request.id or request.ood):
        filled |= {name: str(demo.about.get(name, "")) for name in ("train", "id", "ood")}
    return replace(request, **filled)  # type: ignore[arg-type]


def prepare(engine: Any, request: AblateRequest) -> Ready:
    """Open the model, read the clips, find columns and splits; every fault shows here."""
    request.sweep.check()
    request = resolve(request)
    subject = engine.subject(request)
    store = CleanStore(subject, engine.cache, engine.limits)
    classes: tuple[str, ...] = ()
    filters = {"train": request.train, "id": request.id, "ood": request.ood}
    if request.corpus:
        manifest, classes = corpus_manifest(engine, request)
        if all(text.startswith("center=") for text in (request.train, request.ood)):
            filters = {"train": "train", "id": "id_val", "ood": "ood"}  # the reader has made them
    else:
        manifest = engine.manifest(request, store.limits)
    task = column_of(manifest.clips, request.task, TASKS, "task")
    domain = column_of(manifest.clips, request.domain, DOMAINS, "domain")
    units = request.units or units_of(manifest.clips)
    splits = split(manifest.clips, domain, units, **filters)
    if request.pilot is not None:
        splits = _first(splits, request.pilot)
    site = site_of(subject, request.at)
    demo = demos().get(request.model)
    prompt = request.prompt or question(subject, request.model)
    asked = request.labels or (demo.labels if demo else ())
    labels = head_labels(subject, asked, prompt, {c.label(task) for c in manifest.clips} - {None}, classes)
    hearing = Hearing(store, prompt)
    used = tuple(manifest.clips[i] for rows in (splits.train, splits.id, splits.ood) for i in rows)
    ends = np.cumsum([0, len(splits.train), len(splits.id), len(splits.ood)])
    rows = [np.arange(ends[i], ends[i + 1]) for i in range(3)]
    splits = Splits(rows[0], rows[1], rows[2], splits.said)
    found = replace(
        request, task=task, domain=domain, units=units, at=_written(site), prompt=prompt, labels=labels.labels
    )
    return Ready(found, manifest, used, splits, hearing, site, labels)


def compute(ready: Ready, config: Mapping[str, Any], progress: Progress) -> AblationResult:
    """Features, then the sweep."""
    request = ready.request
    collected = collect(
        ready.hearing, ready.clips, ready.site, ready.labels, batch_size=request.batch_size, progress=progress
    )
    rest = behind(ready.hearing, collected, ready.site, ready.labels)
    weight = impact(ready.hearing, collected, rest, ready.site, ready.splits.train).double().numpy()
    table = _table(ready, collected)
    settings = replace(request.sweep, draws=_draws(request, rest))
    made = run_sweep(table, rest, weight, settings, progress=progress)
    report = {
        **made.report,
        "splits": ready.splits.said,
        "draws": settings.draws,
        "site": _written(ready.site),
        "labels": list(ready.labels.labels),
    }
    return AblationResult(dict(config), made.curve, made.scores, made.answers, report)


def _draws(request: AblateRequest, rest: Behind) -> int:
    if request.draws is not None:
        return request.draws
    return DRAWS_BEHIND_HEAD if isinstance(rest, TailBehind) else DRAWS_IN_BLOCKS


def _table(ready: Ready, collected: Collected) -> Table:
    def column(name: str) -> np.ndarray:
        return np.asarray([clip.label(name) or "" for clip in ready.clips], dtype=str)

    units = [clip.label(ready.request.units) or f"clip {clip.clip_id}" for clip in ready.clips]
    return Table(
        features=collected.features,
        answers=collected.logits.argmax(-1).numpy(),
        labels=ready.labels.labels,
        ids=np.asarray([clip.clip_id for clip in ready.clips]),
        task=column(ready.request.task),
        domain=column(ready.request.domain),
        units=np.asarray(units),
        train=ready.splits.train,
        id=ready.splits.id,
        ood=ready.splits.ood,
    )


def cost(ready: Ready) -> str:
    """What a run takes, in a sentence, from one timed forward pass."""
    one = ready.hearing.ready(ready.clips[0])
    with torch.inference_mode():
        ready.hearing.answer([one])
        started = time.perf_counter()
        ready.hearing.answer([one])
    each, n = time.perf_counter() - started, len(ready.clips)
    measured = len(ready.splits.id) + len(ready.splits.ood)
    doses = len(ready.request.sweep.ks)
    if ready.site.kind in STAGES and ready.site.kind != "mixed":
        return f"{n} clips: about {n} forward passes, {n * each:.0f} s, and the head and the probes on every set"
    draws = ready.request.draws or DRAWS_IN_BLOCKS
    left = (
        (ready.subject.n_layers - ready.site.layer) / ready.subject.n_layers if ready.site.kind not in STAGES else 1.0
    )
    passes = n + measured * (2 + (2 + 2 * draws) * doses * left)
    return f"{n} clips: about {passes:.0f} forward passes, {passes * each:.0f} s at most"


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


def head_labels(
    subject: Subject, asked: Sequence[str], prompt: str, task: set[str | None], classes: Sequence[str]
) -> LabelTokens:
    """The labels that the head answers, in its order.

    Args:
        asked: as a person or a demo names them; of a classifier, in the order of its classes.
        task: values of the task column. classes: of the corpus, in the order of its class numbers.
    """
    answers = subject.answers
    if isinstance(subject, AudioLLM) or not answers:
        return subject.labels(asked or EMOTIONS, prompt)
    for names in (asked, classes if not set(answers) & task else ()):
        if not names:
            continue
        if set(names) <= set(answers):
            break
        if len(names) != len(answers):
            raise InterpError(
                f"{subject.name} tells {len(answers)} classes apart ({', '.join(answers)}), but {len(names)} labels "
                f"are given ({', '.join(names)}); name all of them in the head's order (--labels)."
            )
        return LabelTokens(tuple(names), tuple(range(len(names))), {"classes": list(answers)})
    return subject.labels(answers, prompt)


def question(subject: Subject, model: str) -> str:
    """What a model is asked unless somebody says otherwise: a demo's first question, its own, or the default."""
    demo = demos().get(model)
    if not subject.asks:
        return ""
    if demo is not None and demo.prompts:
        return demo.prompts[0][1]
    return (subject.default_prompts or (DEFAULT_PROMPT,))[0]


def units_of(clips: Sequence[Clip]) -> str:
    """The column of what was really sampled: slide or patient where there is one, else text or speaker."""
    known = {name for clip in clips for name in clip.labels}
    return next((name for name in UNITS if name in known), choose_cluster_column(clips))


def _first(splits: Splits, most: int) -> Splits:
    if most < 4:
        raise InterpError(f"a pilot of {most} clips a split is too small to rank neurons; give 4 or more.")
    rows = [part[np.linspace(0, len(part) - 1, min(most, len(part))).round().astype(int)] for part in
            (splits.train, splits.id, splits.ood)]  # fmt: skip
    return Splits(rows[0], rows[1], rows[2], f"{splits.said}; a pilot of {most} clips of each")


def run_config(ready: Ready) -> dict[str, Any]:
    """Everything that the run's config says."""
    request = ready.request
    return {
        **base_config(request, ready.subject, ready.manifest, ready.hearing.store.limits),
        "splits": ready.splits.said,
        "request": {name: getattr(request, name) for name in CHOICES}
        | {name: getattr(request, name) for name in ("part", "probe") if getattr(request, name)},
        "settings": {
            **{name: getattr(request, name) for name in ASKED},
            **asdict(request.sweep),
            "draws": request.draws,
        },
    }


def request_from_config(config: Mapping[str, Any]) -> AblateRequest:
    """Return the request that a run's config came from."""
    if config.get("command") != "ablate":
        raise InterpError(f"the config is one of {config.get('command')!r}; give that of a neuron ablation.")
    try:
        settings = dict(config["settings"])
        asked = {name: settings.pop(name) for name in ASKED}
        asked["labels"] = tuple(asked["labels"])
        return AblateRequest(
            model=config["model"]["id"],
            manifest=config["manifest"]["path"],
            device=config["device"],
            dtype=config["dtype"],
            **config["request"],
            **asked,
            sweep=SweepSettings(**{**settings, "ks": tuple(settings["ks"])}),
        )
    except (KeyError, TypeError) as error:
        raise InterpError(f"the config is not that of a neuron ablation: {error} is missing or wrong.") from error


__all__ = ["AblateRequest", "AblationResult", "Ready", "prepare", "read_result", "request_from_config", "resolve"]
