"""What every reader shares: the shape of its result, how files are found, and how unusable clips are told.

A reader builds a *draft*: a table of text columns, one row a clip, each row with what is wrong with it ("" = nothing).
`finish` turns the draft into a `Corpus`, or raises with every bad row at once. Nothing here opens a recording.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from interp_core.data.manifest import SHOWN_ROWS, BadRow, BadRows
from interp_core.errors import InterpError

AUDIO = frozenset(("wav", "flac", "ogg", "mp3", "aiff", "aif", "au", "caf", "w64", "opus"))
"""Endings (lower case, no dot) of files that libsndfile decodes."""

LOOKED_AT = 50
"""Entries of a folder that recognition looks at."""
MISSING = "does not exist; restore it or leave it out"
OUTSIDE = "leads out of the corpus's folder; write a path below it"
_FILE, _TABLE, _ROW, _REASON = "_file", "_table", "_row", "_reason"


@dataclass(frozen=True)
class Corpus:
    """A corpus as it lies on disk, its clips in the columns of a Patchbay manifest.

    Attributes:
        name: the reader's name.
        root: the corpus's folder (or its manifest file), absolute.
        clips: one row a clip. All columns are text and "" means "no value", as in a manifest; `clip_id` (unique) and
            `path` (absolute) come first. `clips.to_csv(FILE, index=False)` is a manifest.
        units: columns that say which clips are related, the narrowest first; what intervals and folds resample.
        classes: the labels that occur, in the order of the reader's class numbers.
        media: "audio" or "image": what the paths lead to.
        skipped: the clips that were left out; empty unless asked for.
        notes: what a person should know about how the corpus was read, one sentence each.
        tables: the files that name its clips; none where a folder was searched.
    """

    name: str
    root: Path
    clips: pd.DataFrame
    units: tuple[str, ...]
    classes: tuple[str, ...]
    media: str
    skipped: tuple[BadRow, ...]
    notes: tuple[str, ...]
    tables: tuple[Path, ...] = ()


@dataclass(frozen=True)
class BadEntry(BadRow):
    """A clip of a corpus that cannot be used.

    Attributes:
        table: the file of the corpus that names the clip, relative to its folder; "" where a folder was searched, and
            then `row` is 0.
    """

    table: str = ""

    def __str__(self) -> str:
        return f"{self.table} {super().__str__()}" if self.table else f"{self.file} {self.reason}"


def corpus_folder(root: Path | str, name: str) -> Path:
    """`root` as an absolute path. Errors: InterpError where it is no folder."""
    path = Path(root).absolute()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise InterpError(f"{path} {what}; give the folder of the corpus {name!r}.")
    return path


def walk(root: Path) -> tuple[list[str], Counter[str]]:
    """Every visible audio file below a folder.

    Hidden files and folders (`.DS_Store`, `._copy.wav`) and `__MACOSX` are passed over; links are followed, a link to
    a folder that holds it is not.

    Returns:
        (files, others): paths relative to `root` with "/" between their parts, sorted; and how many files of each
        other ending there are.
    """
    files: list[str] = []
    others: Counter[str] = Counter()
    for file in _visible(root, "", ()):
        ending = ending_of(file)
        if ending in AUDIO:
            files.append(file)
        else:
            others[ending] += 1
    return sorted(files), others


def _visible(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    found = os.stat(folder)
    here = (found.st_dev, found.st_ino)
    if here in above:
        return
    for entry in entries(folder):
        if entry.is_dir():
            yield from _visible(Path(entry.path), f"{prefix}{entry.name}/", (*above, here))
        elif entry.is_file():
            yield prefix + entry.name


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The visible entries of a folder, sorted by name. Errors: InterpError where it cannot be listed."""
    try:
        with os.scandir(folder) as found:
            visible = [entry for entry in found if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    except OSError as error:
        raise InterpError(f"the folder {folder} cannot be listed ({error.strerror}); give read permission.") from error
    return sorted(visible, key=lambda entry: entry.name)


def ending_of(file: str) -> str:
    """The ending of a file name in lower case, without its dot; "" where it has none."""
    return os.path.splitext(file)[1].removeprefix(".").lower()


class Listing:
    """Which files exist. Each folder is listed once: for 600,000 clips that takes seconds, a look at each minutes."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def holds(self, path: Path | str) -> bool:
        """Whether `path` is an existing file, links followed."""
        folder, name = os.path.split(path)
        if folder not in self._names:
            self._names[folder] = self._list(folder)
        return name in self._names[folder]

    def names(self, folder: Path | str) -> frozenset[str]:
        """The names of the files in a folder; none where there is no such folder."""
        self.holds(os.path.join(folder, ""))
        return self._names[str(folder)]

    @staticmethod
    def _list(folder: str) -> frozenset[str]:
        try:
            with os.scandir(folder) as found:
                return frozenset(entry.name for entry in found if entry.is_file())
        except (OSError, ValueError):  # no such folder, or a zero byte in its name
            return frozenset()


def leaves(file: str) -> bool:
    """Whether a path that a corpus's table gives would lead out of the corpus's folder."""
    return os.path.isabs(file) or ".." in file.split("/")


def read_table(path: Path, shown: str) -> pd.DataFrame:
    """A CSV file with a header line, every value as text without blanks around it.

    Args:
        path: UTF-8, comma-separated, with or without a byte order mark.
        shown: the file's name in messages.
    Returns:
        One row a line; the index is the line's number, the header being line 1. Empty lines are dropped, and so is a
        nameless column, such as the row numbers that pandas writes.
    Raises:
        InterpError: no such file, not UTF-8, not CSV, no rows, a column twice, a line with too many or few values.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [value.strip() for value in line]) for line in reader]
    except FileNotFoundError as error:
        raise InterpError(f"{shown} does not exist ({path}); restore it.") from error
    except (OSError, ValueError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
        raise InterpError(f"{shown} cannot be read as UTF-8 CSV ({error}); restore it.") from error
    lines = [(number, values) for number, values in lines if any(values)]
    if len(lines) < 2:
        raise InterpError(f"{shown} has {'a header but no rows' if lines else 'no lines'}; restore it.")
    names = lines.pop(0)[1]
    twice = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if twice:
        raise InterpError(f"{shown} has more than one column {', '.join(map(repr, twice))}; restore it.")
    ragged = [(number, len(values)) for number, values in lines if len(values) != len(names)]
    if ragged:
        number, count = ragged[0]
        raise InterpError(
            f"{shown} line {number} has {count} values for {len(names)} columns "
            f"({len(ragged)} such line{'s' if len(ragged) > 1 else ''}); restore it."
        )
    named = {name: [values[at] for _, values in lines] for at, name in enumerate(names) if name}
    return pd.DataFrame(named, index=pd.Index([number for number, _ in lines]), dtype="str")


def need_columns(table: pd.DataFrame, needed: Sequence[str], shown: str) -> None:
    """Raise InterpError naming every needed column that a table lacks."""
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise InterpError(
            f"{shown} has no column {' and no column '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, table.columns))}. Restore the file as it was released."
        )


def draft(
    columns: Mapping[str, Sequence[str]],
    *,
    files: Sequence[str],
    reasons: Sequence[str],
    table: str = "",
    rows: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Clips on their way into a corpus.

    Args:
        columns: the manifest's columns, `clip_id` and `path` among them, all of one length.
        files: how messages name each clip's file.
        reasons: what is wrong with each clip, as the rest of a sentence that begins with the file; "" = nothing.
        table, rows: the file that names the clips and their lines in it; neither where a folder was searched.
    """
    frame = pd.DataFrame(dict(columns), dtype="str")
    frame[_FILE] = pd.array(list(files), dtype="str")
    frame[_TABLE] = table
    frame[_ROW] = 0 if rows is None else list(rows)
    frame[_REASON] = pd.array(list(reasons), dtype="str")
    return frame


def by_column(names: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Rows of values as columns."""
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def finish(
    name: str,
    root: Path,
    drafted: pd.DataFrame,
    *,
    skip_bad: bool,
    units: Sequence[str] = (),
    classes: Sequence[str] = (),
    media: str = "audio",
    notes: Sequence[str] = (),
) -> Corpus:
    """A draft as a corpus.

    Args:
        drafted: see `draft`; several may be put below each other.
        skip_bad: leave out bad clips instead of raising. Of clips with one clip_id the first stands.
        classes: every label that the corpus knows, in the order of its class numbers; sorted where not given.
    Raises:
        BadRows (an InterpError): clips that cannot be used, all of them, or no usable clip.
        InterpError: no clip at all.
    """
    if drafted.empty:
        said = "".join(f" {note}" for note in notes)
        raise InterpError(f"{root} holds no clip of the corpus {name!r}; is it the right folder?{said}")
    drafted = drafted.reset_index(drop=True)
    usable = drafted[drafted[_REASON] == ""]
    again = usable[usable["clip_id"].duplicated()]
    if len(again):
        first = usable.drop_duplicates("clip_id").set_index("clip_id")[_FILE]
        twice = [f"has the clip_id {one!r} of {first[one]}; keep one of the two" for one in again["clip_id"]]
        drafted.loc[again.index, _REASON] = pd.array(twice, dtype="str")

    fine = drafted[_REASON] == ""
    told = drafted.loc[~fine, [_ROW, _FILE, _REASON, _TABLE]]
    bad = tuple(BadEntry(int(row), file, reason, table) for row, file, reason, table in told.itertuples(index=False))
    if bad and not (skip_bad and fine.any()):
        raise BadRows(_message(name, bad, len(drafted)), bad)
    clips = drafted.loc[fine].drop(columns=[_FILE, _TABLE, _ROW, _REASON]).reset_index(drop=True)
    clips = clips[["clip_id", "path", *(column for column in clips if column not in ("clip_id", "path"))]]
    there = set(clips["label"])
    ordered = tuple(label for label in classes if label in there) or tuple(sorted(there))
    tables = tuple((root if root.is_dir() else root.parent) / table for table in drafted[_TABLE].unique() if table)
    return Corpus(name, root, clips, tuple(units), ordered, media, bad, tuple(notes), tables)


def _message(name: str, bad: Sequence[BadEntry], n_clips: int) -> str:
    left = n_clips - len(bad)
    skip = f"pass --skip-bad to leave out {len(bad)} bad clip{'s' if len(bad) > 1 else ''}."
    if len(bad) == 1:
        return f"{name}: {bad[0]}" + (f", or {skip}" if left else ". It is the only clip.")
    lines = [f"{name}: {len(bad)} of {n_clips} clips cannot be used."]
    lines += [f"- {entry}" for entry in bad[:SHOWN_ROWS]]
    lines += [f"- and {len(bad) - SHOWN_ROWS} more"] if len(bad) > SHOWN_ROWS else []
    lines += [f"Correct them or {skip}" if left else "Correct them: no clip is left."]
    return "\n".join(lines)


def passed_over(others: Counter[str]) -> list[str]:
    """A note on files that are no audio; none where there are none."""
    if not others:
        return []
    kinds = ", ".join(
        f"{count} {'.' + ending if ending else 'without ending'}" for ending, count in sorted(others.items())
    )
    plural = "s" if others.total() > 1 else ""
    return [f"{others.total()} file{plural} that Patchbay does not decode passed over: {kinds}."]
