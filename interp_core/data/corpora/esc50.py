"""ESC-50: 2,000 environmental sounds of 5 s, 50 classes of 40, in five folds.

`meta/esc50.csv` names every clip; `audio/{FOLD}-{SRC_FILE}-{TAKE}-{TARGET}.wav` repeats most of it, and the two must
agree. Clips of one `src_file` are cut from one recording: they are one unit, and lie in one fold.
Two numberings of the classes exist: `target` (0 = dog) and the alphabet (0 = airplane). Labels here are names, their
order is the alphabet's, and the column `target` keeps the other.
Kaggle's copy has the table beside `audio/`, and the recordings at two rates in `audio/audio/`; its lower rate is read
only where the original one is not there.
Source: Piczak 2015, "ESC: Dataset for Environmental Sound Classification"; layout as in karolpiczak/ESC-50.
"""

from collections.abc import Sequence
from pathlib import Path

from interp_core.data.corpora.common import (
    MISSING,
    OUTSIDE,
    Corpus,
    Listing,
    corpus_folder,
    draft,
    ending_of,
    finish,
    leaves,
    need_columns,
    read_table,
)

NAME = "esc50"
TITLE = "ESC-50"

TABLE = "meta/esc50.csv"
TABLES = (TABLE, "esc50.csv")
AUDIO_FOLDERS = ("audio", "audio/audio", "audio/44100", "audio/audio/44100", "audio/16000", "audio/audio/16000")
COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")


def recognises(root: Path) -> bool:
    return (root / _table_of(root)).is_file()


def read(root: Path | str, *, skip_bad: bool = False) -> Corpus:
    """Read the clips of `meta/esc50.csv`, or of `esc50.csv`.

    Args:
        root: holds the table and `audio/`.
        skip_bad: leave out clips that cannot be used.
    Returns:
        `label` is the category; `fold`, `target`, `esc10`, `src_file` and `take` as in the table.
    Raises:
        BadRows, InterpError: see `finish` and `read_table`.
    """
    folder = corpus_folder(root, NAME)
    shown = _table_of(folder)
    table = read_table(folder / shown, shown)
    need_columns(table, COLUMNS, shown)
    listing = Listing()
    audio = _audio_of(folder, listing, list(table["filename"]))
    names: dict[str, str] = {}  # category of each target, as first met
    files, reasons = [], []
    for row in table[list(COLUMNS)].itertuples(index=False):
        filename, fold, target, category, _, src_file, take = map(str, row)
        file = f"{audio}/{filename}"
        faults = []
        if leaves(filename):
            faults.append(OUTSIDE)
        elif not listing.holds(folder / file):
            faults.append(MISSING)
        if filename.rpartition(".")[0] != f"{fold}-{src_file}-{take}-{target}":
            faults.append(
                f"has another name than its fold, src_file, take and target give ({fold}-{src_file}-{take}-{target}); "
                "restore the table"
            )
        if not category:
            faults.append("has no category; restore the table")
        elif names.setdefault(target, category) != category:
            faults.append(f"has target {target} and category {category!r}, but {target} is {names[target]!r} above")
        files.append(file)
        reasons.append("; and ".join(faults))
    columns = {
        "clip_id": [Path(file).stem for file in files],
        "path": [str(folder / file) for file in files],
        "label": list(table["category"]),
        **{column: list(table[column]) for column in COLUMNS if column not in ("filename", "category")},
    }
    rest = listing.names(folder / audio) - set(table["filename"])
    unlisted = sum(not name.startswith(".") and ending_of(name) == "wav" for name in rest)
    said = [] if audio == AUDIO_FOLDERS[0] else [f"Recordings from {audio}/."]
    return finish(
        NAME,
        folder,
        draft(columns, files=files, reasons=reasons, table=shown, rows=list(table.index)),
        skip_bad=skip_bad,
        units=("src_file", "fold"),
        notes=[*said, f"Left out what {shown} does not name in {audio}/: {unlisted} files."] if unlisted else said,
    )


def _table_of(root: Path) -> str:
    return next((table for table in TABLES if (root / table).is_file()), TABLE)


def _audio_of(root: Path, listing: Listing, names: Sequence[str]) -> str:
    """The folder that holds most of the recordings; of equals the first."""
    wanted = frozenset(names)
    return max(AUDIO_FOLDERS, key=lambda folder: len(wanted & listing.names(root / folder)))
