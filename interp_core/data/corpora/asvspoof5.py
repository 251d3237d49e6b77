"""ASVspoof 5, track 1: bona fide and spoofed speech, and what codec it went through.

Protocols (`ASVspoof5.train.tsv` and others) are separated by blanks whatever their names say, without a header:
    SPEAKER FLAC GENDER CODEC CODEC_Q CODEC_SEED ATTACK_TAG ATTACK_LABEL KEY TMP        (10 fields)
    SPEAKER FLAC GENDER CODEC ATTACK_LABEL KEY                                          (6 fields, the first phase)
KEY is found by its value. "Uncoded" is written `-`, and in the evaluation protocol `0` for CODEC_Q: both become
`NONE`, as in the codec vocabularies of the thesis code. CODEC_SEED names the utterance that a coded clip was made
from; all its versions share `utterance` and must never sit on both sides of a split.
The thesis code's manifests (`train.parquet`, `dev.parquet`, `eval.parquet`) hold the same columns in lower case.
Source: README of the corpus (Zenodo 14498691); Jmqcooper1/asvspoof5-domain-invariant-cm.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from interp_core.data.corpora.common import (
    MISSING,
    OUTSIDE,
    Corpus,
    Listing,
    by_column,
    corpus_folder,
    draft,
    entries,
    finish,
    leaves,
)
from interp_core.errors import InterpError

NAME = "asvspoof5"
TITLE = "ASVspoof 5"

KEYS = ("bonafide", "spoof")
"""Bona fide is 0 in the thesis code; the official baselines have it 1."""

CODECS = {
    **{"C01": "opus_wb", "C02": "amr_wb", "C03": "speex_wb", "C04": "encodec_wb", "C05": "mp3_wb", "C06": "m4a_wb"},
    **{"C07": "mp3_encodec_wb", "C08": "opus_nb", "C09": "amr_nb", "C10": "speex_nb", "C11": "device"},
}
UNCODED = "NONE"
PROTOCOLS = {
    "train": ("ASVspoof5.train.tsv", "ASVspoof5.train.metadata.txt"),
    "dev": ("ASVspoof5.dev.track_1.tsv", "ASVspoof5.dev.metadata.txt"),
    "eval": ("ASVspoof5.eval.track_1.tsv", "ASVspoof5.eval.metadata.txt"),
}
FLAC_FOLDERS = {"train": ("flac_T",), "dev": ("flac_D",), "eval": ("flac_E_eval", "flac_E", "flac_E_prog")}
_FIELDS = ("speaker_id", "flac_file", "gender", "codec", "codec_q", "codec_seed", "attack_tag", "attack_label", "key")
_COLUMNS = (
    *("clip_id", "path", "label", "speaker", "split", "domain", "sex", "codec", "codec_name", "codec_q"),
    *("codec_seed", "utterance", "attack_tag", "attack_label"),
)
_NEEDED = ("flac_file", "key", "audio_path")  # of a thesis manifest


def recognises(root: Path) -> bool:
    return bool(_protocols(root) or _parquets(root))


def read(
    root: Path | str,
    *,
    skip_bad: bool = False,
    splits: Sequence[str] | None = None,
    audio_root: Path | str | None = None,
) -> Corpus:
    """Read protocols, or the thesis code's manifests.

    Args:
        root: holds the protocols (or `ASVspoof5_protocols/` with them) and `flac_T`, `flac_D`, `flac_E_eval`; or holds
            `train.parquet`, `dev.parquet`, `eval.parquet`; or is one such Parquet file.
        skip_bad: leave out clips that cannot be used.
        splits: of "train", "dev", "eval"; by default those whose recordings are there.
        audio_root: the folder with the FLAC folders where it is not `root`. A Parquet file's own paths, which are
            those of the machine that wrote it, are then not used.
    Returns:
        `label` is the key ("bonafide" or "spoof"), `domain` and `codec` the codec ("C05" or "NONE"), `codec_name` its
        name, `utterance` and `speaker` the units.
    Raises:
        BadRows, InterpError: see `finish`; also nothing to read, or a split that is asked for and absent.
    """
    path = Path(root).absolute()
    folder = path.parent if path.is_file() and path.suffix.lower() == ".parquet" else corpus_folder(path, NAME)
    audio = folder if audio_root is None else corpus_folder(audio_root, NAME)
    unknown = sorted(set(splits or ()) - set(PROTOCOLS))
    if unknown:
        raise InterpError(f"{', '.join(map(repr, unknown))} is no split of {NAME}; give of {', '.join(PROTOCOLS)}.")
    parquets = _parquets(path)
    protocols = {} if parquets else _protocols(folder)
    there = parquets or protocols
    if not there:
        raise InterpError(f"{folder} holds no protocol of {NAME} (such as ASVspoof5.train.tsv) and no train.parquet.")
    absent = [split for split in splits or () if split not in there]
    if absent:
        raise InterpError(f"{folder} has no protocol for {' and '.join(absent)}; it has {', '.join(there)}.")

    listing, drafts, notes = Listing(), [], []
    for split in splits or there:
        shown = os.path.relpath(there[split], folder)
        flacs = _flac_folders(audio, split)
        if protocols and not flacs:
            said = f"{shown} is there, but no folder {' or '.join(FLAC_FOLDERS[split])}"
            if splits is not None:
                raise InterpError(f"{said} in {audio}; unpack it, or give its folder as audio_root.")
            notes.append(f"{said}: {split} was left out.")
            continue
        if protocols:
            lines = list(_protocol_lines(there[split]))
        else:
            lines = list(_parquet_rows(there[split], shown, own_paths=audio_root is None))
        drafts.append(_drafted(lines, shown, split, finder(flacs, listing, folder)))
    drafted = pd.concat(drafts, ignore_index=True) if drafts else pd.DataFrame()
    return finish(
        NAME,
        path,
        drafted,
        skip_bad=skip_bad,
        units=("utterance", "speaker"),
        classes=KEYS,
        notes=notes,
    )


Line = tuple[int, str, tuple[str, ...], str, str]
"""Its number, what is wrong with its form, the values of _FIELDS, and the path and the split it gives ("" = none)."""


def _protocol_lines(path: Path) -> Iterator[Line]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                fields = line.split()
                if fields and not (number == 1 and "FLAC_FILE_NAME" in fields):
                    yield number, *_protocol_line(fields), "", ""
    except (OSError, ValueError) as error:
        raise InterpError(f"{path} cannot be read as UTF-8 text ({error}); restore it.") from error


def _protocol_line(fields: list[str]) -> tuple[str, tuple[str, ...]]:
    n = len(fields)
    at = max((i for i, value in enumerate(fields) if value in KEYS), default=-1)
    if (n, at) == (10, 8):
        return "", tuple(fields[:9])
    if (n, at) == (6, 5):
        speaker, flac, gender, codec, attack, key = fields
        return "", (speaker, flac, gender, codec, "-", "-", "-", attack, key)
    where = "no bonafide or spoof" if at < 0 else f"{fields[at]} as field {at + 1}"
    problem = f"has {n} fields and {where}; a line has 10 with it as field 9, or 6 with it as field 6"
    return problem, ("", fields[1] if n > 1 else fields[0], *[""] * 7)


def _parquet_rows(path: Path, shown: str, *, own_paths: bool) -> Iterator[Line]:
    import pyarrow

    try:
        table = pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise InterpError(f"{shown} cannot be read as Parquet ({said}); write it again.") from error
    missing = [column for column in _NEEDED if column not in table.columns]
    if missing:
        raise InterpError(
            f"{shown} has no column {', '.join(map(repr, missing))}; a manifest of the thesis code holds the "
            "protocol's columns in lower case and audio_path."
        )
    text = {
        column: ["" if value is None or value != value else str(value).strip() for value in table[column].tolist()]
        for column in (*_FIELDS, "audio_path", "split")
        if column in table.columns
    }
    blank = [""] * len(table)
    rows = zip(*(text.get(column, blank) for column in _FIELDS), strict=True)
    more = zip(rows, text["audio_path"], text.get("split", blank), strict=True)
    for number, (fields, path_given, split) in enumerate(more, 1):
        yield number, "", fields, path_given if own_paths else "", split


def _drafted(
    lines: Sequence[Line], shown: str, split: str, find: Callable[[str, str], tuple[str, str]]
) -> pd.DataFrame:
    clips: list[tuple[str, ...]] = []
    reasons = []
    for _, problem, fields, given, own_split in lines:
        speaker, flac, gender, *domain, tag, attack, key = fields
        codec, quality = (UNCODED if value in ("", "-", UNCODED) else value for value in domain[:2])
        quality = UNCODED if quality == "0" else quality
        seed, tag = ("" if value in ("-", UNCODED) else value for value in (domain[2], tag))
        path = ""
        if not problem:
            path, problem = find(flac, given)
            problem = "; and ".join(filter(None, (problem, *_faults(key, codec, attack))))
        name = "uncoded" if codec == UNCODED else CODECS.get(codec, "")
        clip_id = flac.removesuffix(".flac")
        sex = {"F": "female", "M": "male"}.get(gender, "")
        spoofing = (seed, seed or clip_id, tag, "" if attack == "-" else attack)
        clips.append((clip_id, path, key, speaker, own_split or split, codec, sex, codec, name, quality, *spoofing))
        reasons.append(problem)
    files, rows = [clip[0] for clip in clips], [number for number, *_ in lines]
    return draft(by_column(_COLUMNS, clips), files=files, reasons=reasons, table=shown, rows=rows)


def _faults(key: str, codec: str, attack: str) -> Iterator[str]:
    if key not in KEYS:
        yield f"has the key {key!r} (known: {', '.join(KEYS)}); restore the table"
    if codec != UNCODED and codec not in CODECS:
        yield f"has the codec {codec!r} (known: C01 to C11, and - for none); restore the table"
    if attack and (attack in ("-", KEYS[0])) != (key == KEYS[0]):
        yield f"is {key}, but has the attack label {attack!r}; restore the table"


def finder(flacs: Sequence[Path], listing: Listing, folder: Path) -> Callable[[str, str], tuple[str, str]]:
    """A function of (flac name, path given or "") that returns (path, what is wrong)."""

    def find(flac: str, given: str) -> tuple[str, str]:
        if given:
            for path in (given, f"{given}.flac"):  # one of the thesis code's two writers leaves the ending out
                full = os.path.join(folder, path)
                if listing.holds(full):
                    return full, ""
            return given, f"is not at {given}; give the folder of the FLAC folders as audio_root, or leave it out"
        name = flac if flac.endswith(".flac") else f"{flac}.flac"
        if leaves(name):
            return name, OUTSIDE
        for one in flacs:
            if listing.holds(one / name):
                return str(one / name), ""
        return name, f"{MISSING} (looked in {', '.join(one.name for one in flacs) or 'no FLAC folder'})"

    return find


def _inside(root: Path) -> list[Path]:
    """A folder and the folders in it; the FLAC folders, which hold 100,000s of files, are not looked into."""
    flacs = {name for names in FLAC_FOLDERS.values() for name in names}
    return [root, *(Path(entry.path) for entry in entries(root) if entry.name not in flacs and entry.is_dir())]


def _protocols(root: Path) -> dict[str, Path]:
    """The protocol of each split that has one."""
    inside = _inside(root) if root.is_dir() else []
    places = {split: [folder / name for name in names for folder in inside] for split, names in PROTOCOLS.items()}
    found = {split: next((path for path in paths if path.is_file()), None) for split, paths in places.items()}
    return {split: path for split, path in found.items() if path is not None}


def _flac_folders(root: Path, split: str) -> list[Path]:
    """The split's FLAC folders, in `root` or in a folder in it, also where an archive was unpacked into itself."""
    places = (folder / name / again for name in FLAC_FOLDERS[split] for folder in _inside(root) for again in ("", name))
    return [path for path in places if path.is_dir()]


def _parquets(path: Path) -> dict[str, Path]:
    """The thesis code's manifests: of one file its split by its name, of a folder those that are there."""
    if path.is_file() and path.suffix.lower() == ".parquet":
        return {next((one for one in PROTOCOLS if one in path.stem.lower()), ""): path}
    found = {split: path / f"{split}.parquet" for split in PROTOCOLS if (path / f"{split}.parquet").is_file()}
    return {split: one for split, one in found.items() if _is_thesis_manifest(one)}


def _is_thesis_manifest(path: Path) -> bool:
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError):
        return False
    return "flac_file" in names and "key" in names
