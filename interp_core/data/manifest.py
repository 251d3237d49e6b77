"""Manifests: the table of clips that a run works on, checked as a whole before anything runs.

A manifest is a CSV or Parquet file with the columns `clip_id` and `path`; every further column is kept as a label.
All rows that cannot be used are reported at once, and a clip counts as usable only after its audio was decoded.
"""

import csv
import difflib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from interp_core.data.clips import BadAudio, Clip, ClipLimits, decode, file_digest
from interp_core.errors import InterpError

NEEDED = ("clip_id", "path")
SHOWN_ROWS = 20


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        row: the line of a CSV on which the row begins, the header being line 1; in a Parquet file the row, from 1.
        file: the row's path as it is written there; "" where there is none.
        reason: what is wrong, as the rest of a sentence that begins with the file.
    """

    row: int
    file: str
    reason: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.file} {self.reason}" if self.file else f"row {self.row} {self.reason}"


class BadRows(InterpError):
    """A manifest with rows that cannot be used; `rows` holds all of them, the message the first 20."""

    def __init__(self, message: str, rows: Sequence[BadRow]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)

    def __reduce__(self) -> tuple[object, ...]:  # so that it survives the way home from another process
        return BadRows, (str(self), self.rows)


@dataclass(frozen=True)
class Manifest:
    """A manifest that has been read and checked.

    Attributes:
        path: the manifest file.
        clips: its usable clips, in row order.
        columns: its columns as written, `clip_id` and `path` among them.
        digest: SHA-256 of the manifest's bytes, in hex.
        skipped: the rows that were left out; empty unless asked for.
    """

    path: Path
    clips: tuple[Clip, ...]
    columns: tuple[str, ...]
    digest: str
    skipped: tuple[BadRow, ...]


def read_manifest(
    path: Path | str,
    *,
    skip_bad: bool = False,
    max_clips: int | None = None,
    roots: Sequence[Path] | None = None,
    limits: ClipLimits | None = None,
    progress: Callable[[int, int, str], object] | None = None,
) -> Manifest:
    """Read a manifest and check every row, decoding every clip.

    Args:
        path: a .csv file (UTF-8, comma-separated, a header line) or a .parquet file. Values are text, blanks around
            them are cut off, and an empty value means that the clip has no such label; "NA" and "None" are labels.
        skip_bad: leave out rows that cannot be used instead of raising. Of rows with one clip_id the first stands.
        max_clips: look at the first so many rows only.
        roots: where given, the manifest and every clip must lie below one of these folders, links followed.
        limits: accepted durations, 0.1 to 30 s by default.
        progress: called as (clips done, clips in all, file) from the calling thread; what it raises ends the reading.
    Returns:
        The manifest; relative clip paths are taken from its folder.
    Raises:
        BadRows (an InterpError): rows that cannot be used, all of them, or no usable row.
        InterpError: no manifest to read, not CSV or Parquet, columns missing or named twice, no rows.
    """
    path = Path(path)
    allowed = None if roots is None else _Allowed(roots)
    if max_clips is not None and max_clips < 1:
        raise InterpError(f"max_clips={max_clips} leaves no clip; give 1 or more.")
    if allowed is not None and not allowed.holds(path):
        raise InterpError(f"{path} lies outside the folders that may be read ({allowed}); move it below one of them.")
    columns, rows, digest = _read_table(path)
    drafts = _drafts(rows[:max_clips], path.absolute().parent)
    if not drafts:
        raise InterpError(f"{path.name} has a header but no rows; add one row a clip.")
    _check_audio(drafts, allowed, limits or ClipLimits(), progress)

    bad = tuple(BadRow(draft.row, draft.file, "; and ".join(draft.reasons)) for draft in drafts if draft.reasons)
    clips = tuple(Clip(draft.clip_id, draft.path, draft.labels, draft.digest) for draft in drafts if not draft.reasons)
    if bad and not (skip_bad and clips):
        raise BadRows(_bad_rows_message(path, bad, len(drafts)), bad)
    return Manifest(path, clips, columns, digest, bad)


def _bad_rows_message(manifest: Path, rows: Sequence[BadRow], n_rows: int) -> str:
    left = n_rows - len(rows)
    skip = f"pass --skip-bad to leave out {len(rows)} bad row{'s' if len(rows) > 1 else ''}."
    if len(rows) == 1:
        return f"{manifest.name} {rows[0]}" + (f", or {skip}" if left else ". It is the only row.")
    lines = [f"{manifest.name}: {len(rows)} of {n_rows} rows cannot be used."]
    lines += [f"- {row}" for row in rows[:SHOWN_ROWS]]
    lines += [f"- and {len(rows) - SHOWN_ROWS} more"] if len(rows) > SHOWN_ROWS else []
    lines += [f"Correct them or {skip}" if left else "Correct them: no row is left to run on."]
    return "\n".join(lines)


@dataclass
class _Draft:
    """A row on its way to a clip; usable as long as it has no reasons against it."""

    row: int
    clip_id: str
    file: str
    path: Path
    labels: dict[str, str]
    reasons: list[str] = field(default_factory=list)
    digest: str = ""


class _Allowed:
    """The folders that may be read; a path is held by them if it lies below one after every link is followed."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(Path(os.path.realpath(root)) for root in roots)

    def holds(self, path: Path) -> bool:
        try:
            real = Path(os.path.realpath(path))
        except ValueError:  # a zero byte in the name: no such file anywhere
            return False
        return any(real.is_relative_to(root) for root in self.roots)

    def __str__(self) -> str:
        return ", ".join(map(str, self.roots)) or "none"


@dataclass(frozen=True)
class _Row:
    """A row as it stands in the file: where, its values by column, and whether its very form is wrong."""

    number: int
    values: dict[str, str]
    problem: str = ""


def _read_table(path: Path) -> tuple[tuple[str, ...], list[_Row], str]:
    """The manifest's columns, its rows as text, and its digest; the file itself and its columns are checked."""
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None and not path.is_dir():
        raise InterpError(f"the manifest {path} ends in {path.suffix!r}; give a .csv or a .parquet file.")
    try:
        digest = file_digest(path)
    except BadAudio as error:
        reason = error.reason.replace("give an audio file", "give the CSV or Parquet file")
        raise InterpError(f"the manifest {path} {reason}.") from error
    assert reader is not None  # a folder has just been refused
    columns, rows = reader(path)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise InterpError(f"{path.name} has more than one column {', '.join(map(repr, twice))}; rename or drop one.")
    _check_columns(path, columns)
    return tuple(columns), rows, digest


def _read_csv(path: Path) -> tuple[list[str], list[_Row]]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InterpError(
            f"{path.name} line {line} is not UTF-8 text (byte 0x{data[error.start]:02x}); save the file as UTF-8."
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    rows = []
    begins = 1
    try:
        for record in reader:
            values = [value.strip() for value in record]
            if any(values):  # spreadsheets leave empty lines, and lines of commas alone, at the end
                if header:
                    rows.append(_csv_row(begins, header, values))
                else:
                    header = values
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InterpError(f"{path.name} line {begins} is not valid CSV ({error}); correct its quotes.") from error
    if not header:
        raise InterpError(f"{path.name} is empty; give it a header line with clip_id and path, and one line a clip.")
    return [name for name in header if name], rows


def _csv_row(line: int, header: Sequence[str], values: Sequence[str]) -> _Row:
    """One record; a nameless column, such as the row numbers that pandas writes, is dropped."""
    problem = ""
    if len(values) != len(header):
        problem = f"has {len(values)} values for {len(header)} columns; put a value that holds a comma in double quotes"
    named = {name: value for name, value in zip(header, values, strict=False) if name}
    return _Row(line, named, problem)


def _read_parquet(path: Path) -> tuple[list[str], list[_Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise InterpError(f"{path.name} cannot be read as Parquet ({said}); write it again.") from error
    columns = [name for name in table.column_names if not name.startswith("__index_level_")]  # a pandas index
    for name in columns:
        kind = table.schema.field(name).type if columns.count(name) == 1 else pyarrow.string()
        if pyarrow.types.is_nested(kind) or pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            raise InterpError(f"{path.name} column {name!r} holds {kind}, not text or numbers; leave the column out.")
    by_column = {name: [_as_text(value) for value in table.column(name).to_pylist()] for name in set(columns)}
    rows = [_Row(i + 1, {name: by_column[name][i] for name in columns}) for i in range(table.num_rows)]
    return columns, rows


def _as_text(value: object) -> str:
    """A Parquet value as the CSV would hold it; missing values, and NaN, which pandas writes for them, are empty."""
    return "" if value is None or value != value else str(value).strip()


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in NEEDED if name not in columns]
    if not missing:
        return
    named = []
    for name in missing:
        near = difflib.get_close_matches(name, [column.lower() for column in columns], 1, cutoff=0.5)
        original = [column for column in columns if near and column.lower() == near[0]]
        named.append(f"{name!r}" + (f" (is it {original[0]!r}?)" if original else ""))
    comma = ""
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        comma = " Separate columns by commas."
    raise InterpError(
        f"{path.name} has no column {' and no column '.join(named)}; it has {', '.join(map(repr, columns))}. "
        f"A manifest needs clip_id and path.{comma}"
    )


def _drafts(rows: Sequence[_Row], folder: Path) -> list[_Draft]:
    """Rows with their values sorted out, and every reason against them that needs no look at the audio file."""
    drafts = []
    first_row: dict[str, int] = {}
    for row in rows:
        labels = {name: value for name, value in row.values.items() if value and name not in NEEDED}
        clip_id, file = row.values.get("clip_id", ""), row.values.get("path", "")
        draft = _Draft(row.number, clip_id, file, folder / file, labels)
        drafts.append(draft)
        if row.problem:  # its values may stand under the wrong names: nothing more can be said about it
            draft.reasons.append(row.problem)
            continue
        if not file:
            draft.reasons.append("has no path; fill it in")
        if not clip_id:
            draft.reasons.append("has no clip_id; fill it in")
        elif clip_id in first_row:
            draft.reasons.append(f"has the clip_id {clip_id!r} of row {first_row[clip_id]}; make it unique")
        else:
            first_row[clip_id] = row.number
    return drafts


def _check_audio(
    drafts: Sequence[_Draft],
    allowed: _Allowed | None,
    limits: ClipLimits,
    progress: Callable[[int, int, str], object] | None,
) -> None:
    """Decode and digest every draft's file, adding what is wrong to its reasons. Decoding releases Python's lock."""

    def check(draft: _Draft) -> None:
        if allowed is not None and not allowed.holds(draft.path):  # before any look: not even its existence is told
            draft.reasons.append(f"lies outside the folders that may be read ({allowed}); move it below one")
            return
        try:
            decode(draft.path, limits)
            draft.digest = file_digest(draft.path)
        except BadAudio as error:
            reason = error.reason
            if not os.path.isabs(draft.file):
                reason = reason.replace("does not exist", "does not exist (looked in the manifest's folder)")
            draft.reasons.append(reason)

    with_file = [draft for draft in drafts if draft.file]
    pool = ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 2))
    try:
        for done, (draft, _) in enumerate(zip(with_file, pool.map(check, with_file), strict=True), start=1):
            if progress is not None:
                progress(done, len(with_file), draft.file)
    finally:
        pool.shutdown(cancel_futures=True)
