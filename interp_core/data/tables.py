"""The tables that manifests are: CSV and Parquet files read as rows of text, with the ways in which people's tools
write them put right where there is one way only to read them, and said.
"""

import csv
import difflib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from interp_core.data.clips import BadAudio, file_digest
from interp_core.data.texts import SAID, TEXT_ID, ids_of_texts
from interp_core.errors import InterpError, few
from interp_core.stand_ins import stand_in

NEEDED = ("clip_id", "path")
ALSO_CALLED = {
    "clip_id": ("id", "utt_id", "utterance_id", "clip", "name"),
    "path": ("file_name", "filename", "file", "file_path", "filepath", "audio", "audio_path", "wav"),
}
TAKEN_FOR = {"clip_id": "id", "path": "file_name"}
"""The names of Hugging Face's folders of audio: read for ours where ours are not there."""
SHOWN_COLUMNS = 20


@dataclass(frozen=True)
class Row:
    """A row as it stands in the file: where, its values by column, and whether its very form is wrong.

    Values are without blanks around them but for the path's: a file's name may end in one.
    """

    number: int
    values: dict[str, str]
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """A manifest as it is written: its columns, rows, SHA-256, and what was put right, in sentences."""

    columns: tuple[str, ...]
    rows: list[Row]
    digest: str
    notes: tuple[str, ...]


def read_table(path: Path) -> Table:
    """The rows of a manifest; the file itself and its columns are checked.

    Raises:
        InterpError: no file to read, not CSV or Parquet, columns missing or named twice.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None and not path.is_dir():
        raise InterpError(f"the manifest {path} ends in {path.suffix!r}; give a .csv or a .parquet file.")
    try:
        digest = file_digest(path)
        if said := stand_in(path):
            raise BadAudio(path, said)
    except BadAudio as error:
        reason = error.reason.replace("give an audio file", "give the CSV or Parquet file")
        raise InterpError(f"the manifest {path} {reason}.") from error
    assert reader is not None  # a folder has just been refused
    columns, rows, notes = reader(path)
    columns, rows, renamed = _with_our_names(columns, rows)
    twice = sorted(name for name, count in Counter(columns).items() if count > 1)
    if twice:
        raise InterpError(f"{path.name} has more than one column {_some(twice)}; rename or drop one.")
    _check_columns(path, columns)
    if (ids := ids_of_texts(row.values for row in rows)) is not None:
        rows = [Row(row.number, {**row.values, TEXT_ID: one}, row.problem) for row, one in zip(rows, ids, strict=True)]
        columns, notes = [*dict.fromkeys((*columns, TEXT_ID))], [*notes, SAID]
    return Table(tuple(columns), rows, digest, (*notes, *renamed))


def _with_our_names(columns: list[str], rows: list[Row]) -> tuple[list[str], list[Row], list[str]]:
    """With the columns of `TAKEN_FOR` under our names, where both or one of ours are missing."""
    new = {theirs: ours for ours, theirs in TAKEN_FOR.items() if ours not in columns and columns.count(theirs) == 1}
    if not new or any(name not in (*columns, *new.values()) for name in NEEDED):
        return columns, rows, []
    rows = [Row(row.number, {new.get(name, name): v for name, v in row.values.items()}, row.problem) for row in rows]
    said = " and ".join(f"{theirs!r} is taken for {ours}" for theirs, ours in new.items())
    return [new.get(name, name) for name in columns], rows, [f"Column {said}."]


def _read_csv(path: Path) -> tuple[list[str], list[Row], list[str]]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InterpError(
            f"{path.name} line {line} is not UTF-8 text (byte 0x{data[error.start]:02x}); save the file as UTF-8."
        ) from error
    begins, delimiter, notes = 1, ",", []
    first, _, below = text.partition("\n")
    said = first.strip("\r ").strip('"')
    if said.lower().startswith("sep=") and len(said) == 5:  # what Excel writes, and hides when it reads
        begins, delimiter, text = 2, said[-1], below
        notes = [f"The first line says {said!r}: read as columns separated by {delimiter!r}."]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    offset = begins - 1
    header: list[str] = []
    rows = []
    try:
        for record in reader:
            if any(map(str.strip, record)):  # spreadsheets leave empty lines, and lines of commas alone, at the end
                if header:
                    rows.append(_csv_row(begins, header, record))
                else:
                    header = [name.strip() for name in record]
            begins = reader.line_num + 1 + offset
    except csv.Error as error:
        raise InterpError(f"{path.name} line {begins} is not valid CSV ({error}); correct its quotes.") from error
    if not header:
        raise InterpError(f"{path.name} is empty; give it a header line with clip_id and path, and one line a clip.")
    return [name for name in header if name], rows, notes


def _csv_row(line: int, header: Sequence[str], values: Sequence[str]) -> Row:
    """One record; a nameless column, such as the row numbers that pandas writes, is dropped."""
    problem = ""
    if len(values) != len(header):
        problem = f"has {len(values)} values for {len(header)} columns; put a value that holds a comma in double quotes"
    named = {name: _kept(name, value) for name, value in zip(header, values, strict=False) if name}
    return Row(line, named, problem)


def _kept(column: str, value: str) -> str:
    return value if column in ("path", TAKEN_FOR["path"]) else value.strip()


def _read_parquet(path: Path) -> tuple[list[str], list[Row], list[str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise InterpError(f"{path.name} cannot be read as Parquet ({said}); write it again.") from error
    columns = [name for name in table.column_names if not name.startswith("__index_level_")]  # a pandas index
    count = Counter(columns)
    for name in columns:
        kind = table.schema.field(name).type if count[name] == 1 else pyarrow.string()
        if pyarrow.types.is_nested(kind) or pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
            raise InterpError(f"{path.name} column {name!r} holds {kind}, not text or numbers; leave the column out.")
    by_column = {
        name: [_kept(name, _as_text(value)) for value in table.column(name).to_pylist()]
        for name, there in count.items()
        if there == 1
    }
    rows = [Row(i + 1, {name: values[i] for name, values in by_column.items()}) for i in range(table.num_rows)]
    return columns, rows, []


def _as_text(value: object) -> str:
    """A Parquet value as the CSV would hold it; missing values, and NaN, which pandas writes for them, are empty."""
    return "" if value is None or value != value else str(value)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in NEEDED if name not in columns]
    if not missing:
        return
    named = []
    for name in missing:
        lower = [column.lower() for column in columns[:1000]]
        near = [one for one in ALSO_CALLED[name] if one in lower]
        near = near or difflib.get_close_matches(name, lower, 1, cutoff=0.5)
        original = [column for column in columns if near and column.lower() == near[0]]
        named.append(f"{name!r}" + (f" (is it {original[0]!r}?)" if original else ""))
    comma = ""
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        comma = " Separate columns by commas."
    raise InterpError(
        f"{path.name} has no column {' and no column '.join(named)}; it has {_some(columns)}. "
        f"A manifest needs clip_id and path.{comma}"
    )


def _some(names: Sequence[str]) -> str:
    return few([repr(name) for name in names], SHOWN_COLUMNS)
