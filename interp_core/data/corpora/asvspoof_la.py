"""ASVspoof 2019 and 2021, logical access: bona fide and spoofed speech, in 2021 after a telephone line.

2019: `ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.train.trn.txt` (`dev.trl`, `eval.trl`), 5 fields without a
header, and `ASVspoof2019_LA_train/flac/LA_T_1138215.flac`:
    SPEAKER FLAC - ATTACK KEY
2021: `ASVspoof2021_LA_eval/flac/`, and its keys, which are another archive, `keys/LA/CM/trial_metadata.txt`, 8 fields:
    SPEAKER FLAC CODEC TRANSMISSION ATTACK KEY TRIM SUBSET
The list `ASVspoof2021.LA.cm.eval.trl.txt` that lies beside the recordings names them without a key and is not used.
No codec (`none`, and all of 2019) is `NONE`, as in ASVspoof 5.
Source: READMEs of the corpora (DataShare 10283/3336; Zenodo 4837263) and of the keys on www.asvspoof.org.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from interp_core.data.corpora.asvspoof5 import KEYS, UNCODED, finder
from interp_core.data.corpora.common import Corpus, Listing, by_column, corpus_folder, draft, entries, finish
from interp_core.errors import InterpError

NAME = "asvspoof_la"
TITLE = "ASVspoof LA"

EDITIONS = {
    "2019": {
        "train": "ASVspoof2019.LA.cm.train.trn.txt",
        "dev": "ASVspoof2019.LA.cm.dev.trl.txt",
        "eval": "ASVspoof2019.LA.cm.eval.trl.txt",
    },
    "2021": {"eval": "trial_metadata.txt"},
}
"""The protocol of each split of each edition."""
_PLACES = ("", "ASVspoof2019_LA_cm_protocols", "keys/LA/CM", "LA/CM", "keys/CM", "CM")
_FIELDS = {"2019": 5, "2021": 8}
_COLUMNS = (
    *("clip_id", "path", "label", "speaker", "split", "domain", "codec", "transmission", "attack_label", "trim"),
    "edition",
)


def recognises(root: Path) -> bool:
    without_keys = _flac_folders(root, "2021", "eval", named=True)  # taken for it all the same, to say what is missing
    return bool(without_keys) or any(_protocols(root, edition) for edition in EDITIONS)


def read(root: Path | str, *, skip_bad: bool = False, edition: str | None = None) -> Corpus:
    """Read the protocols of one edition.

    Args:
        root: holds the folders of protocols or keys and of recordings, or one folder (`LA`) that does.
        skip_bad: leave out clips that cannot be used.
        edition: "2019" or "2021"; by default the first of the two that is there.
    Returns:
        `label` is the key ("bonafide" or "spoof"), `attack_label` the attack ("A07", "" where bona fide), `split`
        "train", "dev" or "eval", in 2021 the subset ("progress", "eval", "hidden"), `domain` and `codec` the codec.
    Raises:
        BadRows, InterpError: see `finish`; also no such edition.
    """
    folder = corpus_folder(root, NAME)
    if edition is not None and edition not in EDITIONS:
        raise InterpError(f"edition={edition!r} is no edition of {NAME}; give {' or '.join(map(repr, EDITIONS))}.")
    there = [one for one in EDITIONS if edition in (None, one) and _protocols(folder, one)]
    if not there:
        names = " or ".join(next(iter(EDITIONS[one].values())) for one in EDITIONS if edition in (None, one))
        raise InterpError(
            f"{folder} holds no protocol of {NAME} with keys ({names}); unpack the protocols of 2019, or the keys of "
            "2021 (LA-keys-full.tar.gz), into it."
        )
    taken, notes, drafts, listing = there[0], [], [], Listing()
    if len(there) > 1:
        notes.append(f"The recordings of {taken}; those of {there[1]} were left out, give their own folder.")
    for split, path in _protocols(folder, taken).items():
        shown, flacs = os.path.relpath(path, folder), _flac_folders(folder, taken, split)
        if not flacs:
            notes.append(f"{shown} is there, but no folder {_recordings(taken, split)}: {split} was left out.")
            continue
        drafts.append(_drafted(path, shown, taken, split, flacs, listing))
    drafted = pd.concat(drafts, ignore_index=True) if drafts else pd.DataFrame()
    return finish(NAME, folder, drafted, skip_bad=skip_bad, units=("speaker",), classes=KEYS, notes=notes)


def _drafted(path: Path, shown: str, edition: str, split: str, flacs: Sequence[Path], listing: Listing) -> pd.DataFrame:
    find = finder(flacs, listing, path.parent)
    clips, reasons, rows = [], [], []
    for number, fields in _lines(path):
        problem = _fault(fields, edition)
        values = ["", fields[min(1, len(fields) - 1)], *[""] * 6] if problem else fields
        if edition == "2019" and not problem:
            values = [*fields[:2], UNCODED, "none", *fields[3:], "", split]
        speaker, flac, codec, transmission, attack, key, trim, subset = values
        file = ""
        if not problem:
            file, problem = find(flac, "")
        codec = UNCODED if codec == "none" else codec
        attack, transmission = ("" if one in ("-", "none", KEYS[0]) else one for one in (attack, transmission))
        clips.append((flac, file, key, speaker, subset, codec, codec, transmission, attack, trim, edition))
        reasons.append(problem)
        rows.append(number)
    files = [clip[0] for clip in clips]
    return draft(by_column(_COLUMNS, clips), files=files, reasons=reasons, table=shown, rows=rows)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from ((number, fields) for number, line in enumerate(file, 1) if (fields := line.split()))
    except (OSError, ValueError) as error:
        raise InterpError(f"{path} cannot be read as UTF-8 text ({error}); restore it.") from error


def _fault(fields: Sequence[str], edition: str) -> str:
    needed = _FIELDS[edition]
    at = 4 if edition == "2019" else 5
    if len(fields) != needed or fields[at] not in KEYS:
        return f"has {len(fields)} fields; a line has {needed}, bonafide or spoof as field {at + 1}; restore the table"
    attack, key = fields[at - 1], fields[at]
    if (attack in ("-", KEYS[0])) != (key == KEYS[0]):
        return f"is {key}, but has the attack label {attack!r}; restore the table"
    return ""


def _inside(root: Path) -> list[Path]:
    """A folder and the folders in it, but not those of the recordings, which hold 100,000s of files."""
    if not root.is_dir():
        return []
    return [root, *(Path(entry.path) for entry in entries(root) if entry.name != "flac" and entry.is_dir())]


def _protocols(root: Path, edition: str) -> dict[str, Path]:
    """The protocol of each split that has one."""
    inside = _inside(root)
    places = {
        split: [folder / place / name for folder in inside for place in _PLACES]
        for split, name in EDITIONS[edition].items()
    }
    found = {split: next((path for path in paths if path.is_file()), None) for split, paths in places.items()}
    return {split: path for split, path in found.items() if path is not None and _is_la(path, edition)}


def _is_la(path: Path, edition: str) -> bool:
    """Whether a file is of logical access: the keys of the deepfake task have the same name."""
    first = next(_lines(path), (0, []))[1]
    return edition == "2019" or len(first) < 2 or first[1].startswith("LA_")


def _recordings(edition: str, split: str) -> str:
    return f"ASVspoof{edition}_LA_{split}/flac"


def _flac_folders(root: Path, edition: str, split: str, named: bool = False) -> list[Path]:
    """The folders of a split's recordings; `named`: only where their names say so."""
    name = _recordings(edition, split)
    places = [folder / one for folder in _inside(root) for one in (name, name.partition("/")[0])]
    if edition == "2021" and not named:
        places.append(root / "flac")  # the keys were unpacked into the folder of the recordings
    return [path for path in places if path.is_dir()]
