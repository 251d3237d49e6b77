"""Comparing two models as a person asks for it, as its config says it, and as its run folder keeps it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from interp_core.data.manifest import Manifest
from interp_core.doors.compare_folder import RecordSink, write_comparison
from interp_core.errors import InterpError
from interp_core.experiments.checks import CheckFailed
from interp_core.experiments.compare import Comparison, run_comparison
from interp_core.experiments.compare_ask import Question, ask, parts_report
from interp_core.experiments.compare_pass import answer, batches
from interp_core.experiments.compare_settings import CompareSettings, settings_dict, settings_from
from interp_core.models.bundled import demos
from interp_core.models.subject import Subject
from interp_core.request import Asked, base_config
from interp_core.runs import RunWriter
from interp_core.trace.store import CleanStore

Progress = Callable[[int, int, str], None]
CHOICES = ("max_clips", "skip_bad", "pilot")


@dataclass(frozen=True)
class CompareRequest(Asked):
    """A comparison as a person asks for it; `model` is the base.

    `donor` may be left empty for a bundled model that names its counterpart. `pilot` compares so many clips only,
    spread evenly over the manifest.
    """

    donor: str = ""
    settings: CompareSettings = field(default_factory=CompareSettings)

    command: ClassVar[str] = "compare"

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def title(self) -> str:
        return f"compare {_short(self.model)} with {_short(self.donor) if self.donor else 'its counterpart'}"

    def run(
        self,
        engine: Any,
        *,
        out: Path | None,
        resume: bool = False,
        progress: Progress = lambda done, total, note: None,
        announce: Callable[["Cost"], None] | None = None,
        prepared: "Ready | None" = None,
    ) -> Comparison:
        """Run the comparison, and keep it in a folder if one is given.

        Args:
            announce: told what it will cost, before it starts.
            prepared: of the same request, if it is there already.
        Raises:
            InterpError: bad input, before anything is written; CheckFailed after the checks' report is.
        """
        ready = prepared or prepare(engine, self)
        config = run_config(ready)
        if announce is not None:
            announce(cost(ready.question))
        if out is None:
            return run_comparison(ready.question, config, progress=progress)
        with RunWriter.create(Path(out), config, resume=resume) as writer:
            arms = ready.question.arms([0.0] * ready.question.base.subject.n_layers)
            writer.write_json("identical_parts.json", parts_report(ready.question, arms))
            sink = RecordSink(writer, ready.question)
            try:
                made = run_comparison(ready.question, writer.config, sink=sink, progress=progress)
            except CheckFailed as error:
                writer.write_json("sanity_check_self_patch.json", error.report["self_patch"])
                raise
            write_comparison(writer, made)
            writer.finish()
            return replace(made, config=writer.config)


@dataclass(frozen=True)
class Ready:
    """A request with everything opened and checked, nothing computed yet."""

    request: CompareRequest
    manifest: Manifest
    question: Question


@dataclass(frozen=True)
class Cost:
    """What a comparison takes: clips, forward passes, and seconds from one timed batch of each model."""

    clips: int
    forwards: int
    seconds: float

    def __str__(self) -> str:
        took = f"{self.seconds:.0f} s" if self.seconds < 120 else f"{self.seconds / 60:.0f} min"
        return f"{self.clips} clips: about {self.forwards} forward passes, {took}, and the domain probes"


@dataclass(frozen=True)
class Pair:
    """Two bundled models that are meant to be compared; `base` and `donor` are what `open_model` takes."""

    name: str
    base: str
    donor: str
    about: str = ""


def bundled_pairs() -> tuple[Pair, ...]:
    """The pairs that the bundled demos name, the first of each demo being its default.

    A demo's `compare` lists them: {name, base, donor, about}. Base and donor are names of demos, or files or folders
    below the demo's own folder. A demo with one pair may name its `counterpart` alone.
    """
    found = []
    for demo in demos().values():
        other = demo.about.get("counterpart")
        alone = [{"name": f"{demo.name} and {other}", "base": demo.name, "donor": other}] if other else []
        for pair in demo.about.get("compare", alone):
            base, donor = (_model_of(demo.folder, str(pair[side])) for side in ("base", "donor"))
            found.append(Pair(str(pair.get("name", "")), base, donor, str(pair.get("about", ""))))
    return tuple(found)


def pairs_of(model: str) -> tuple[Pair, ...]:
    """The bundled pairs that a bundled model belongs to, its demo's own first; of others it is the base in turn."""
    demo = demos().get(model)
    if demo is None:
        return ()

    def belongs(part: str) -> bool:
        return part == model or Path(part).is_relative_to(demo.folder)

    pairs = bundled_pairs()
    turned = [Pair(f"{p.name}, turned round", p.donor, p.base, p.about) for p in pairs if belongs(p.donor)]
    return (*(pair for pair in pairs if belongs(pair.base)), *turned)


def counterpart(model: str) -> str:
    """The donor that a bundled model is compared with unless somebody says otherwise; empty where there is none."""
    return next((pair.donor for pair in pairs_of(model) if pair.base == model), "")


def own_clips(model: str) -> Path | None:
    """The manifest of the demo that a model belongs to, by name or as a file below the demo's folder."""
    for demo in demos().values():
        if model == demo.name or Path(model).is_relative_to(demo.folder):
            return demo.manifest
    return None


def resolve(request: CompareRequest) -> CompareRequest:
    """Fill in a bundled model's counterpart and clips, and what a demo is asked."""
    donor = request.donor or counterpart(request.model)
    if not donor:
        raise InterpError(f"say what {request.model} is compared with (--donor MODEL): it has no bundled counterpart.")
    clips = own_clips(request.model)
    if request.manifest is None and clips is None:
        raise InterpError(f"{request.model} has no clips of its own; give a manifest (--manifest clips.csv).")
    settings, demo = request.settings, demos().get(request.model)
    if demo is not None and demo.prompts:
        settings = replace(
            settings, prompt=settings.prompt or demo.prompts[0][1], labels=settings.labels or demo.labels
        )
    return replace(request, donor=donor, manifest=request.manifest or str(clips), settings=settings)


def prepare(engine: Any, request: CompareRequest, progress: Progress = lambda done, total, note: None) -> Ready:
    """Open both models, read the clips, check everything; nothing is computed."""
    request = resolve(request)
    if request.pilot is not None and request.pilot < 4:
        raise InterpError(f"a pilot of {request.pilot} clips cannot be compared; give 4 or more.")
    stores = []
    for model in (request.model, request.donor):
        stores.append(CleanStore(engine.subject(replace(request, model=model), progress), engine.cache, engine.limits))
    base, donor = stores
    tightest = min(stores, key=lambda store: store.limits.max_seconds)
    manifest = engine.manifest(request, tightest.limits)
    clips = manifest.clips
    if request.pilot is not None and request.pilot < len(clips):
        at = np.linspace(0, len(clips) - 1, request.pilot).round().astype(int)
        clips = tuple(clips[i] for i in sorted(set(at.tolist())))
    question = ask(base, donor, clips, request.settings)
    return Ready(replace(request, settings=question.settings), manifest, question)


def cost(question: Question) -> Cost:
    """Estimate a comparison from one timed batch through each model."""
    first = next(batches(question.base, question.donor, question.clips, question.task.prompt, question.planned[:1]))
    spent = 0.0
    for store, given in ((question.base, first.base), (question.donor, first.donor)):
        answer(store.subject, given, question.task.labels)
        started = time.perf_counter()
        answer(store.subject, given, question.task.labels)
        spent += time.perf_counter() - started
    each = spent / 2 / len(first.rows)
    return Cost(len(question.clips), question.forwards, question.forwards * each)


def run_config(ready: Ready) -> dict[str, Any]:
    """Everything that the run's config says."""
    request, question = ready.request, ready.question
    donor: Subject = question.donor.subject
    return {
        **base_config(request, question.base.subject, ready.manifest, question.base.limits),
        "donor": {
            "id": request.donor,
            "type": donor.config.model_type,
            "weights_sha256": donor.weights_hash,
            "n_layers": donor.n_layers,
        },
        "clips_compared": len(question.clips),
        "request": {name: getattr(request, name) for name in CHOICES}
        | {name: getattr(request, name) for name in ("part", "probe") if getattr(request, name)},
        "settings": settings_dict(question.settings),
    }


def request_from_config(config: Mapping[str, Any]) -> CompareRequest:
    """Return the request that a run's config came from."""
    if config.get("command") != "compare":
        raise InterpError(f"the config is one of {config.get('command')!r}; give that of a comparison.")
    try:
        return CompareRequest(
            model=config["model"]["id"],
            manifest=config["manifest"]["path"],
            device=config["device"],
            dtype=config["dtype"],
            **config["request"],
            donor=config["donor"]["id"],
            settings=settings_from(config["settings"]),
        )
    except (KeyError, TypeError) as error:
        raise InterpError(f"the config is not that of a comparison: {error} is missing or wrong.") from error


def _model_of(folder: Path, named: str) -> str:
    return named if named in demos() else str((folder / named).resolve())


def _short(model: str) -> str:
    path = Path(model)
    return "/".join(path.parts[-2:]) if path.suffix else path.name
