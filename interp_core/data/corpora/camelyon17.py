"""Camelyon17 in the WILDS layout: patches of lymph node slides from five hospitals. Images, not audio.

`metadata.csv` has one row a patch; its `split` says only which patches were held out at random (0 = train, 1 = held
out). The official split is made by the loader, which moves centre 1 to "val" and centre 2 to "test" whole, and so does
this reader. Centres are numbered 0 to 4 as in the file (`center`, patient // 20, slide // 10); the paper's "hospital 5"
and other numberings are not used anywhere, and which centres are trained and tested on is the user's choice.
Patients are three-digit strings ("004"). Held-out patches come from the slides that are trained on, so intervals
resample slides or patients, never patches.
Source: p-lambda/wilds, camelyon17 v1.0 (`camelyon17_dataset.py`, `generate_final_metadata.py`).
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from interp_core.data.corpora.common import (
    MISSING,
    Corpus,
    Listing,
    corpus_folder,
    draft,
    finish,
    need_columns,
    read_table,
)
from interp_core.errors import InterpError

NAME = "camelyon17"
TITLE = "Camelyon17"

TABLE = "metadata.csv"
COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split")
CLASSES = ("normal", "tumor")
"""In the order of the column `tumor`, 0 and 1."""

CENTRES = range(5)
OFFICIAL_TRAIN, OFFICIAL_VAL, OFFICIAL_TEST = (0, 3, 4), 1, 2


def recognises(root: Path) -> bool:
    folder = _folder_of(root)
    if folder is None or not (folder / "patches").is_dir():
        return False
    with open(folder / TABLE, encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return {"patient", "center", "tumor"} <= {name.strip() for name in header.split(",")}


def read(
    root: Path | str,
    *,
    skip_bad: bool = False,
    train: Sequence[int] | None = None,
    ood: Sequence[int] | None = None,
    id_val: Sequence[int] | None = None,
) -> Corpus:
    """Read the patches of `metadata.csv`.

    Args:
        root: holds `metadata.csv` and `patches/`, or `camelyon17_v1.0` with them.
        skip_bad: leave out patches that cannot be used.
        train, ood: centres to train on and to test on. Given together, `split` is "train" (patches of `train` that
            were not held out), "id_val" (see below), "ood" (all patches of `ood`) or "" (all others).
        id_val: centres to validate on in domain, those of `train` by default. Of a centre that is trained on the
            held-out patches are "id_val", of another one all patches.
    Returns:
        `label` is "tumor" or "normal", `domain` and `center` the hospital as numbered in the file, `slide` and
        `patient` the units. By default `split` is the official one: "train", "id_val", "val" (out of domain, centre 1)
        and "test" (out of domain, centre 2).
    Raises:
        BadRows, InterpError: see `finish` and `read_table`; also a choice of centres that overlaps or is incomplete.
    """
    folder = corpus_folder(root, NAME)
    folder = _folder_of(folder) or folder
    chosen = _chosen(train, ood, id_val)
    table = read_table(folder / TABLE, TABLE)
    need_columns(table, COLUMNS, TABLE)
    table["patient"] = table["patient"].str.zfill(3)  # a spreadsheet takes the zeros off
    files = _files(table)
    numbers = pd.DataFrame({column: pd.to_numeric(table[column], errors="coerce") for column in COLUMNS})
    reasons = _reasons(table, numbers)
    listing = Listing()
    paths = [str(folder / file) for file in files]
    absent = pd.Series([not listing.holds(path) for path in paths], index=table.index)
    reasons = _add(reasons, absent, MISSING)
    columns = {
        "clip_id": [Path(file).stem.removeprefix("patch_") for file in files],
        "path": paths,
        "label": [CLASSES[tumor == 1] for tumor in numbers["tumor"]],
        "split": list(_splits(numbers, *chosen)),
        "domain": list(table["center"]),
        **{column: list(table[column]) for column in ("center", "slide", "patient", "node", "x_coord", "y_coord")},
    }
    return finish(
        NAME,
        folder,
        draft(columns, files=files, reasons=list(reasons), table=TABLE, rows=list(table.index)),
        skip_bad=skip_bad,
        units=("slide", "patient"),
        classes=CLASSES,
        media="image",
        notes=[_note(*chosen)],
    )


def _folder_of(root: Path) -> Path | None:
    return next((folder for folder in (root, root / "camelyon17_v1.0") if (folder / TABLE).is_file()), None)


def _files(table: pd.DataFrame) -> list[str]:
    columns = (table[column] for column in ("patient", "node", "x_coord", "y_coord"))
    return [
        f"patches/patient_{patient}_node_{node}/patch_patient_{patient}_node_{node}_x_{x}_y_{y}.png"
        for patient, node, x, y in zip(*columns, strict=True)
    ]


def _reasons(table: pd.DataFrame, numbers: pd.DataFrame) -> pd.Series:
    """What is wrong with each row, before its file is looked for."""
    reasons = pd.Series("", index=table.index, dtype="str")
    for column in COLUMNS:
        whole = numbers[column].notna() & (numbers[column] >= 0) & (numbers[column] % 1 == 0)
        reasons = _add(reasons, ~whole, f"has a {column} that is no whole number; restore the table")
    of_patient = numbers["center"] == numbers["patient"] // 20
    of_slide = numbers["center"] == numbers["slide"] // 10
    said = "has another center than its patient // 20 and slide // 10 give; restore the table, centres are 0 to 4"
    reasons = _add(reasons, ~(of_patient & of_slide) & (reasons == ""), said)
    reasons = _add(reasons, ~numbers["tumor"].isin((0, 1)), "has a tumor that is neither 0 nor 1; restore the table")
    moved = numbers["center"].isin((OFFICIAL_VAL, OFFICIAL_TEST))  # a saved official split has 3 and 2 there
    known = numbers["split"].isin((0, 1)) | (moved & numbers["split"].isin((2, 3)))
    return _add(reasons, ~known, "has a split that is neither 0 nor 1; restore the table")


def _add(reasons: pd.Series, where: pd.Series, reason: str) -> pd.Series:
    joined = reasons.where(reasons == "", reasons + "; and ") + reason
    return reasons.where(~where, joined)


Choice = tuple[frozenset[int], frozenset[int], frozenset[int]] | tuple[()]


def _chosen(train: Sequence[int] | None, ood: Sequence[int] | None, id_val: Sequence[int] | None) -> Choice:
    """(train, ood, id_val) centres; () for the official split."""
    if train is None and ood is None and id_val is None:
        return ()
    if not train or not ood:
        raise InterpError("give the centres to train on and those to test on (train and ood), or neither.")
    sets = frozenset(train), frozenset(ood), frozenset(train if id_val is None else id_val)
    unknown = sorted(frozenset.union(*sets) - set(CENTRES))
    if unknown:
        raise InterpError(f"centre {', '.join(map(repr, unknown))} is not in {NAME} (0 to 4, as in metadata.csv).")
    both = sorted(sets[1] & (sets[0] | sets[2]))
    if both:
        raise InterpError(f"centre {', '.join(map(str, both))} is both in and out of domain; take it out of one side.")
    return sets


def _splits(numbers: pd.DataFrame, *chosen: frozenset[int]) -> pd.Series:
    center, held_out = numbers["center"], numbers["split"] == 1
    splits = pd.Series("", index=numbers.index, dtype="str")
    if not chosen:
        splits[center.isin(OFFICIAL_TRAIN)] = "train"
        splits[center.isin(OFFICIAL_TRAIN) & held_out] = "id_val"
        splits[center == OFFICIAL_VAL] = "val"
        splits[center == OFFICIAL_TEST] = "test"
        return splits
    train, ood, id_val = chosen
    splits[center.isin(train) & ~held_out] = "train"
    splits[center.isin(id_val) & (held_out | ~center.isin(train))] = "id_val"
    splits[center.isin(ood)] = "ood"
    return splits


def _note(*chosen: frozenset[int]) -> str:
    if not chosen:
        return "Official split: trained on centres 0, 3, 4; out of domain are centre 1 (val) and centre 2 (test)."
    train, ood, id_val = (", ".join(map(str, sorted(one))) for one in chosen)
    return f"Chosen split: trained on centre {train}; id_val from centre {id_val}; out of domain centre {ood}."
