"""Run folders: written as the run goes, resumed after a kill, read back by the dashboard. Nothing else touches them.

Whole files are replaced in one step, so a reader sees the old or the new one and never half of it. Records grow by
chunks of complete lines, each flushed to the disk; what a kill leaves behind is at most one broken chunk at the end,
which a resumed run cuts off and computes again. A lock that the system drops when its process ends keeps a second
writer out.
"""

import dataclasses
import json
import os
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd

from interp_core.errors import InterpError
from interp_core.storage import (
    claim,
    dump_line,
    parse_row,
    plain,
    read_csv,
    read_json,
    read_lines,
    release,
    replace_file,
)

CONFIG_FILES = {
    "patch": "patching_config.json",
    "compare": "compare_config.json",
    "signflip": "signflip_config.json",
    "heads": "heads_config.json",
    "ablate": "ablation_config.json",
}
MAY_DIFFER = frozenset({"created", "finished", "times", "versions", "resume"})  # between a run and its resumption


class RunWriter:
    """The one writer of a run folder, from `create` to `close` (or as a context manager)."""

    def __init__(self, folder: Path, config: dict, lock: int) -> None:
        """For `create` alone, which makes the folder and takes its lock."""
        self.folder = folder
        self.config = config
        self._lock: int | None = lock

    @classmethod
    def create(cls, out: Path, config: Mapping[str, Any], *, resume: bool = False) -> "RunWriter":
        """Make or take over the folder and write its config, before anything is computed.

        Args:
            out: the run folder; missing parents are made.
            config: all settings; `command` (default "patch") says which config file it is. `created` is added, and
                `finished` is null until `finish`.
            resume: go on with the run in the folder, or start one where there is none yet.
        Raises:
            InterpError: not a folder, no permission, another process is writing there, a run is there and `resume` is
                False, or resumed with other settings (all of them listed; times and versions may differ).
        """
        folder = Path(out).expanduser()
        new = plain({"command": "patch", "created": _now(), **config, "finished": None})
        if new["command"] not in CONFIG_FILES:
            raise InterpError(f"unknown command {new['command']!r} in the config (known: {', '.join(CONFIG_FILES)}).")
        lock = claim(folder)
        try:
            here = [name for name in CONFIG_FILES.values() if (folder / name).exists()]
            records = sorted(path.name for path in folder.glob("*_records_*.jsonl"))
            if (here or records) and not resume:
                raise InterpError(
                    f"{folder} already holds a run ({(here + records)[0]}); add --resume to go on with it."
                )
            if resume and (here or records):
                new["created"] = _check_same(folder, here, new)
            for draft in folder.glob(".*.tmp"):
                draft.unlink()
            writer = cls(folder, new, lock)
            writer.write_json(CONFIG_FILES[new["command"]], new)
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
        replace_file(self.path(name), f"{text}\n".encode())

    def write_jsonl(self, name: str, rows: Iterable[Any]) -> None:
        """Replace a file of one JSON object a line."""
        replace_file(self.path(name), "".join(f"{dump_line(row)}\n" for row in rows).encode())

    def write_csv(self, name: str, frame: pd.DataFrame) -> None:
        """Replace a CSV file; an empty field is NaN, floats read back exactly."""
        replace_file(self.path(name), frame.to_csv(index=False, lineterminator="\n").encode())

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
        lines = [dump_line(row) for row in rows]
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
        return [json.loads(line) for line in lines]

    def resume_records(self, name: str, expected: Mapping[int, int]) -> tuple[set[int], list[dict]]:
        """The chunks that an earlier, perhaps killed, run finished. Whatever follows the last of them is cut off.

        Args:
            expected: chunk -> how many lines it has when complete.
        Returns:
            The complete chunks and all their rows, in file order. Chunks of no line are always complete.
        Raises:
            InterpError: the file holds a chunk that is not expected, or more lines of it than expected: these records
                belong to another plan, and nothing is cut.
        """
        path = self.path(name)
        done = {chunk for chunk, lines in expected.items() if lines == 0}
        rows: list[dict] = []
        if not path.exists():
            return done, rows
        data = path.read_bytes()
        open_rows: list[dict] = []
        keep = position = 0
        while (end := data.find(b"\n", position)) >= 0:
            row = parse_row(data[position:end])
            if row is None or (open_rows and row.get("chunk") != open_rows[0]["chunk"]):
                break
            chunk = row.get("chunk")
            if not isinstance(chunk, int) or chunk in done or chunk not in expected:
                raise InterpError(
                    f"{path} holds chunk {chunk!r}{' too often' if chunk in done else ''}, which these settings do not "
                    "make; use the settings of that run or another --out."
                )
            position = end + 1
            open_rows.append(row)
            if len(open_rows) == expected[chunk]:
                done.add(chunk)
                rows += open_rows
                open_rows, keep = [], position
        if keep < len(data):
            with open(path, "r+b") as file:
                file.truncate(keep)
                os.fsync(file.fileno())
        return done, rows

    def finish(self, **extra: Any) -> None:
        """Note in the config that the run is complete, with any further entries (times, counts)."""
        self.config = plain({**self.config, **extra, "finished": _now()})
        self.write_json(CONFIG_FILES[self.config["command"]], self.config)

    def close(self) -> None:
        """Let other writers in; may be called twice."""
        if self._lock is not None:
            release(self.folder, self._lock)
            self._lock = None

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run folder as it was read; frames and lists are empty, and the optional parts None, where there is no file.

    Attributes:
        records: lines of patching_records_*.jsonl, then control_records_*.jsonl, without the chunk numbers.
        metrics: rows of patching_metrics_*.csv, then control_metrics_*.csv.
        pairs: lines of pair_list_*.jsonl.
        reports: tokenization_report, pair_construction_report and sanity_check_* by these names.
        finished: False for a run that is still going or was killed.
    """

    path: Path
    command: str
    config: dict
    records: pd.DataFrame
    metrics: pd.DataFrame
    pairs: list[dict]
    reports: dict[str, Any]
    information_flow: dict | None
    lens: pd.DataFrame | None
    knockout: pd.DataFrame | None
    finished: bool


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """What a list of runs shows. `created` is ISO 8601 with its offset, "" where unknown; `n_pairs` over all kinds."""

    path: Path
    command: str
    model: str
    created: str
    finished: bool
    n_pairs: int


def open_run(folder: Path) -> Run:
    """Read a run folder, finished or not.

    Raises:
        InterpError: not a run folder, a file that a finished run must have is missing, or one is broken. Only the last
            line of the records of an unfinished run may be cut short: it is left out.
    """
    folder = Path(folder)
    command, config = _read_config(folder)
    finished = bool(config.get("finished"))
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []

    def named(*starts: str) -> list[Path]:
        return [path for start in starts for path in files if path.name.startswith(start)]

    pairs = {path: read_lines(path, finished) for path in named("pair_list_") if path.suffix == ".jsonl"}
    if finished and command == "patch":
        needed = ["pair_construction_report.json"]
        for path, listed in pairs.items():
            kind = path.stem.removeprefix("pair_list_")
            needed += [f"patching_records_{kind}.jsonl", f"patching_metrics_{kind}.csv"] if listed else []
        missing = [name for name in needed if not (folder / name).exists()]
        if missing or not pairs:
            raise InterpError(f"{folder} lacks {', '.join(missing or ['pair_list_*.jsonl'])}; restore it or run again.")
    records = [row for path in named("patching_records_", "control_records_") for row in read_lines(path, finished)]
    metrics = []
    for path in named("patching_metrics_", "control_metrics_"):
        metrics.append(read_csv(path))
        if lacking := {"kind", "condition", "layer"} - set(metrics[-1].columns):
            raise InterpError(f"{path} lacks the columns {', '.join(sorted(lacking))}; restore it or run again.")
    flow, lens, knockout = (folder / name for name in ("information_flow.json", "logit_lens.csv", "knockout.csv"))
    return Run(
        path=folder,
        command=command,
        config=config,
        records=pd.DataFrame(records).drop(columns="chunk", errors="ignore"),
        metrics=pd.concat(metrics, ignore_index=True) if metrics else pd.DataFrame(),
        pairs=[row for listed in pairs.values() for row in listed],
        reports={
            path.stem: read_json(path)
            for path in named("tokenization_report.json", "pair_construction_report.json", "sanity_check_")
            if path.suffix == ".json"
        },
        information_flow=read_json(flow) if flow.exists() else None,
        lens=read_csv(lens) if lens.exists() else None,
        knockout=read_csv(knockout) if knockout.exists() else None,
        finished=finished,
    )


def find_runs(root: Path) -> list[RunSummary]:
    """All runs below `root` (or `root` itself), the newest first; folders that are broken or cannot be read are not.

    Hidden folders, links and what lies inside a run folder are not searched.
    """
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not set(CONFIG_FILES.values()) & set(files):
            continue
        folders.clear()
        try:
            found.append(_summary(Path(place), files))
        except (InterpError, OSError):
            continue
    return sorted(found, key=lambda run: (run.created, str(run.path)), reverse=True)


def _summary(folder: Path, files: Collection[str]) -> RunSummary:
    command, config = _read_config(folder)
    lists = [folder / name for name in files if name.startswith("pair_list_") and name.endswith(".jsonl")]
    model = config.get("model", "")
    return RunSummary(
        path=folder,
        command=command,
        model=str(model.get("id", "") if isinstance(model, dict) else model),
        created=str(config.get("created") or ""),
        finished=bool(config.get("finished")),
        n_pairs=sum(path.read_bytes().count(b"\n") for path in lists),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_same(folder: Path, here: list[str], new: dict) -> Any:
    """When the run in the folder was created; InterpError unless it had the same settings."""
    name = CONFIG_FILES[new["command"]]
    if name not in here:
        holds = f"a run of {here[0]}" if here else "records without their config"
        raise InterpError(f"{folder} holds {holds}, which {new['command']!r} cannot resume; choose another --out.")
    old = read_json(folder / name)
    if not isinstance(old, dict):
        raise InterpError(f"{folder / name} does not hold an object; choose another --out.")
    before, after = _flat(old), _flat(json.loads(json.dumps(new)))
    differ = [key for key in {**before, **after} if before.get(key, "absent") != after.get(key, "absent")]
    if differ:
        changes = (f"{key} was {before.get(key, 'absent')!r}, is {after.get(key, 'absent')!r}" for key in differ)
        raise InterpError(
            f"{folder} was started with other settings: {'; '.join(changes)}. Resume with its own "
            f"(--config {folder / name}) or choose another --out."
        )
    return old.get("created")


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted keys, without what may differ between a run and its resumption."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if not prefix and key in MAY_DIFFER:
            continue
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _read_config(folder: Path) -> tuple[str, dict]:
    """The command and config of a run folder; InterpError where it is none."""
    try:
        here = [(command, folder / name) for command, name in CONFIG_FILES.items() if (folder / name).is_file()]
    except OSError as error:
        raise InterpError(f"{folder} cannot be read ({error.strerror}).") from error
    if not here:
        raise InterpError(f"{folder} is no run folder: it has none of {', '.join(CONFIG_FILES.values())}.")
    command, path = here[0]
    config = read_json(path)
    if not isinstance(config, dict):
        raise InterpError(f"{path} does not hold an object; restore it or run again.")
    return command, config
