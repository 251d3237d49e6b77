"""TinySOL: 2,913 notes of 14 instruments, one note a file, in five folds.

`Brass/Bass_Tuba/ordinario/BTb-ord-A1-pp-N-T14d.wav` = family / instrument / technique / instrument, technique, pitch,
dynamics, instance ("1c" to "4c" = string, "N" or "alt1" = take) and retuning ("N" none, "T14d" tuned down by 14 cents,
"R100u" resampled from the note a semitone below). A resampled note and its source are one recording, so `recording`
names the source. `TinySOL_metadata.csv` adds the fold; its headers changed between releases, so columns are found by
any of their names, and without the file the names alone are read.
Source: Cella et al. 2020, OrchideaSOL; Zenodo 3685367 (version 6).
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from interp_core.data.corpora.common import (
    MISSING,
    OUTSIDE,
    Corpus,
    Listing,
    corpus_folder,
    draft,
    entries,
    finish,
    leaves,
    need_columns,
    passed_over,
    read_table,
    walk,
)

NAME = "tinysol"
TITLE = "TinySOL"

TABLE = "TinySOL_metadata.csv"
FAMILIES = ("Brass", "Keyboards", "Strings", "Winds")
HEADERS = {
    "fold": ("Fold",),
    "instrument_abbr": ("Instrument (abbr.)", "Instrument"),
    "instrument": ("Instrument (in full)", "Instrument Name"),
    "pitch": ("Pitch",),
    "pitch_id": ("Pitch ID",),
    "dynamics": ("Dynamics",),
    "string": ("String ID (if applicable)", "String ID"),
    "retuned": ("Needed digital retuning", "Resampled"),
}
"""The columns taken from the table and their headers, the newest release's first; only `Path` is needed."""

_KEYS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_NAME = re.compile(
    r"(?P<abbr>[A-Za-z]+)-(?P<technique>[^-]+)-(?P<key>[A-G]#?)(?P<octave>\d)-(?P<dynamics>pp|p|mf|f|ff)"
    r"-(?P<instance>[^-]+)(-(?P<retuning>N|T\d+[ud]|R100[ud]|T\d+[ud]_R100[ud]))?"
)


def recognises(root: Path) -> bool:
    return _table_of(root) is not None or _base_of(root, FAMILIES) is not None


def read(root: Path | str, *, skip_bad: bool = False) -> Corpus:
    """Read the notes of `TinySOL_metadata.csv`, or those below the folders of the families where there is no table.

    Args:
        root: holds the table and the folders `Brass`, `Keyboards`, `Strings`, `Winds`, or folders that do.
        skip_bad: leave out clips that cannot be used.
    Returns:
        `label` is the instrument as its folder is named ("Bass Tuba"), `instrument` its name in the table,
        `pitch_id` its MIDI number (60 = C4), `recording` and `note` the units (all dynamics and strings of one note).
    Raises:
        BadRows, InterpError: see `finish` and `read_table`.
    """
    folder = corpus_folder(root, NAME)
    path = _table_of(folder)
    if path is None:
        base = _base_of(folder, FAMILIES) or folder
        files, others = walk(base)
        values = pd.DataFrame(index=pd.RangeIndex(len(files)))
        notes = [f"There is no {TABLE}: folds are unknown.", *passed_over(others)]
        table, rows = "", None
    else:
        table = str(path.relative_to(folder))
        told = read_table(path, table)
        need_columns(told, ("Path",), table)
        files, rows, notes = list(told["Path"]), list(told.index), []
        base = _base_of(folder, sorted({file.partition("/")[0] for file in files})) or folder
        present = {column: [one for one in names if one in told.columns] for column, names in HEADERS.items()}
        values = pd.DataFrame({column: told[names[0]] for column, names in present.items() if names})
        lacking = [column for column, names in present.items() if not names]
        if lacking:
            notes.append(f"{table} has no column for {', '.join(lacking)}; taken from the names where they tell.")

    listing = Listing()
    clips, reasons = [], []
    records = values.to_dict("records") or [{} for _ in files]  # none of a table that has no column but the path
    for file, row in zip(files, records, strict=True):
        faults = [OUTSIDE] if leaves(file) else [] if listing.holds(base / file) else [MISSING]
        note = _note_of(file)
        if isinstance(note, str):
            faults.append(note)
            clips.append({"clip_id": Path(file).stem})
        else:
            clip, differ = _joined(note, {str(column): value for column, value in row.items()})
            faults += differ
            clips.append({"clip_id": Path(file).stem, "path": str(base / file), **clip})
        reasons.append("; and ".join(faults))
    frame = pd.DataFrame(clips).fillna("")
    shown = [str((base / file).relative_to(folder)) if not leaves(file) else file for file in files]
    return finish(
        NAME,
        folder,
        draft(
            {str(column): list(frame[column]) for column in frame}, files=shown, reasons=reasons, table=table, rows=rows
        ),
        skip_bad=skip_bad,
        units=("recording", "note"),
        notes=notes,
    )


@dataclass(frozen=True)
class _Note:
    """A note as its path tells it; `shift` is by how many semitones it lies above the recording it was made from."""

    family: str
    folder: str
    abbr: str
    technique: str
    midi: int
    dynamics: str
    instance: str
    retuning: str
    shift: int


def _note_of(file: str) -> _Note | str:
    """The note, or what is wrong with its path."""
    parts = file.split("/")
    if len(parts) != 4:
        return "does not lie in FAMILY/INSTRUMENT/TECHNIQUE/; move it there"
    found = _NAME.fullmatch(Path(file).stem)
    if found is None:
        return (
            "has a name that is not instrument-technique-pitch-dynamics-instance-retuning "
            "(an example is BTb-ord-A1-pp-N-N); give it its name back"
        )
    midi = 12 * (int(found["octave"]) + 1) + _KEYS.index(found["key"]) if found["key"] in _KEYS else -1
    if midi < 0:
        return f"has the pitch {found['key']} in its name, which no note has; correct it"
    retuning = found["retuning"] or ""
    shift = 1 if retuning.endswith("R100u") else -1 if retuning.endswith("R100d") else 0
    named = (found["abbr"], found["technique"], midi, found["dynamics"], found["instance"])
    return _Note(parts[0], parts[1], *named, retuning, shift)


def _joined(note: _Note, row: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """A clip's columns from its path and its row, and where the two disagree."""
    source = _pitch(note.midi - note.shift)
    clip = {
        "label": note.folder.replace("_", " "),
        "family": note.family,
        "instrument": note.folder.replace("_", " "),
        "instrument_abbr": note.abbr,
        "technique": note.technique,
        "pitch": _pitch(note.midi),
        "pitch_id": str(note.midi),
        "dynamics": note.dynamics,
        "instance": note.instance,
        "string": note.instance[0] if re.fullmatch(r"\dc", note.instance) else "",
        "retuned": str(note.retuning != "N").lower() if note.retuning else "",
        "fold": "",
        "recording": f"{note.abbr}-{note.technique}-{source}-{note.dynamics}-{note.instance}",
        "note": f"{note.abbr}-{source}",
    }
    told = {column: value for column, value in row.items() if value}
    for column in ("retuned", "string"):
        if column in told:
            told[column] = told[column].lower().removesuffix(".0")
    faults = [
        f"is {column} {clip[column]} by its name, but {told[column]} by the table; restore the table"
        for column in ("instrument_abbr", "pitch", "pitch_id", "dynamics")
        if told.get(column, clip[column]) != clip[column]
    ]
    return {**clip, **told}, faults


def _pitch(midi: int) -> str:
    return f"{_KEYS[midi % 12]}{midi // 12 - 1}"


def _inside(root: Path) -> list[Path]:
    return [root, *(Path(entry.path) for entry in entries(root) if entry.is_dir())]


def _table_of(root: Path) -> Path | None:
    return next((folder / TABLE for folder in _inside(root) if (folder / TABLE).is_file()), None)


def _base_of(root: Path, families: tuple[str, ...] | list[str]) -> Path | None:
    """The folder that paths in the table begin from: the first one that holds a family's folder."""
    return next((folder for folder in _inside(root) if any((folder / one).is_dir() for one in families if one)), None)
