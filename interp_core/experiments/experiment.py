"""The one protocol of experiments, and the one way to run them.

An experiment is five things: `prepare` opens and checks everything that a request names, `compute` does the work chunk
by chunk, `write` and `read` turn the result into files and back, `summary` says it in words. `run` and `start` are
written once, here, and give every experiment the rest: checks before anything is written, cost before it starts,
progress, cancelling, going on with a run that was killed, and reading back one that is finished.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from interp_core.content import FILES, SIDES, changed, clips_entry, unknown
from interp_core.data.clips import Clip
from interp_core.data.manifest import Manifest
from interp_core.engine import Engine
from interp_core.errors import CheckFailed, InterpError
from interp_core.experiments.basis import of_clips
from interp_core.experiments.cost import Cost
from interp_core.experiments.result import Result
from interp_core.experiments.versions import VERSIONS
from interp_core.jobs import Job, Progress, silent
from interp_core.models.subject import Subject
from interp_core.options import to_config
from interp_core.prepared import Prepared, current, preparing
from interp_core.request import IN_OTHER_PLACES, Request
from interp_core.resuming import of_a_run, resumable
from interp_core.runs import RunWriter, check_written, read_config
from interp_core.sinks import FolderSink, MemorySink, Sink, Watched, prepared_in
from interp_core.sites import Kind
from interp_core.trace.store import CleanStore

Q = TypeVar("Q", bound=Request)
P = TypeVar("P")
R = TypeVar("R", bound=Result)
SHARD = "shard"
"""The entry of a config that says which shard it is: "2/8"."""


@dataclass(frozen=True, eq=False)
class Ready(Generic[Q, P]):
    """A request with everything opened and checked, nothing computed yet.

    Attributes:
        asked: the request as it came. request: the same with all that was found: columns, labels, question, site.
        store: decodes clips for the model, and keeps its clean runs.
        manifest: the clips. plan: what the experiment will do.
        facts: what the run's config says beside the settings, the model and the clips.
        notes: what a person has to know before it runs, in sentences.
        used: the clips that the run works on; none for all. basis: what else its numbers rest on; see `basis`.
        prepared: what was computed for it, which its folder keeps.
    """

    asked: Q
    request: Q
    engine: Engine
    store: CleanStore
    manifest: Manifest
    plan: P
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    used: tuple[Clip, ...] = ()
    basis: Sequence[str] = ()
    prepared: Prepared = field(default_factory=current)

    def __post_init__(self) -> None:
        self.asked.check_beside(self.request)

    @property
    def config(self) -> dict[str, Any]:
        """Everything that the run's config says, before it is written."""
        request, subject, manifest = self.request, self.store.subject, self.manifest
        demo = self.engine.demo(request.model)
        bundled = demo is not None and not request.corpus and request.manifest in (None, str(demo.manifest))
        settings = {name: value for name, value in to_config(request).items() if name not in IN_OTHER_PLACES}
        settings["max_seconds"] = self.engine.limits(request).max_seconds  # another engine may have another limit
        return {
            "command": request.command,
            "model": {
                "id": request.model,
                "type": subject.config.model_type,
                "weights_sha256": subject.weights_hash,
                FILES: dict(subject.files),
                "n_layers": subject.n_layers,
                "n_heads": subject.n_heads,
                "d_model": subject.d_model,
                "seconds_per_position": subject.seconds_per_position(),
                **({"probe": subject.probe.report} if subject.probe is not None else {}),
            },
            "device": str(subject.device),
            "dtype": subject.precision,
            "manifest": {
                "path": None if bundled else request.manifest,  # the same on every machine
                "sha256": manifest.digest,
                "clips": len(manifest.clips),
                **clips_entry(manifest.digests),
            },
            "clip_seconds": {"min": self.store.limits.min_seconds, "max": self.store.limits.max_seconds},
            "skipped_rows": [asdict(row) for row in manifest.skipped],
            "rests_on": [*of_clips(manifest, self.used or manifest.clips), *self.basis],
            **self.facts,
            "asked": to_config(self.asked, given_only=True),
            "settings": settings,
            "versions": dict(VERSIONS),
        }


class Files(Protocol[R]):
    """A module that turns a finished run into files and back."""

    def write(self, writer: RunWriter, result: R, /) -> None: ...

    def read(self, folder: Path, config: Mapping[str, Any], /) -> R: ...


class Experiment(Generic[Q, P, R]):
    """What an experiment has to be; see the module. One without `files` writes and reads its folder itself."""

    request: type[Q]
    files: Files[R]

    def lacks(self, kinds: Collection[Kind], subject: type[Subject]) -> str | None:
        """What models with these sites that are opened as `subject` lack for this, behind their name; None: nothing."""
        return "sees pictures and hears no recording" if subject.takes == "pictures" else None

    def check_kind(self, subject: Subject) -> None:
        """Refuse a model of a kind that lacks something: InterpError."""
        if (lack := self.lacks(subject.kinds, type(subject))) is not None:
            raise InterpError(f"{subject.name} {lack}.")

    def prepare(self, engine: Engine, request: Q, progress: Progress = silent) -> Ready[Q, P]:
        """Open and check everything that a request names.

        Raises:
            InterpError: whatever is wrong with it; nothing has been computed then, and nothing is written.
        """
        raise NotImplementedError

    def cost(self, ready: Ready[Q, P]) -> Cost:
        """What the run will take, from one timed pass."""
        raise NotImplementedError

    def compute(self, ready: Ready[Q, P], sink: Sink, progress: Progress) -> R:
        """Do the work; chunks that the sink has already are not computed again.

        Args:
            progress: called with (done, total, note); may raise to cancel.
        """
        raise NotImplementedError

    def write(self, writer: RunWriter, result: R) -> None:
        """Write everything but the config and what the sink has kept."""
        self.files.write(writer, result)

    def read(self, folder: Path, config: Mapping[str, Any]) -> R:
        """Read a finished run back. Errors: InterpError for files that are missing or broken."""
        return self.files.read(folder, config)

    def summary(self, result: R) -> Iterator[str]:
        """What the command prints at the end, a line at a time."""
        raise NotImplementedError

    def requests(self, engine: Engine, request: Q, say: Callable[[str], None]) -> Mapping[str, Q]:
        """The runs that a request stands for, by the folder below the run's own; one, in the folder itself, for most.

        Args:
            say: told what a choice among them rests on.
        """
        return {"": request}


def run(
    experiment: Experiment[Q, P, R],
    engine: Engine,
    request: Q,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
    announce: Callable[[str], None] | None = None,
    ready: Ready[Q, P] | None = None,
    watched: Watched | None = None,
) -> R:
    """Run a request, and keep it in a folder if one is given.

    Args:
        out: the run folder, written as the run goes.
        resume: go on with the run that is in the folder: what is done is not computed again, and a run that is
            finished is read back.
        progress: called with (done, total, note); may raise to cancel.
        announce: told what the run will cost, before it starts; None: it is not estimated.
        ready: of the same request, if it is there already.
        watched: given what the run shows while it goes on.
    Raises:
        InterpError: bad input, before anything is written; CheckFailed after the checks' reports are.
    """
    if ready is None and out is not None and resume:
        done = finished(experiment, engine, request, out)
        if done is not None:
            return done
    ready = ready or prepare(experiment, engine, request, out if resume else None, progress)
    config = ready.config
    if out is None:
        if announce is not None:
            announce(str(experiment.cost(ready)))
        return experiment.compute(ready, MemorySink(watched), progress)
    with RunWriter.create(Path(out), config, request.config_file, resume=resume) as writer:
        if writer.was_finished:
            return _read(experiment, writer.folder, writer.config)
        sink = FolderSink(writer, watched)
        sink.keep_prepared(ready.prepared.values)
        try:
            if announce is not None:
                announce(str(experiment.cost(ready)))
            result = experiment.compute(ready, sink, progress)
        except CheckFailed:
            raise  # its reports are there to be read
        except InterpError:
            if not sink.holds_any:
                sink.forget_prepared()
                writer.abandon()
            raise
        experiment.write(writer, result)
        sink.clear()
        writer.finish()
        return replace(result, config=writer.config)


def prepare(
    experiment: Experiment[Q, P, R],
    engine: Engine,
    request: Q,
    folder: Path | None = None,
    progress: Progress = silent,
) -> Ready[Q, P]:
    """Prepare a request; what an unfinished run in `folder` has computed for that is not computed again."""
    with preparing({} if folder is None else prepared_in(folder)):
        return experiment.prepare(engine, request, progress)


def finished(experiment: Experiment[Q, P, R], engine: Engine, request: Q, folder: Path) -> R | None:
    """The finished run in a folder, where its config says that it is what is asked, of files that hold the same now.

    Returns:
        None where there is none, or where only a preparation can tell: nothing is opened here.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir() or request.config_file not in of_a_run(folder):
        return None
    if any(request.value_of(name) for name in request.file_fields):
        return None
    config = read_config(folder)
    if not config.get("finished") or config.get(SHARD) or unknown(config) or not request.is_that_of(config):
        return None
    for name, adapter in zip(request.models, request.adapters, strict=False):
        engine.check_model(name, adapter)
    now = engine.content(request)
    known = all(now[side][FILES] and config.get(side, {}).get(FILES) for side in SIDES if side in now)
    same_limit = config["settings"].get("max_seconds") == engine.limits(request).max_seconds
    return _read(experiment, folder, config) if known and same_limit and not changed(config, now) else None


def start(
    experiment: Experiment[Q, P, R],
    engine: Engine,
    request: Q,
    runs: Path | None = None,
    runner: Callable[..., R] = run,
) -> Job[R]:
    """Check a request and start it as a job; the same request, asked twice, is one job.

    Args:
        runs: the folder in which its run folder is made; None: it is kept in memory alone.
        runner: what is called to run it, as `run` is.
    Raises:
        InterpError: whatever is wrong with it.
    """
    key = engine.key_of(request)
    known = engine.jobs.get(key)
    if known is not None and (known.status == "done" or (known.active and not known.cancel_requested)):
        return known
    usual = None if runs is None else runs / request.folder_of(key)
    ready = prepare(experiment, engine, request, usual)
    out = None if usual is None else free_folder(experiment, usual, ready.config)

    return _submit(engine, request, key, out, partial(runner, experiment, engine, request, ready=ready))


def _submit(engine: Engine, request: Request, key: str, out: Path | None, runner: Callable[..., R]) -> Job[R]:
    watched = Watched()

    def work(progress: Progress) -> R:
        return runner(out=out, resume=True, progress=progress, watched=watched)

    return engine.jobs.submit(key, request.title, work, so_far=watched, place=out)


def numbered(folder: Path) -> Iterator[Path]:
    """A run folder and those that stand in for it where it cannot be gone on with: `name`, `name.2`, `name.3`, …"""
    yield folder
    yield from (folder.with_name(f"{folder.name}.{number}") for number in count(2))


def free_folder(experiment: Experiment[Q, P, R], folder: Path, config: Mapping[str, Any]) -> Path:
    """The first of `numbered` in which a run of this config can be begun or gone on with, or read if it is finished.

    A damaged one, or one of other files or settings, is left as it is: nobody who presses Run could name another.
    """
    for one in numbered(folder):
        try:
            if not one.exists():
                return one
            if resumable(one, config, experiment.request.config_file).get("finished"):
                open_result(experiment, one)
            return one
        except InterpError:
            continue
    raise AssertionError("there is always a further number")


def resume_folder(
    experiment: Experiment[Q, P, R], engine: Engine, folder: Path, runner: Callable[..., R] = run
) -> Job[R]:
    """Go on with the unfinished run in a folder, as a job; asked twice, it is one job.

    Raises:
        InterpError: no run of this experiment, or whatever is wrong with what its config asks for.
    """
    config = read_config(folder)
    request = experiment.request.from_config(config)
    key = resume_key(folder, config)
    known = engine.jobs.get(key)
    if known is not None and known.active and not known.cancel_requested:
        return known
    ready = prepare(experiment, engine, request, folder)

    return _submit(engine, request, key, folder, partial(runner, experiment, engine, request, ready=ready))


def resume_key(folder: Path, config: Mapping[str, Any]) -> str:
    """Names the job that goes on with the run in a folder."""
    named = f"{Path(folder).resolve()} {config.get('created')}"
    return f"resume-{hashlib.sha256(named.encode()).hexdigest()[:16]}"


def open_result(experiment: Experiment[Q, P, R], folder: Path) -> R:
    """Read a finished run folder back.

    Raises:
        InterpError: no run folder, one of another experiment, one that is not finished or that is broken.
    """
    config = read_config(folder)
    if config["command"] != experiment.request.command:
        raise InterpError(
            f"{folder} holds a run of {config['command']!r}; give the folder of a {experiment.request.command!r} run."
        )
    if config.get(SHARD):
        raise InterpError(f"{folder} is shard {config['shard']} of a run; open what `merge` makes of all of them.")
    if not config.get("finished"):
        raise InterpError(f"the run in {folder} is not finished; go on with it (--resume).")
    return _read(experiment, Path(folder), config)


def _read(experiment: Experiment[Q, P, R], folder: Path, config: Mapping[str, Any]) -> R:
    """Read a folder, and look once at all that is made of it: what is damaged shows here, and not on a page."""
    check_written(folder, config)
    try:
        result = experiment.read(folder, config)
        if next(iter(result.tables().values())).empty:
            raise InterpError(f"{folder} cannot be read: its first table holds no row; restore it or run again.")
        for _ in (repr(result), result.profile(), *experiment.summary(result)):
            pass
        return result
    except InterpError:
        raise
    except Exception as error:  # a damaged file may raise anything that its reader did not think of
        said = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else 'broken'}"
        raise InterpError(f"{folder} cannot be read ({said}); restore it or run again.") from error
