"""Run folders: written as the run goes, resumed after a kill, read back by the dashboard. Nothing else touches them.

Whole files are replaced in one step, so a reader sees the old or the new one and never half of it. Records grow by
chunks of complete lines, each flushed to the disk, and every line says the checksum of its chunk; what a kill leaves
behind is at most one broken chunk at the end. A resumed run computes chunks again that are broken or not as they were
written. A lock that the system drops when its process ends keeps a second
writer out.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
from filelock import BaseFileLock

from interp_core.content import SIDES, unknown
from interp_core.digests import digest_of, digest_or_none
from interp_core.errors import InterpError
from interp_core.resuming import CONFIG_ENDING, of_a_run, resumable
from interp_core.storage import (
    SEAL,
    claim,
    dump_line,
    is_claimed,
    plain,
    read_json,
    release,
    replace_file,
    sealed,
    whole_chunks,
)

NOTES = "notes.txt"
WRITTEN = "written_sha256"
"""The entry of a finished run's config that says what is in its files."""


class RunWriter:
    """The one writer of a run folder, from `create` to `close` (or as a context manager)."""

    def __init__(self, folder: Path, config: dict, name: str, lock: BaseFileLock, *, is_new: bool) -> None:
        """For `create` alone, which makes the folder and takes its lock."""
        self.folder = folder
        self.config = config
        self.was_finished = False
        """Whether the folder held this very run already, complete: then nothing of it has been touched."""
        self._config_file, self._is_new = name, is_new
        self._written: set[str] = set()
        self._lock: BaseFileLock | None = lock

    @classmethod
    def create(cls, out: Path, config: Mapping[str, Any], name: str, *, resume: bool = False) -> "RunWriter":
        """Make or take over the folder and write its config, before anything is computed.

        Args:
            out: the run folder; missing parents are made.
            config: all settings, `command` among them. `created` is added, and `finished` is null until `finish`.
            name: the config's file, which ends in `_config.json`.
            resume: go on with the run in the folder, or start one where there is none yet.
        Raises:
            InterpError: not a folder, no permission, another process is writing there, a run is there and `resume` is
                False, or resumed with other settings (all of them listed; times and versions may differ).
        """
        folder = Path(out).expanduser()
        new = plain({"created": _now(), **config, "finished": None})
        if not name.endswith(CONFIG_ENDING):
            raise ValueError(f"{name!r} must end in {CONFIG_ENDING!r}, by which a run folder is known.")
        lock = claim(folder)
        try:
            here = of_a_run(folder)
            if here and not resume:
                raise InterpError(f"{folder} already holds a run ({here[0]}); add --resume to go on with it.")
            if here:
                old = resumable(folder, new, name)
                if old.get("finished"):
                    writer = cls(folder, old, name, lock, is_new=False)
                    writer.was_finished = True
                    return writer
                new["created"] = old.get("created")
                if "choice" in old and "choice" not in new:  # gone on with by what was chosen, without choosing again
                    new["choice"] = old["choice"]
                    new["rests_on"] = [*new.get("rests_on", ()), old["choice"]["said"]]
                if unknown(old):  # of an earlier version: what is done may rest on other files than those of now
                    new = {**new, **{side: old[side] for side in (*SIDES, "manifest") if side in old}}
            for draft in folder.glob(".*.tmp"):
                draft.unlink()
            writer = cls(folder, new, name, lock, is_new=not here)
            writer.write_json(name, new)
            return writer
        except BaseException:
            release(folder, lock)
            raise

    def path(self, name: str) -> Path:
        """Where the file `name` of this run lies."""
        if Path(name).name != name:
            raise InterpError(f"{name!r} must be a plain file name without folders.")
        return self.folder / name

    def write_json(self, name: str, value: Any) -> None:
        """Replace a JSON file; keys stay in their order."""
        text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=2)
        self._replace(name, f"{text}\n".encode())

    def write_jsonl(self, name: str, rows: Iterable[Any]) -> None:
        """Replace a file of one JSON object a line."""
        self._replace(name, "".join(f"{dump_line(row)}\n" for row in rows).encode())

    def write_csv(self, name: str, frame: pd.DataFrame) -> None:
        """Replace a CSV file; an empty field is NaN, floats read back exactly."""
        self._replace(name, frame.to_csv(index=False, lineterminator="\n").encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Replace a file."""
        self._replace(name, data)

    def _replace(self, name: str, data: bytes) -> None:
        replace_file(self.path(name), data)
        self._written.add(name)

    def append(self, name: str, rows: list[dict]) -> list[dict]:
        """Add one chunk of records in one write, and wait until it is on the disk.

        Args:
            rows: all lines of the chunk, each with the same int under "chunk".
        Returns:
            The rows as a resumed run will read them, so that both compute the same numbers from them.
        """
        chunks = {row.get("chunk") for row in rows}
        if len(chunks) > 1 or not all(isinstance(chunk, int) for chunk in chunks):
            raise InterpError(f"{name}: the rows of one append carry the chunks {chunks}; expected one whole number.")
        lines = sealed([dump_line(row) for row in rows])
        path = self.path(name)
        try:
            with open(path, "ab") as file:
                before = file.tell()
                try:
                    file.write("".join(f"{line}\n" for line in lines).encode())
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), before)
                    raise
        except OSError as error:
            raise InterpError(f"{path} cannot be written ({error.strerror}); make room, then add --resume.") from error
        return [{key: value for key, value in json.loads(line).items() if key != SEAL} for line in lines]

    def resume_records(self, name: str, expected: Mapping[int, int]) -> tuple[set[int], list[dict]]:
        """The chunks that an earlier, perhaps killed, run finished; all else is taken out of the file.

        Args:
            expected: chunk -> how many lines it has when complete.
        Returns:
            The complete chunks, as they were written, and all their rows, in file order. Chunks of no line are always
            complete. Whatever is cut short, changed, doubled or out of order is not among them.
        Raises:
            InterpError: the file holds a chunk that is not expected, or more lines of it than expected: these records
                belong to another plan, and nothing is cut.
        """
        path = self.path(name)
        done = {chunk for chunk, lines in expected.items() if lines == 0}
        if not path.exists():
            return done, []
        data = path.read_bytes()
        rows: list[dict] = []
        kept: list[bytes] = []
        for chunk, lines in whole_chunks(data):
            if chunk not in expected or len(lines) > expected[chunk]:
                raise InterpError(
                    f"{path} holds chunk {chunk!r}{' too often' if chunk in expected else ''}, which these settings do "
                    "not make; use the settings of that run or another --out."
                )
            if len(lines) == expected[chunk] and chunk not in done:
                done.add(chunk)
                rows += [{key: value for key, value in json.loads(line).items() if key != SEAL} for line in lines]
                kept += lines
        whole = b"".join(line + b"\n" for line in kept)
        if whole != data:
            replace_file(path, whole)
        return done, rows

    def sort_records(self, name: str) -> None:
        """Put the chunks of a file in order, as they are where none had to be computed again."""
        path = self.path(name)
        data = path.read_bytes() if path.exists() else b""
        lines = [line for _, lines in sorted(whole_chunks(data), key=lambda chunk: chunk[0]) for line in lines]
        if (whole := b"".join(line + b"\n" for line in lines)) != data:
            replace_file(path, whole)

    def finish(self, **extra: Any) -> None:
        """Note in the config that the run is complete, what is in its files, and further entries (times, counts)."""
        files = [path for path in self.folder.iterdir() if path.is_file() and not _says_nothing(path)]
        written = {path.name: digest_of(path) for path in sorted(files)}
        self.config = plain({**self.config, **extra, WRITTEN: written, "finished": _now()})
        self.write_json(self._config_file, self.config)

    def abandon(self) -> None:
        """Take back what this writer has written: the run was refused before anything was computed."""
        for name in self._written if self._is_new else ():
            self.path(name).unlink(missing_ok=True)
        self.close()
        with contextlib.suppress(OSError):  # something else lies there
            self.folder.rmdir()

    def close(self) -> None:
        """Let other writers in; may be called twice."""
        if self._lock is not None:
            release(self.folder, self._lock)
            self._lock = None

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """What a list of runs shows.

    Attributes:
        created: ISO 8601 with its offset, "" where unknown.
        finished: whether it is complete; a run that is not can be gone on with.
        busy: whether a process is writing there now.
        notes: of its readers.
        config: as it was read.
        fault: why the folder cannot be read, "" where it can; everything else is then empty.
    """

    path: Path
    command: str = ""
    model: str = ""
    created: str = ""
    finished: bool = False
    busy: bool = False
    notes: str = ""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    fault: str = ""


class NoRun(InterpError):
    """A folder of something else, such as a model, whose files end in `_config.json` too."""


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a run folder.

    Raises:
        InterpError: no run folder, or a config that is broken or says no command.
    """
    folder = Path(folder)
    try:
        here = sorted(path for path in folder.iterdir() if path.name.endswith(CONFIG_ENDING) and path.is_file())
    except OSError as error:
        raise InterpError(f"{folder} cannot be read ({error.strerror}).") from error
    for path in here:
        config = read_json(path)
        if not isinstance(config, dict):
            raise InterpError(f"{path} does not hold an object; restore it or run again.")
        if isinstance(config.get("command"), str):
            return config
    raise NoRun(f"{folder} is no run folder: no file that ends in {CONFIG_ENDING} says of which command it is.")


def check_written(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a finished run whose files are not as they were written; those of earlier versions cannot be told.

    Raises:
        InterpError: names all of them.
    """
    written = config.get(WRITTEN)
    if not isinstance(written, Mapping):
        return
    other = [name for name, digest in written.items() if digest_or_none(folder / name) not in (None, digest)]
    if other:
        raise InterpError(
            f"{folder} is not as it was written: {', '.join(other)} changed since; restore it or run again."
        )


def _says_nothing(path: Path) -> bool:
    """Whether nothing of a run is read from a file: pictures, notes, what is hidden, and the config itself."""
    return path.name == NOTES or path.name.startswith(".") or path.name.endswith((".png", CONFIG_ENDING))


def find_runs(root: Path, *, names: Collection[str] | None = None, most_folders: int | None = None) -> list[RunSummary]:
    """All runs below `root` (or `root` itself), the newest first; one that cannot be read says so in `fault`.

    Hidden folders, links and what lies inside a run folder are not searched.

    Args:
        names: of the config files that make a run folder; None: every name with their ending, which files of a model
            may have too.
        most_folders: how many folders are looked into; None: all.
    Raises:
        InterpError: more folders than that.
    """
    found = []
    for number, (place, folders, files) in enumerate(os.walk(root)):
        if most_folders is not None and number >= most_folders:
            raise InterpError(f"{root} holds more than {most_folders} folders; name one nearer to the runs.")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not any(name.endswith(CONFIG_ENDING) if names is None else name in names for name in files):
            continue
        summary = summarise(Path(place))
        if summary is not None:
            folders.clear()
            found.append(summary)
    return sorted(found, key=lambda run: (run.created, str(run.path)), reverse=True)


def summarise(folder: Path) -> RunSummary | None:
    """One folder as a line of a list; None for a folder of something else."""
    try:
        config = read_config(folder)
        model = config.get("model", "")
        return RunSummary(
            path=folder,
            command=config["command"],
            model=str(model.get("id", "") if isinstance(model, dict) else model),
            created=str(config.get("created") or ""),
            finished=bool(config.get("finished")),
            busy=is_claimed(folder),
            notes=read_notes(folder),
            config=config,
        )
    except NoRun:
        return None
    except InterpError as error:
        return RunSummary(folder, fault=str(error))


def read_notes(folder: Path) -> str:
    """What readers of a run noted in its folder."""
    try:
        return (folder / NOTES).read_text("utf-8").strip()
    except OSError:
        return ""
    except ValueError as error:
        raise InterpError(f"{folder / NOTES} is no UTF-8 text ({error}); restore or remove it.") from error


def write_notes(folder: Path, text: str) -> None:
    """Keep a note in a run folder. Errors: InterpError where it cannot be written."""
    read_config(folder)
    replace_file(folder / NOTES, f"{text.strip()}\n".encode())


def delete_run(folder: Path) -> None:
    """Remove a run folder with all that is in it.

    Raises:
        InterpError: no run folder, one that a process is writing into, or one that cannot be removed.
    """
    if summarise(folder) is None:
        raise InterpError(f"{folder} is no run folder, so it is left alone.")
    release(folder, claim(folder))
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise InterpError(f"{folder} cannot be removed ({error.strerror}).") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
