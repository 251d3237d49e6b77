"""VocalSound: 21,024 coughs, laughs, sighs, sneezes, sniffs and throat clearings of 3,365 speakers.

`audio_16k/f0003_0_cough.wav` = sex and speaker _ collection _ class. The split of a clip stands in
`datafiles/{tr,val,te}.json`, whose paths are those of the author's machine, so only their last part is used; where a
file is not listed its speaker's split in `meta/{tr,val,te}_meta.csv` is taken (no header: speaker, sex, age, country,
native language, health). Splits never share a speaker.
Source: Gong, Yu & Glass 2022, arXiv:2205.03433; layout as in YuanGongND/vocalsound.
"""

import csv
import json
import re
from pathlib import Path

from interp_core.data.corpora.common import (
    MISSING,
    Corpus,
    Listing,
    by_column,
    corpus_folder,
    draft,
    ending_of,
    entries,
    finish,
)
from interp_core.errors import InterpError

NAME = "vocalsound"
TITLE = "VocalSound"

CLASSES = {
    "laughter": "/m/01j3sz",
    "sigh": "/m/07plz5l",
    "cough": "/m/01b_21",
    "throatclearing": "/m/0dl9sf8",
    "sneeze": "/m/01hsr_",
    "sniff": "/m/07ppn3j",
}
"""Each class as file names write it and its AudioSet id, in the order of `class_labels_indices_vs.csv`."""

SPLITS = {"tr": "train", "val": "val", "te": "test"}
_FOLDERS = {"16k": ("audio_16k", "data_16k"), "44k": ("audio_44k", "data_44k")}
_NAME = re.compile(r"([fm])(\d+)_(\d+)_([a-z]+)")
_ABOUT = ("age", "country", "native_language", "health")
_COLUMNS = ("clip_id", "path", "label", "speaker", "split", "sex", "collection", *_ABOUT)


def recognises(root: Path) -> bool:
    audio = [root / folder for rate in _FOLDERS for folder in _FOLDERS[rate] if (root / folder).is_dir()]
    if not audio:
        return False
    if (root / "class_labels_indices_vs.csv").is_file() or (root / "datafiles").is_dir():
        return True
    return any(_NAME.fullmatch(Path(entry.name).stem) for entry in entries(audio[0]))


def read(root: Path | str, *, skip_bad: bool = False, rate: str | None = None) -> Corpus:
    """Read every recording of one sample rate.

    Args:
        root: holds `audio_16k` or `audio_44k` (also `data_44k`), and `datafiles` and `meta` where splits and speakers
            are wanted.
        skip_bad: leave out clips that cannot be used.
        rate: "16k" or "44k"; by default the first of the two that is there.
    Returns:
        `label` is the class, `speaker` sex and number ("f0003"), `split` "train", "val", "test" or "".
    Raises:
        BadRows, InterpError: see `finish`; also no such rate, or a JSON file that is none.
    """
    folder = corpus_folder(root, NAME)
    audio = _audio_of(folder, rate)
    listed, odd = _listed(folder)
    about, split_of_speaker = _speakers(folder)
    here = [name for name in sorted(Listing().names(audio)) if not name.startswith(".") and ending_of(name) == "wav"]
    names = sorted({*here, *listed})
    there = frozenset(here)
    clips: list[tuple[str, ...]] = []
    reasons = []
    n_without = 0
    for name in names:
        stem = Path(name).stem
        found = _NAME.fullmatch(stem)
        faults = [] if name in there else [f"is in datafiles/{listed[name][0]}.json, but {MISSING}"]
        sex, number, collection, label = found.groups() if found else ("", "", "", "")
        if found is None:
            faults.append("has a name that is not SPEAKER_COLLECTION_CLASS (an example is f0003_0_cough); correct it")
        elif label not in CLASSES:
            faults.append(f"has the class {label!r} in its name (known: {', '.join(CLASSES)}); correct it")
        speaker = f"{sex}{number}"
        in_json = {SPLITS[one] for one in listed.get(name, ())}
        if len(in_json) > 1:
            faults.append(f"is listed in {' and in '.join(sorted(in_json))}; restore datafiles/")
        split = min(in_json, default=split_of_speaker.get(speaker, ""))
        n_without += not split
        sex = {"f": "female", "m": "male"}.get(sex, "")
        told = about.get(speaker, [""] * len(_ABOUT))
        clips.append((stem, str(audio / name), label, speaker, split, sex, collection, *told))
        reasons.append("; and ".join(faults))
    other = {name for name in there & set(listed) if odd.get(name, "") not in ("", CLASSES.get(_class_of(name), ""))}
    notes = [f"Recordings from {audio.name}/."]
    if n_without:
        notes.append(f"{n_without} of {len(names)} clips without a split.")
    if other:
        has, its = ("have", "their names") if len(other) > 1 else ("has", "its name")
        said = f"{len(other)} of {len(names)} clips {has} another class in datafiles/ than in {its}; names were taken."
        notes.append(said)
    return finish(
        NAME,
        folder,
        draft(by_column(_COLUMNS, clips), files=[f"{audio.name}/{name}" for name in names], reasons=reasons),
        skip_bad=skip_bad,
        units=("speaker",),
        classes=tuple(CLASSES),
        notes=notes,
    )


def _class_of(name: str) -> str:
    return Path(name).stem.rpartition("_")[2]


def _audio_of(root: Path, rate: str | None) -> Path:
    if rate is not None and rate not in _FOLDERS:
        raise InterpError(f"rate={rate!r} is no rate of {NAME}; give {' or '.join(map(repr, _FOLDERS))}.")
    wanted = [folder for one in _FOLDERS if rate in (None, one) for folder in _FOLDERS[one]]
    audio = next((root / folder for folder in wanted if (root / folder).is_dir()), None)
    if audio is None:
        raise InterpError(f"{root} has no folder {' or '.join(wanted)}; give the folder of the corpus that holds one.")
    return audio


def _listed(root: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """({file name: the JSON files that list it, by the names in SPLITS}, {file name: its AudioSet id there})."""
    listed: dict[str, list[str]] = {}
    ids: dict[str, str] = {}
    for short in SPLITS:
        path = next((one for end in ("", "_rev") if (one := root / f"datafiles/{short}{end}.json").is_file()), None)
        if path is None:
            continue
        try:
            for entry in json.loads(path.read_text("utf-8"))["data"]:
                name = re.split(r"[/\\]", entry["wav"])[-1]
                listed.setdefault(name, []).append(short)
                ids[name] = str(entry.get("labels", ""))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InterpError(
                f'{path} does not hold {{"data": [{{"wav": ..., "labels": ...}}]}} ({error}); restore it.'
            ) from error
    return listed, ids


def _speakers(root: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """({speaker: age, country, native language, health}, {speaker: split}), as far as `meta/` tells."""
    about: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    for short in ("all", *SPLITS):
        path = root / f"meta/{short}_meta.csv"
        if not path.is_file():
            continue
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = [[value.strip() for value in row] for row in csv.reader(file)]
        except (OSError, ValueError, csv.Error) as error:
            raise InterpError(f"{path} cannot be read as UTF-8 CSV ({error}); restore it.") from error
        for row in rows:
            if row and re.fullmatch(r"[fm]\d+", row[0]):  # not a header, should a release have one
                about[row[0]] = (row[2:6] + [""] * len(_ABOUT))[: len(_ABOUT)]
                if short in SPLITS:
                    splits[row[0]] = SPLITS[short]
    return about, splits
