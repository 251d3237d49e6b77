"""The plain layout: one folder a class, `ROOT/dog/bark.wav`, with or without folders of splits above the classes."""

from collections.abc import Iterable
from pathlib import Path

from interp_core.data.corpora.common import (
    AUDIO,
    LOOKED_AT,
    Corpus,
    corpus_folder,
    draft,
    ending_of,
    entries,
    finish,
    passed_over,
    walk,
)

NAME = "folder_per_class"
TITLE = "A folder a class"

SPLITS = frozenset(("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation"))


def recognises(root: Path) -> bool:
    """Two folders or more that hold a recording themselves, or folders of splits that hold such folders."""
    folders = [Path(entry.path) for entry in entries(root) if entry.is_dir()]
    if folders and _are_splits(folder.name for folder in folders):
        return any(_classes_in(folder) >= 2 for folder in folders)
    return _classes_in(root) >= 2


def _classes_in(folder: Path) -> int:
    classes = [Path(entry.path) for entry in entries(folder) if entry.is_dir()][:LOOKED_AT]
    return sum(any(ending_of(entry.name) in AUDIO for entry in entries(one)[:LOOKED_AT]) for one in classes)


def read(root: Path | str, *, skip_bad: bool = False, splits: bool | None = None) -> Corpus:
    """Read every recording below a folder; the label is the folder of the class, however deep the file lies in it.

    Args:
        root: holds the folders of the classes.
        skip_bad: leave out recordings that lie in no class, and all but the first of those with one clip_id.
        splits: whether the first folders are splits (`train`, `test`, ...) and the second ones classes; by default
            they are where every one of them has such a name.
    Returns:
        `clip_id` is the path below `root` without its ending; `split` where there are splits. Nothing is known about
        which clips are related, so there are no units.
    Raises:
        BadRows, InterpError: see `finish`.
    """
    folder = corpus_folder(root, NAME)
    files, others = walk(folder)
    above = [entry.name for entry in entries(folder) if entry.is_dir()]
    if splits is None:
        splits = bool(above) and _are_splits(above)
    parts = [file.split("/") for file in files]
    depth = 1 + splits
    columns = {
        "clip_id": [file.rpartition(".")[0] for file in files],
        "path": [str(folder / file) for file in files],
        "label": [names[depth - 1] if len(names) > depth else "" for names in parts],
    }
    if splits:
        columns["split"] = [names[0] if len(names) > 1 else "" for names in parts]
    where = "SPLIT/CLASS/" if splits else "CLASS/"
    reasons = ["" if label else f"lies in no folder of a class; move it to {where}" for label in columns["label"]]
    empty = sorted(set(above) - {names[0] for names in parts if len(names) > 1})
    notes = [f"No recordings in {', '.join(empty)}."] if empty else []
    return finish(
        NAME,
        folder,
        draft(columns, files=files, reasons=reasons),
        skip_bad=skip_bad,
        notes=[*notes, *passed_over(others)],
    )


def _are_splits(names: Iterable[str]) -> bool:
    return all(name.lower() in SPLITS for name in names)
