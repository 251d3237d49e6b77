"""Manifests: the table of clips that a run works on, checked as a whole before anything runs.

A manifest is a CSV or Parquet file with the columns `clip_id` and `path`; every further column is kept as a label.
All rows that cannot be used are reported at once, and a clip counts as usable only after its audio was decoded.
"""

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from interp_core.data.clips import BadAudio, Clip, ClipLimits, decode, file_digest, rms
from interp_core.data.tables import NEEDED, Row, read_table
from interp_core.errors import InterpError

SHOWN_ROWS = 20
SILENCE_DB = -80.0
"""Root mean square against full scale below which a recording is called silent; one step of 16 bits is -90."""


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
        notes: what was put right in reading it, and what else a person should know about its clips, in sentences.
        silent: the clips whose mean of all channels is below `SILENCE_DB`.
    """

    path: Path
    clips: tuple[Clip, ...]
    columns: tuple[str, ...]
    digest: str
    skipped: tuple[BadRow, ...]
    notes: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()

    @property
    def digests(self) -> dict[str, str]:
        """What each clip holds: clip_id -> digest."""
        return {clip.clip_id: clip.digest for clip in self.clips}


@dataclass(frozen=True)
class Clips:
    """Usable clips, the rows that were left out (none unless asked for), and the silent ones among the clips."""

    clips: tuple[Clip, ...]
    bad: tuple[BadRow, ...] = ()
    silent: tuple[str, ...] = ()


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
    check_inside(path, roots)
    table = read_table(path)
    drafts = _drafts(table.rows[:max_clips], path.absolute().parent)
    if not drafts:
        raise InterpError(f"{path.name} has a header but no rows; add one row a clip.")
    _check_audio(drafts, allowed, limits or ClipLimits(), progress)

    clips, bad = _usable(drafts, path, skip_bad)
    notes = (*table.notes, *_put_right(drafts))
    return Manifest(path, clips, table.columns, table.digest, bad, notes, _silent(drafts))


def read_clips(
    rows: Sequence[Mapping[str, str]],
    root: Path,
    *,
    skip_bad: bool = False,
    roots: Sequence[Path] | None = None,
    limits: ClipLimits | None = None,
) -> Clips:
    """Check rows that no manifest file holds, such as those of a corpus, in the way of `read_manifest`.

    Args:
        rows: clip_id, path and labels of each clip; relative paths are taken from `root`, which messages name.
        roots: where given, every clip must lie below one of these folders, links followed.
    """
    drafts = _drafts([Row(i, dict(row)) for i, row in enumerate(rows, 1)], root)
    _check_audio(drafts, None if roots is None else _Allowed(roots), limits or ClipLimits(), None)
    return Clips(*_usable(drafts, root, skip_bad), _silent(drafts))


def check_inside(path: Path, roots: Sequence[Path] | None) -> None:
    """Refuse a path that lies outside the folders that may be read, links followed; None allows all."""
    allowed = None if roots is None else _Allowed(roots)
    if allowed is not None and not allowed.holds(path):
        raise InterpError(f"{path} lies outside the folders that may be read ({allowed}); move it below one of them.")


def _usable(drafts: "Sequence[_Draft]", source: Path, skip_bad: bool) -> tuple[tuple[Clip, ...], tuple[BadRow, ...]]:
    bad = tuple(BadRow(draft.row, draft.file, "; and ".join(draft.reasons)) for draft in drafts if draft.reasons)
    clips = tuple(Clip(draft.clip_id, draft.path, draft.labels, draft.digest) for draft in drafts if not draft.reasons)
    if bad and not (skip_bad and clips):
        raise BadRows(_bad_rows_message(source, bad, len(drafts)), bad)
    return clips, bad


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
    otherwise: list[Path] = field(default_factory=list)
    level: float = 1.0

    @property
    def put_right(self) -> bool:
        """Whether its file was found under another spelling of its path than the one that is written."""
        return self.path in self.otherwise


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


def _drafts(rows: Sequence[Row], folder: Path) -> list[_Draft]:
    """Rows with their values sorted out, and every reason against them that needs no look at the audio file."""
    drafts = []
    first_row: dict[str, int] = {}
    for row in rows:
        labels = {name: value for name, value in row.values.items() if value and name not in NEEDED}
        clip_id, written = row.values.get("clip_id", ""), row.values.get("path", "")
        file = written.strip()
        draft = _Draft(row.number, clip_id, file, folder / file, labels)
        draft.otherwise = [folder / other for other in (written, file.replace("\\", "/")) if other != file]
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
        ways = [way for way in (draft.path, *draft.otherwise) if allowed is None or allowed.holds(way)]
        if not ways:  # before any look: not even its existence is told
            draft.reasons.append(f"lies outside the folders that may be read ({allowed}); move it below one")
            return
        draft.path = next((way for way in ways if os.path.lexists(way)), ways[0])
        try:
            draft.level = rms(decode(draft.path, limits)[0])
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
    missing = [draft for draft in with_file if any("does not exist" in reason for reason in draft.reasons)]
    for draft in missing[:SHOWN_ROWS]:
        if near := _near(draft.path):
            draft.reasons[-1] += f"; did you mean {near!r}?"


def _near(path: Path) -> str:
    """The name in the path's folder that is the missing one but for case, blanks, marks or ending; "" for none."""
    try:
        names = sorted(os.listdir(path.parent))
    except (OSError, ValueError):
        return ""
    alike = [name for name in names if _bare(name) == _bare(path.name)]
    return alike[0] if len(alike) == 1 else ""


def _bare(name: str) -> str:
    letters = unicodedata.normalize("NFKC", Path(name.strip()).stem).casefold()
    return "".join(filter(str.isalnum, letters))


def _put_right(drafts: Sequence[_Draft]) -> list[str]:
    found = [draft for draft in drafts if draft.put_right and not draft.reasons]
    slashed = [draft for draft in found if "\\" in draft.file]
    blank = [draft for draft in found if "\\" not in draft.file]
    said = (
        ("are written with backslashes, which are read as folders", slashed),
        ("end in a blank and are kept", blank),
    )
    return [f"{len(some)} of {len(drafts)} paths {what}: {_quoted(some[0].file)} first." for what, some in said if some]


def _quoted(text: str) -> str:
    """As Python writes it, so that blanks and odd letters are seen, but for backslashes, which stand as they are."""
    return repr(text).replace("\\\\", "\\")


def _silent(drafts: Sequence[_Draft]) -> tuple[str, ...]:
    quiet = 10 ** (SILENCE_DB / 20)
    return tuple(draft.clip_id for draft in drafts if not draft.reasons and draft.level < quiet)
