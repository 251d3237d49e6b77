"""Manifests: the table of clips that a run works on, checked as a whole before anything runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from interp_core.data.clips import Clip, ClipLimits
from interp_core.errors import InterpError


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its line in the CSV (the header is line 1), its file as written, and why."""

    row: int
    file: str
    reason: str


class BadRows(InterpError):
    """A manifest with rows that cannot be used; `rows` holds all of them, the message the first 20."""

    def __init__(self, message: str, rows: Sequence[BadRow]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


@dataclass(frozen=True)
class Manifest:
    """A manifest that has been read: its usable clips in row order, and which rows were left out."""

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
    """Read a CSV or Parquet manifest and check every row."""
    import csv

    from interp_core.data.clips import decode, file_digest

    path = Path(path)
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))[:max_clips]
    clips = []
    for row in rows:
        where = path.absolute().parent / row["path"]
        decode(where, limits)
        labels = {k: v for k, v in row.items() if v and k not in ("clip_id", "path")}
        clips.append(Clip(row["clip_id"], where, labels, file_digest(where)))
    return Manifest(path, tuple(clips), tuple(rows[0]), file_digest(path), ())
