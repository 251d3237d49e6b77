"""A sign-flip run as a person asks for it, as its config says it, and as its run folder keeps it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from interp_core.data.clips import Clip
from interp_core.data.manifest import Manifest
from interp_core.doors.ablate import head_labels, question, units_of
from interp_core.doors.ablate_clips import corpus_manifest
from interp_core.doors.signflip_folder import SignflipResult, read_result, write_result
from interp_core.errors import InterpError
from interp_core.experiments.ablation_site import Hearing
from interp_core.experiments.ablation_splits import TASKS, column_of
from interp_core.experiments.signflip import SignflipSettings, run_signflip
from interp_core.experiments.signflip_flow import check_subject
from interp_core.models.bundled import demos
from interp_core.models.labels import LabelTokens
from interp_core.models.subject import Subject
from interp_core.request import Asked, base_config
from interp_core.runs import RunWriter
from interp_core.trace.store import CleanStore

Progress = Callable[[int, int, str], None]
CHOICES = ("max_clips", "skip_bad", "pilot")
ASKED = ("task", "units", "labels", "prompt", "corpus")

__all__ = ["Ready", "SignflipRequest", "SignflipResult", "prepare", "read_result", "request_from_config"]


@dataclass(frozen=True)
class SignflipRequest(Asked):
    """A sign-flip run as a person asks for it; what is empty is found (see `prepare`).

    Attributes:
        task: the label column that accuracy is counted against, and that says which clips are of the target class.
        units: the column that is never divided between attribution and measuring.
        labels: of the head, as of `AblateRequest`.
        prompt: what a model is asked that is asked in words.
        corpus: the reader of `manifest`, which is then a corpus's folder.
        settings: of the flips.
    """

    task: str = ""
    units: str = ""
    labels: tuple[str, ...] = ()
    prompt: str = ""
    corpus: str = ""
    settings: SignflipSettings = field(default_factory=SignflipSettings)

    command: ClassVar[str] = "signflip"

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def title(self) -> str:
        return f"sign flips in {Path(self.model).name}"

    def run(
        self,
        engine: Any,
        *,
        out: Path | None,
        resume: bool = False,
        progress: Progress = lambda done, total, note: None,
        announce: Callable[[str], None] | None = None,
        prepared: "Ready | None" = None,
    ) -> SignflipResult:
        """Run it, and keep it in a folder if one is given; a run that was killed starts over.

        Args:
            announce: told what it will cost, before it starts.
            prepared: of the same request, if it is there already.
        Raises:
            InterpError: bad input, before anything is written.
        """
        ready = prepared or prepare(engine, self)
        config = run_config(ready)
        if announce is not None:
            announce(cost(ready))
        if out is None:
            return compute(engine, ready, config, progress)
        with RunWriter.create(Path(out), config, resume=resume) as writer:
            made = compute(engine, ready, writer.config, progress)
            write_result(writer, made)
            writer.finish()
            return replace(made, config=writer.config)


@dataclass(frozen=True)
class Ready:
    """A request with everything opened and checked, nothing computed yet; `request` has all that was found."""

    request: SignflipRequest
    manifest: Manifest
    clips: tuple[Clip, ...]
    hearing: Hearing
    labels: LabelTokens

    @property
    def subject(self) -> Subject:
        return self.hearing.subject


def prepare(engine: Any, request: SignflipRequest) -> Ready:
    """Open the model, read the clips, find the columns; every fault shows here."""
    request.settings.check()
    subject = engine.subject(request)
    check_subject(subject)
    store = CleanStore(subject, engine.cache, engine.limits)
    demo = demos().get(request.model)
    classes: tuple[str, ...] = ()
    if request.corpus:
        manifest, classes = corpus_manifest(engine, request)
    else:
        manifest = engine.manifest(request, store.limits)
    said = str(demo.about.get("task", "")) if demo is not None and request.manifest is None else ""
    task = column_of(manifest.clips, request.task or said, TASKS, "task")
    units = request.units or units_of(manifest.clips)
    clips = manifest.clips
    if request.pilot is not None:
        if request.pilot < 2:
            raise InterpError(f"a pilot of {request.pilot} clips cannot be halved; give 2 or more.")
        at = np.linspace(0, len(clips) - 1, min(request.pilot, len(clips))).round().astype(int)
        clips = tuple(clips[i] for i in sorted(set(at.tolist())))
    prompt = request.prompt or question(subject, request.model)
    values = {clip.label(task) for clip in manifest.clips} - {None}
    labels = head_labels(subject, request.labels or (demo.labels if demo else ()), prompt, values, classes)
    settings = replace(request.settings, target=request.settings.target or labels.labels[0])
    if settings.target not in labels.labels:
        raise InterpError(f"target {settings.target!r} is none of {', '.join(labels.labels)}.")
    found = replace(request, task=task, units=units, prompt=prompt, labels=labels.labels, settings=settings)
    return Ready(found, manifest, clips, Hearing(store, prompt), labels)


def compute(engine: Any, ready: Ready, config: Mapping[str, Any], progress: Progress) -> SignflipResult:
    """Attribution, flips, tables."""
    made = run_signflip(
        ready.hearing,
        ready.clips,
        ready.labels,
        ready.request.settings,
        task=ready.request.task,
        units=ready.request.units,
        acoustics=engine.acoustics,
        progress=progress,
    )
    return SignflipResult(dict(config), made.top, made.changes, made.effects, made.clips, made.links, made.report)


def cost(ready: Ready) -> str:
    """What a run takes, in a sentence, from one timed forward pass."""
    one = ready.hearing.ready(ready.clips[0])
    with torch.inference_mode():
        ready.hearing.answer([one])
        started = time.perf_counter()
        ready.hearing.answer([one])
    each, settings, n = time.perf_counter() - started, ready.request.settings, ready.subject.n_layers
    layers = range(n) if settings.layers is None else settings.layers
    later = sum(n - layer for layer in layers) / n
    passes = len(ready.clips) * (2 + (1 + settings.draws) * later / 2)
    return (
        f"{len(ready.clips)} clips: about {passes:.0f} forward passes, {passes * each:.0f} s at most, and the proxies"
    )


def run_config(ready: Ready) -> dict[str, Any]:
    """Everything that the run's config says."""
    request = ready.request
    return {
        **base_config(request, ready.subject, ready.manifest, ready.hearing.store.limits),
        "request": {name: getattr(request, name) for name in CHOICES}
        | {name: getattr(request, name) for name in ("part", "probe") if getattr(request, name)},
        "settings": {**{name: getattr(request, name) for name in ASKED}, **asdict(request.settings)},
    }


def request_from_config(config: Mapping[str, Any]) -> SignflipRequest:
    """Return the request that a run's config came from."""
    if config.get("command") != "signflip":
        raise InterpError(f"the config is one of {config.get('command')!r}; give that of a sign-flip run.")
    try:
        settings = dict(config["settings"])
        asked = {name: settings.pop(name) for name in ASKED}
        asked["labels"] = tuple(asked["labels"])
        layers = settings["layers"]
        return SignflipRequest(
            model=config["model"]["id"],
            manifest=config["manifest"]["path"],
            device=config["device"],
            dtype=config["dtype"],
            **config["request"],
            **asked,
            settings=SignflipSettings(**{**settings, "layers": None if layers is None else tuple(layers)}),
        )
    except (KeyError, TypeError) as error:
        raise InterpError(f"the config is not that of a sign-flip run: {error} is missing or wrong.") from error
