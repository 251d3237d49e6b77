"""The run on show, of any experiment: computed by this server, kept in a folder, or shipped with a demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from components import server
from components.words import md
from interp_core.content import changed, unknown
from interp_core.data.manifest import check_inside
from interp_core.errors import InterpError
from interp_core.experiments import experiment_of
from interp_core.experiments.experiment import numbered, open_result
from interp_core.experiments.facts import made_at
from interp_core.experiments.result import Result
from interp_core.models.bundled import ASSETS, demo_of, demos
from interp_core.request import Request, short_name
from interp_core.runs import read_config, summarise

Source = Literal["job", "folder", "shipped"]


@dataclass(frozen=True, eq=False)
class Shown:
    """The run that a page shows, and where it came from.

    Attributes:
        key: names the result.
        result: of its experiment, with its config.
        source: computed by a job of this server, read from a folder, or shipped with a demo.
        folder: where its files lie, if anywhere.
        differences: settings in which it is not what is asked for now, in words.
    """

    key: str
    result: Any
    source: Source
    folder: Path | None = None
    differences: tuple[str, ...] = ()

    @property
    def config(self) -> Mapping[str, Any]:
        return self.result.config

    @property
    def command(self) -> str:
        return self.config["command"]

    @property
    def weights_hash(self) -> str:
        return str(self.config["model"]["weights_sha256"])

    @property
    def request(self) -> Any:
        """The request that repeats it, as its config says it."""
        return experiment_of(self.command).request.from_config(self.config)

    @property
    def made(self) -> str:
        """When it was made, to the minute; "" where that is not known."""
        return made_at(self.config)

    @property
    def name(self) -> str:
        """For a list of runs."""
        return " · ".join(filter(None, (short_name(str(self.config["model"]["id"])), self.made)))


def current(asked: Request, key: str = "") -> Shown | None:
    """The run to show for a request: of its job, of its folder below the runs folder, or shipped with the demo.

    Args:
        key: the engine's key of it, where it is known already.
    """
    key = key or server.engine().key_of(asked)
    job = server.engine().jobs.get(key)
    folders = kept_folders(asked, key)
    if job is not None and job.result is not None:
        return Shown(f"job {job.key}", job.result, "job", folders[0] if folders else None)
    for folder in folders:
        if (kept := _finished(folder, "folder")) is not None:
            return kept
    saved = shipped(asked)
    return None if saved is None else replace(saved, differences=tuple(asked.differences_from(saved.config)))


def kept_folders(asked: Request, key: str) -> list[Path]:
    """The folders of this very request below the runs folder, finished or not, the latest first.

    Args:
        key: the engine's key of it.
    """
    runs = server.runs_folder()
    if runs is None:
        return []
    return [*takewhile(Path.is_dir, numbered(runs / asked.folder_of(key)))][::-1]


def waits(folder: Path) -> bool:
    """Whether a run in a folder was begun, is not finished, and nobody is on it."""
    run = summarise(folder) if folder.is_dir() else None
    return run is not None and not (run.finished or run.busy or run.fault)


def shipped(asked: Request) -> Shown | None:
    """The saved run that ships with a demo, of just the models and the clips that are asked for."""
    demo = demo_of(asked.model)
    if demo is None or any(asked.adapters) or asked.corpus or asked.manifest not in (None, str(demo.manifest)):
        return None
    for folder in demo.saved_runs:
        saved = _finished(folder, "shipped")
        try:
            if saved is not None and saved.command == asked.command and _of_same_models(asked, saved.request):
                return saved
        except InterpError:  # a config of another version
            continue
    return None


def demos_with(command: str) -> list[str]:
    """The bundled models with a finished run of an experiment, by name; that which the experiment names comes first."""
    found = [name for name, demo in demos().items() if any(_is_of(folder, command) for folder in demo.saved_runs)]
    return sorted(found, key=lambda name: name != experiment_of(command).request.demo)


def _is_of(folder: Path, command: str) -> bool:
    try:
        config = read_config(folder)
        return bool(config.get("finished")) and config["command"] == command
    except InterpError:
        return False


def opened(folder: Path) -> Shown:
    """A finished run in any folder that may be read.

    Raises:
        InterpError: outside the folders that may be read, no run folder, not finished, or broken.
    """
    runs = server.runs_folder()
    check_inside(folder, [*server.roots(), *([runs] if runs else [])])
    config = read_config(folder)
    return _opened(folder, config["command"], "shipped" if folder.is_relative_to(ASSETS) else "folder")


def linked(name: str) -> Shown:
    """The run that a link names: the key of a job that holds its result, or a folder.

    Raises:
        InterpError: as `opened`.
    """
    job = server.engine().jobs.get(name)
    if job is not None and isinstance(job.result, Result):
        return Shown(f"job {job.key}", job.result, "job")
    return opened(Path(name))


def changed_since(shown: Shown, asked: Request) -> list[str] | None:
    """In which of its files the run on show was not made from those that are there now, by name; None where the clips
    cannot be read as they are now."""
    try:
        return changed(shown.config, server.engine().content(asked))
    except InterpError:
        return None


def origin(shown: Shown, *facts: str) -> str:
    """Where the run on show comes from, in a line of markdown; `facts` are further parts of it."""
    model = md(short_name(str(shown.config["model"]["id"])))
    told = {
        "job": "Computed by this server",
        "folder": f"From the run folder {md(shown.folder.name if shown.folder else '')}",
        "shipped": f"Saved run that ships with {model}, made by the command line",
    }[shown.source]
    return " · ".join([f"{told}{f' on {md(shown.made)}' if shown.made else ''}", *facts])


def sound(shown: Shown, weights: str, since: Sequence[str] | None) -> bool:
    """Whether nothing is known against the run on show; arguments as of `checked`."""
    return shown.weights_hash == weights and since is not None and not since


def checked(shown: Shown, weights: str, since: Sequence[str] | None) -> str:
    """Whether the run on show was made with the open model, from the files that are there now, as markdown.

    Args:
        weights: the hash of the model that is open.
        since: what has changed since, from `changed_since`.
    """
    if shown.weights_hash != weights:
        return "**Made with other weights than those open.**"
    same = "Weights checked: those of the open model"
    if since is None:
        return f"{same}; **its clips cannot be read now**."
    if since:
        return f"{same}, **but made from other files**."
    if missing := unknown(shown.config):
        return f"{same}; not known of {md(' and '.join(missing))}: it kept no digests."
    return f"{same}; settings, labels and recordings too."


def _finished(folder: Path, source: Source) -> Shown | None:
    """The run in a folder if it is complete and can be read."""
    try:
        config = read_config(folder)
        return _opened(folder, config["command"], source) if config.get("finished") else None
    except InterpError:
        return None


def _opened(folder: Path, command: str, source: Source) -> Shown:
    changed = max(path.stat().st_mtime_ns for path in folder.glob("*_config.json"))
    key = f"{folder} {changed}"
    return Shown(key, _read(key, command, str(folder)), source, folder)


@st.cache_resource(max_entries=8, show_spinner="Reading the run …")
def _read(key: str, command: str, folder: str) -> Any:
    return open_result(experiment_of(command), Path(folder))


def _of_same_models(asked: Request, made: Request) -> bool:
    wanted = {name: str(value) for name in ("model", "donor") if (value := getattr(asked, name, ""))}
    return all(_tail(value) == _tail(str(getattr(made, name))) for name, value in wanted.items())


def _tail(model: str) -> str:
    """A bundled name, or the end of a path below a demo: the same wherever the repository lies."""
    parts = Path(model).parts
    return str(Path(*parts[len(parts) - parts[::-1].index("assets") :])) if "assets" in parts else model
