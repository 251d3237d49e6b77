"""Files that are whole or not there: replaced in one step, JSON that any reader takes, a lock on a folder."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import BaseFileLock, FileLock, Timeout

from interp_core.errors import InterpError

LOCK_FILE = ".lock"
SEAL = "chunk_sha256"
"""The key of a chunk's checksum in each of its lines, always the last one."""
SEALED = re.compile(rb', "chunk_sha256": "([0-9a-f]{16})"}$')
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
"""What a network file system without locks answers: better to run unguarded there than not at all."""
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
    except (OSError, ValueError, RecursionError) as error:
        raise InterpError(f"{path} cannot be read as JSON ({error}); restore it or run again.") from error


def read_csv(path: Path, *, texts: Collection[str] | bool = (), needs: Collection[str] = ()) -> pd.DataFrame:
    """As `RunWriter.write_csv` wrote it: only an empty field is NaN, so that a kind may be called "NA".

    Args:
        texts: columns whose values are text, an empty one ""; True for all.
        needs: columns that it must have.
    Raises:
        InterpError: missing, broken, or without such a column.
    """
    named = () if isinstance(texts, bool) else texts
    kinds: Any = str if texts is True else {**TEXT_COLUMNS, **dict.fromkeys(named, str)}
    try:
        table = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=[""], float_precision="round_trip")
        for name in [name for name in table if texts is True or name in named]:
            table[name] = table[name].fillna("").astype(object)
    except (OSError, ValueError, OverflowError) as error:
        raise InterpError(f"{path} cannot be read as CSV ({error}); restore it or run again.") from error
    if lacking := [name for name in needs if name not in table]:
        raise InterpError(f"{path} lacks the columns {', '.join(lacking)}; restore it or run again.")
    return table


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


def sealed(lines: Sequence[str]) -> list[str]:
    """The lines of one chunk of records, JSON objects that are not empty, each with the checksum of them all."""
    seal = _seal_of([line.encode() for line in lines])
    return [f'{line[:-1]}, "{SEAL}": "{seal}"}}' for line in lines]


def whole_chunks(data: bytes) -> list[tuple[int, list[bytes]]]:
    """The chunks in a file of records that are as they were written, in file order, each with its lines.

    A chunk without checksums is one of an earlier version: it is taken if its lines stand together.
    """
    found: list[tuple[int, list[bytes]]] = []
    for line in data.split(b"\n")[:-1]:  # what follows the last newline was cut short
        row = parse_row(line) or {}
        chunk = row.get("chunk")
        if type(chunk) is not int:
            found.append((-1, [line]))
        elif found and found[-1][0] == chunk and _sealed_alike(found[-1][1][0], line):
            found[-1][1].append(line)
        else:
            found.append((chunk, [line]))
    return [(chunk, lines) for chunk, lines in found if chunk >= 0 and _as_written(lines)]


def _sealed_alike(one: bytes, other: bytes) -> bool:
    return (SEALED.search(one) or [b""])[0] == (SEALED.search(other) or [b""])[0]


def _as_written(lines: Sequence[bytes]) -> bool:
    seals = [SEALED.search(line) for line in lines]
    if not any(seals):
        return True
    bare = [line[: seal.start()] + b"}" for line, seal in zip(lines, seals, strict=True) if seal is not None]
    return len(bare) == len(lines) and seals[0][1].decode() == _seal_of(bare)  # type: ignore[index]


def sealed_bytes(data: bytes) -> bytes:
    """The data with its SHA-256 behind it, by which `unsealed` tells whether it is as it was written."""
    return data + hashlib.sha256(data).digest()


def unsealed(data: bytes) -> bytes | None:
    """What `sealed_bytes` was given; None where a byte of it is another one, or missing."""
    whole = data[: -hashlib.sha256().digest_size]
    return whole if data and sealed_bytes(whole) == data else None


def _seal_of(lines: Sequence[bytes]) -> str:
    return hashlib.sha256(b"\n".join(lines)).hexdigest()[:16]


def read_records(path: Path, finished: bool) -> list[dict]:
    """The records of a run without what tells their chunks apart; see `read_lines`.

    Raises:
        InterpError: as `read_lines`, or a chunk of a finished run that is not as it was written.
    """
    rows = read_lines(path, finished)
    if finished and any(SEAL in row for row in rows):
        whole = sum(len(lines) for _, lines in whole_chunks(path.read_bytes()))
        if whole != len(rows):
            raise InterpError(
                f"{path} is not as it was written: {len(rows) - whole} of {len(rows)} lines belong to chunks that fail "
                "their checksum; restore the file or run again."
            )
    return [{key: value for key, value in row.items() if key not in ("chunk", SEAL)} for row in rows]


def parse_row(line: bytes) -> dict | None:
    """One JSON object, None where the line is something else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def claim(folder: Path) -> BaseFileLock:
    """Make the folder and hold its lock, which `release` gives back; a process that is killed leaves none behind.

    Raises:
        InterpError: another process, or a run of this one, is writing there; no folder can be made or written.
    """
    path = folder / LOCK_FILE
    # 0.2 s: a holder that is just leaving takes its file along, and the next try makes a new one.
    lock = FileLock(path, timeout=0.2, thread_local=False, fallback_to_soft=False, on_acquired=_sign)
    try:
        if folder.exists() and not folder.is_dir():
            raise InterpError(f"{folder} is a file; the run needs a folder: choose another --out.")
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InterpError(
            f"process {_holder(path)} is writing into {folder}; wait for it, stop it, or choose another --out."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise InterpError(
                f"the run folder {folder} cannot be made or written ({error.strerror}); choose another --out."
            ) from error
    return lock


def _sign(descriptor: int) -> None:
    """Write who holds the lock, behind the first byte: Windows lets nobody else read the byte that it locks."""
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f" {os.getpid()}\n".encode())


def _holder(path: Path) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(1)
            return file.read(20).decode(errors="replace").strip() or "(unknown)"
    except OSError:
        return "(unknown)"


def release(folder: Path, lock: BaseFileLock) -> None:
    """Remove the lock file while it is still held, then let go of it."""
    if os.name != "nt":  # there the library removes it, once nobody has it open
        (folder / LOCK_FILE).unlink(missing_ok=True)
    lock.release()


def is_claimed(folder: Path) -> bool:
    """Whether a process is writing into the folder now."""
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        release(folder, claim(folder))
    except InterpError:
        return True
    return False
