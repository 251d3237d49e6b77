"""Files that are whole or not there: replaced in one step, JSON that any reader takes, a lock on a folder."""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from interp_core.errors import InterpError

try:
    import fcntl
except ImportError:  # Windows has no such locks; there a folder is not guarded
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
TEXT_COLUMNS = dict.fromkeys(("kind", "condition", "interval_method"), str)


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities become None, a frame a list of its rows as dicts, arrays and
    tensors lists, dataclasses dicts.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, pd.DataFrame):
        return plain(value.to_dict("records"))
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    if isinstance(value, Iterable) and not hasattr(value, "tolist"):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy scalars and arrays, torch tensors
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no place in a JSON file")


def dump_line(value: Any) -> str:
    """One line of JSON without its newline; floats are written so that they read back exactly."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)


def replace_file(path: Path, data: bytes) -> None:
    """Write the whole file in one step for any reader; a kill or a full disk leaves the old one as it was."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise InterpError(
            f"{path} cannot be written ({error.strerror}); make room or choose another folder."
        ) from error


def read_json(path: Path) -> Any:
    """The value in a JSON file; InterpError names a file that is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InterpError(f"{path} cannot be read as JSON ({error}); restore it or run again.") from error


def read_csv(path: Path) -> pd.DataFrame:
    """As `RunWriter.write_csv` wrote it: only an empty field is NaN, so that a kind may be called "NA"."""
    try:
        return pd.read_csv(
            path, dtype=TEXT_COLUMNS, keep_default_na=False, na_values=[""], float_precision="round_trip"
        )
    except (OSError, ValueError) as error:
        raise InterpError(f"{path} cannot be read as CSV ({error}); restore it or run again.") from error


def read_lines(path: Path, finished: bool) -> list[dict]:
    """The objects of a JSONL file; a line that an unfinished run has not ended with its newline is left out."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InterpError(f"{path} cannot be read ({error.strerror}).") from error
    if not finished or not lines[-1]:
        lines.pop()  # complete lines end in a newline
    rows = [parse_row(line) for line in lines]
    if None in rows:
        raise InterpError(f"{path} line {rows.index(None) + 1} is no JSON object; restore the file or run again.")
    return [row for row in rows if row is not None]


def parse_row(line: bytes) -> dict | None:
    """One JSON object, None where the line is something else."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def claim(folder: Path) -> int:
    """Make the folder and hold its lock; the file descriptor to give to `release`."""
    path = folder / LOCK_FILE
    try:
        if folder.exists() and not folder.is_dir():
            raise InterpError(f"{folder} is a file; the run needs a folder: choose another --out.")
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            if not _lock_or_close(lock, path):
                continue
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
            return lock
    except OSError as error:
        raise InterpError(
            f"the run folder {folder} cannot be made or written ({error.strerror}); choose another --out."
        ) from error


def _lock_or_close(lock: int, path: Path) -> bool:
    """Lock the open file; False when its last holder removed it meanwhile, so that it guards nothing any more."""
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip() or "(unknown)"
        os.close(lock)
        raise InterpError(
            f"process {holder} is writing into {path.parent}; wait for it, stop it, or choose another --out."
        ) from None
    except OSError:
        pass  # a network file system without locks: better to run unguarded than not at all
    if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
        return True
    os.close(lock)
    return False


def release(folder: Path, lock: int) -> None:
    """Remove the lock file while it is still held, then let go of it."""
    if fcntl is None:  # Windows removes no file that is open
        os.close(lock)
    (folder / LOCK_FILE).unlink(missing_ok=True)
    if fcntl is not None:
        os.close(lock)
