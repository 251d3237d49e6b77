"""Every run that is at hand, of every registered experiment, as the lines of one table; and what may be done with each.

A run is read in memory, in a folder, or with a demo; a folder that cannot be read is a line that says so.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from components import server
from components import shown as shown_runs
from components.clips import owner
from components.shown import Shown
from interp_core import experiments
from interp_core.data.manifest import check_inside
from interp_core.errors import InterpError
from interp_core.experiments.result import Result
from interp_core.jobs import Job
from interp_core.models import bundled
from interp_core.options import in_words
from interp_core.request import IN_OTHER_PLACES, Request, short_name
from interp_core.runs import RunSummary, find_runs, summarise

State = Literal["finished", "unfinished", "running", "damaged"]
STATES: tuple[State, ...] = ("finished", "unfinished", "running", "damaged")
IN_MEMORY, RUNS_FOLDER, SHIPPED = "in memory", "runs folder", "shipped"
MOST_FOLDERS = 20_000
"""How many folders below one that is typed are looked into."""
LONGEST_VALUE = 48
NOT_ASKED = {*IN_OTHER_PLACES, "donor", "max_seconds"}
"""Settings that the other columns say, or that the server decides."""


@dataclass(frozen=True, eq=False)
class Row:
    """One run.

    Attributes:
        name: of the run in the URL: its folder, or the key of its job.
        made: when it was finished, or else begun, to the minute in UTC; "" where that is not known.
        asked: the settings that are not at their default, in short.
        source: where it comes from, for a person.
        folder: where its files lie, if anywhere. job: that holds its result, if one does.
        config: as it was read. fault: why it cannot be read.
    """

    name: str
    command: str
    model: str
    asked: str
    made: str
    state: State
    source: str
    notes: str = ""
    folder: Path | None = None
    job: Job[Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""

    @property
    def title(self) -> str:
        """In a heading."""
        return " · ".join(filter(None, (self.command, self.model, self.made)))

    @property
    def label(self) -> str:
        """In a list of runs of one experiment; no two runs share one."""
        return " · ".join(filter(None, (self.model, self.made, self.folder.name if self.folder else self.name)))

    @property
    def ships(self) -> bool:
        """Whether it came with Patchbay."""
        return self.folder is not None and _below(self.folder, bundled.ASSETS)

    @property
    def writable(self) -> bool:
        """Whether it lies below the runs folder, the only place where the dashboard writes."""
        runs = server.runs_folder()
        return self.folder is not None and runs is not None and _below(self.folder, runs) and not self.ships

    def opened(self) -> Shown:
        """The run with its result. Errors: InterpError where it is not finished or cannot be read."""
        if self.fault:
            raise InterpError(self.fault)
        if self.folder is not None:
            return shown_runs.opened(self.folder)
        assert self.job is not None
        return Shown(f"job {self.job.key}", self.job.result, "job")


def every(also: Path | None = None) -> list[Row]:
    """Every run, the newest first.

    Args:
        also: a further folder that was typed, from `folder_of`.
    Raises:
        InterpError: the folder holds too many others.
    """
    rows: dict[str, Row] = {}
    runs = server.runs_folder()
    for one in _found(runs, None) if runs else ():
        _add(rows, one, RUNS_FOLDER)
    for demo in bundled.demos().values():
        for folder in demo.saved_runs:
            if (summary := summarise(folder)) is not None:
                _add(rows, summary, SHIPPED)
    for one in _found(also, MOST_FOLDERS) if also else ():
        _add(rows, one, f"folder {also.name if also else ''}")
    kept = {_identity(row.config) for row in rows.values() if row.folder is not None}
    for row in _in_memory():
        if row.config.get("created") is None or _identity(row.config) not in kept:
            rows[row.name] = row
    seen = [row for row in rows.values() if owner.may_see(_manifest_of(row.config))]
    return sorted(seen, key=lambda row: (row.made, row.name), reverse=True)


def _manifest_of(config: Mapping[str, Any]) -> str:
    found = config.get("manifest")
    return str(found.get("path") or "") if isinstance(found, Mapping) else ""


def folder_of(typed: str) -> Path | None:
    """The folder that a person typed, or a link named; None for none.

    Raises:
        InterpError: outside the folders that may be read, whatever is or is not there; or no folder.
    """
    typed = typed.strip()
    if not typed:
        return None
    folder = Path(typed).expanduser() if typed == "~" or typed.startswith("~/") else Path(typed)
    runs = server.runs_folder()
    check_inside(folder, [*server.roots(), *([runs] if runs else [])])
    if not folder.is_dir():
        raise InterpError(f"{folder} is no folder; name one that holds runs.")
    return folder.resolve()


def matching(
    rows: Iterable[Row], *, of: Collection[str], models: Collection[str], states: Collection[str], text: str
) -> list[Row]:
    """The rows that every filter lets through; an empty filter lets all through, and text is sought in every column."""
    words = text.casefold().split()
    found = []
    for row in rows:
        everything = " ".join([*_line(row).values(), str(row.folder or "")]).casefold()
        named = (not of or row.command in of) and (not models or row.model in models)
        if named and (not states or row.state in states) and all(word in everything for word in words):
            found.append(row)
    return found


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """The rows as a person reads them."""
    columns = ("experiment", "model", "asked", "made", "state", "source", "notes")
    return pd.DataFrame([_line(row) for row in rows], columns=list(columns), dtype=str)


def registered(command: str) -> Any:
    """The experiment of a run. Errors: InterpError for one that is not registered."""
    return experiments.experiment_of(command)


def _line(row: Row) -> dict[str, str]:
    return {
        "experiment": row.command,
        "model": row.model,
        "asked": row.fault.replace(f"{row.folder.parent}/", "") if row.fault and row.folder else row.asked,
        "made": row.made,
        "state": row.state,
        "source": row.source,
        "notes": " ".join(row.notes.split()),
    }


def _config_files() -> dict[str, str]:
    """The config file of every registered experiment, and its command."""
    return {one.request.config_file: command for command, one in experiments.EXPERIMENTS.items()}


def _found(root: Path, most_folders: int | None) -> list[RunSummary]:
    return find_runs(root, names=_config_files(), most_folders=most_folders)


def _add(rows: dict[str, Row], summary: RunSummary, source: str) -> None:
    name = str(summary.path)
    if name in rows:
        return
    command = summary.command
    if summary.fault:
        command = next((known for file, known in _config_files().items() if (summary.path / file).is_file()), "")
    config, fault, models, asked = summary.config, summary.fault, "", ""
    try:
        models, asked = _models(config), _asked(command, config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        fault = f"the config in {summary.path} is not one of a run ({error}); restore it or run again."
    state: State = "finished" if summary.finished else "unfinished"
    state = "damaged" if fault else "running" if summary.busy else state
    rows[name] = Row(
        name=name,
        command=command,
        model=models,
        asked=asked,
        made=_minute(config.get("finished") or summary.created),
        state=state,
        source=source,
        notes=summary.notes,
        folder=summary.path,
        config=config,
        fault=fault,
    )


def _in_memory() -> Iterator[Row]:
    """The results that jobs hold."""
    for job in server.engine().jobs.jobs():
        if not isinstance(job.result, Result):
            continue
        config = job.result.config
        made = config.get("finished") or time.strftime("%Y-%m-%dT%H:%M", time.gmtime(job.submitted_at))
        yield Row(
            name=job.key,
            command=config["command"],
            model=_models(config),
            asked=_asked(config["command"], config),
            made=_minute(made),
            state="finished",
            source=IN_MEMORY,
            job=job,
            config=config,
        )


def _identity(config: Mapping[str, Any]) -> tuple[str, str, str]:
    """What tells a run that a job has kept in a folder from every other."""
    return config.get("command", ""), str(config.get("created")), str(config.get("finished"))


def job_of(row: Row) -> Job[Any] | None:
    """The job that made the run in a folder, if it is known still."""
    for job in server.engine().jobs.jobs():
        if isinstance(job.result, Result) and _identity(job.result.config) == _identity(row.config):
            return job
    return None


def _models(config: Mapping[str, Any]) -> str:
    sides = [side.get("id", "") for side in (config.get("model"), config.get("donor")) if isinstance(side, Mapping)]
    return " and ".join(short_name(str(side)) for side in sides if side)


def _asked(command: str, config: Mapping[str, Any]) -> str:
    """What was asked: the settings that were given, or, where an earlier version did not say, those found."""
    if command not in experiments.EXPERIMENTS:
        return ""
    kind: type[Request] = experiments.EXPERIMENTS[command].request
    try:
        made = kind.from_config(config)
    except InterpError:
        return ""
    given = config.get("asked")
    values = in_words(made, None if given is None else given)
    hidden = in_words(made, NOT_ASKED).keys()
    return "; ".join(f"{name}: {_short(value)}" for name, value in values.items() if name not in hidden)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _minute(stamp: Any) -> str:
    return str(stamp or "")[:16].replace("T", " ")


def _below(folder: Path, root: Path) -> bool:
    return folder.resolve().is_relative_to(Path(root).resolve())
