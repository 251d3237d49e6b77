"""Heads, blocks and stages as a person asks for them: the request, its run, and what is asked about one head."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from interp_core.data.clips import Clip
from interp_core.data.corpora import read_corpus
from interp_core.doors import heads_folder
from interp_core.errors import InterpError
from interp_core.experiments.heads import Drawn, HeadSettings, HeadsResult, draw, run_heads
from interp_core.experiments.heads_ablate import KINDS, Head, Task, ablate, patch
from interp_core.experiments.heads_capture import capture
from interp_core.experiments.heads_points import geometry_of
from interp_core.request import Asked, base_config
from interp_core.runs import RunWriter, open_run
from interp_core.trace.store import CleanStore

QUESTION = "What is this sound?"
CHOICES = ("max_clips", "skip_bad", "pilot", "part", "probe")
Progress = Callable[[int, int, str], None]


def _silent(done: int, total: int, note: str = "") -> None:
    """For those who do not watch."""


@dataclass(frozen=True)
class HeadsRequest(Asked):
    """A heads run. `pilot` takes so many clips of each class; `pt` writes the vectors as a torch file too."""

    settings: HeadSettings = field(default_factory=HeadSettings)
    pt: bool = False

    command: ClassVar[str] = "heads"

    @property
    def seed(self) -> int:
        return self.settings.seed

    def run(
        self, engine: Any, *, out: Path | None, resume: bool = False, progress: Progress | None = None
    ) -> HeadsResult:
        """Run, and keep the run in a folder if one is given; one that is finished is read back.

        Raises:
            InterpError: bad input, before anything is written.
        """
        ready = prepare(engine, self)
        if out is None:
            return ready.run(progress or _silent)
        with RunWriter.create(Path(out), ready.config, resume=resume) as writer:
            result = ready.run(progress or _silent)
            heads_folder.write(writer, result, pt=self.pt)
            writer.finish()
            return replace(result, config=writer.config)


@dataclass(frozen=True)
class Ready:
    """A request with everything opened and chosen, nothing computed yet."""

    request: HeadsRequest
    store: CleanStore
    drawn: Drawn
    config: Mapping[str, Any]

    def run(self, progress: Progress) -> HeadsResult:
        """Compute what was asked."""
        return run_heads(self.store, self.drawn, self.request.settings, self.config, progress=progress)

    @property
    def forwards(self) -> int:
        """Clips that go through the model, counted as often as they do."""
        geometry, kinds = geometry_of(self.store.subject), self.request.settings.ablate
        n = len(self.drawn.clips)
        extra = 1 + len(kinds) * sum(geometry.heads) + ("resample" in kinds) if kinds else 0
        return n * (1 + extra)

    def cost(self) -> str:
        """What the run will cost, from one timed clip, in a sentence."""
        import time

        first = self.drawn.clips[:1]
        capture(self.store, first, self.request.settings.prompt, batch_size=1)
        started = time.perf_counter()
        capture(self.store, first, self.request.settings.prompt, batch_size=1)
        seconds = self.forwards * (time.perf_counter() - started)
        said = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        counts = ", ".join(f"{name} {count}" for name, count in self.drawn.counts["drawn"].items())
        return f"{len(self.drawn.clips)} clips ({counts}): about {self.forwards} forward passes of a clip, {said}"


def prepare(engine: Any, request: HeadsRequest) -> Ready:
    """Open the model, read and choose the clips; InterpError says what is wrong with any of it."""
    store = engine.store(request)
    subject, settings = store.subject, request.settings
    geometry = geometry_of(subject)
    if subject.asks and not settings.prompt:
        demo = engine.demo(request.model)
        own = [text for _, text in demo.prompts] if demo is not None else []
        prompt = (own or [*subject.default_prompts, QUESTION])[0]
        settings = replace(settings, prompt=prompt)
    subject.check_prompt(settings.prompt)
    if request.pilot is not None:
        if request.pilot < 1:
            raise InterpError(f"a pilot of {request.pilot} clips of each class is none; give 1 or more.")
        settings = replace(settings, per_class=request.pilot)
    unknown = [kind for kind in settings.ablate if kind not in KINDS]
    if unknown:
        raise InterpError(f"unknown kind of ablation {', '.join(unknown)} (known: {', '.join(KINDS)}).")
    manifest = engine.manifest(request, store.limits)
    drawn = draw(manifest.clips, settings)
    config = {
        **base_config(request, subject, manifest, store.limits),
        "request": {name: getattr(request, name) for name in CHOICES} | {"pt": request.pt},
        "settings": asdict(request.settings),
        "prompt": settings.prompt,
        "geometry": {"stages": [[s.start, s.stop] for s in geometry.stages], "heads": list(geometry.heads)},
        "classes": {str(name): int(row["drawn"]) for name, row in drawn.counts.iterrows()},
        "available": {str(name): int(row["available"]) for name, row in drawn.counts.iterrows()},
        "grouped_by": drawn.grouped_by,
        "left_out": dict(drawn.left_out),
    }
    return Ready(replace(request, settings=settings), store, drawn, config)


@dataclass(frozen=True)
class HeadEffect(Asked):
    """What becomes of the answers without some heads, each alone; asked for on the page, kept in memory."""

    heads: tuple[Head, ...] = ()
    kinds: tuple[str, ...] = KINDS
    settings: HeadSettings = field(default_factory=HeadSettings)

    command: ClassVar[str] = "heads"

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def title(self) -> str:
        named = ", ".join(f"L{layer}H{head}" for layer, head in self.heads[:1])
        more = f" and {len(self.heads) - 1} more" if len(self.heads) > 1 else ""
        return f"Without {named}{more}: {Path(self.model).name}"

    def run(
        self, engine: Any, *, out: Path | None = None, resume: bool = False, progress: Progress | None = None
    ) -> pd.DataFrame:
        """Return the rows of `heads_ablate.ablate`."""
        ready = prepare(engine, as_heads(self))
        settings = ready.request.settings
        task = Task.of(ready.store, settings.prompt, ready.drawn.labels, ready.drawn.groups)
        size, clips = settings.batch_size, ready.drawn.clips
        vectors = capture(ready.store, clips, settings.prompt, batch_size=size) if "mean" in self.kinds else None
        return ablate(
            ready.store, clips, task, self.heads, self.kinds, vectors,
            batch_size=size, seed=self.seed, progress=progress or _silent,
        )  # fmt: skip


def as_heads(asked: Asked, settings: HeadSettings | None = None) -> HeadsRequest:
    """The heads request about the same model and clips as another request."""
    common = {one.name: getattr(asked, one.name) for one in fields(Asked)}
    own = settings if settings is not None else getattr(asked, "settings", None)
    return HeadsRequest(**common, settings=own if isinstance(own, HeadSettings) else HeadSettings())


def patch_head(engine: Any, request: HeadsRequest, recipient: Clip, donor: Clip, head: Head) -> pd.DataFrame:
    """Put one head's output on B in the place of its output on A: logits of every class before, after, and of B."""
    ready = prepare(engine, request)
    prompt = ready.request.settings.prompt
    task = Task.of(ready.store, prompt, ready.drawn.labels, None)
    return patch(ready.store, recipient, donor, head, task.labels, prompt)


def request_from(config: Mapping[str, Any]) -> HeadsRequest:
    """Return the request that a run's config came from."""
    if config.get("command") != "heads":
        raise InterpError(f"the config is one of {config.get('command')!r}; give that of a heads run.")
    try:
        settings = dict(config["settings"])
        listed = {name: tuple(settings[name]) for name in ("classes", "ablate")}
        return HeadsRequest(
            model=config["model"]["id"],
            manifest=config["manifest"]["path"],
            device=config["device"],
            dtype=config["dtype"],
            **config["request"],
            settings=HeadSettings(**settings | listed),
        )
    except (KeyError, TypeError) as error:
        raise InterpError(f"the config is not that of a heads run: {error} is missing or wrong.") from error


def open_heads(folder: Path) -> HeadsResult:
    """Read a finished heads run back."""
    run = open_run(folder)
    if run.command != "heads":
        raise InterpError(f"{folder} holds a {run.command} run; give the folder of a heads run.")
    if not run.finished:
        raise InterpError(f"the run in {folder} is not finished; go on with it (--resume).")
    return heads_folder.read(folder, run.config)


def manifest_of_corpus(root: Path, name: str, out: Path, *, skip_bad: bool = False) -> tuple[Path, Sequence[str]]:
    """Read a corpus as it lies on disk, and write its clips as a manifest into a folder.

    Returns:
        The manifest, and what a person should know about how the corpus was read.
    """
    corpus = read_corpus(name, root, skip_bad=skip_bad)
    out.mkdir(parents=True, exist_ok=True)
    corpus.clips.to_csv(out / "clips.csv", index=False)
    return out / "clips.csv", [*corpus.notes, *(f"left out: {row}" for row in corpus.skipped)]
