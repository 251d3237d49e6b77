"""Collections: recordings that somebody brought, kept as a folder of WAV files with a `clips.csv`.

The folder is what `--manifest` takes. What comes in is decoded and rewritten as 16-bit WAV at its own sample rate,
under a name of ours; nothing is kept as it came, and nothing is written outside the collection's folder.
"""

import dataclasses
import json
import os
import re
import secrets
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import pandas as pd
import soundfile

from interp_core.data.archive import Caps, read_bounded, unpacked
from interp_core.data.clips import BadAudio, ClipLimits, decode, rms
from interp_core.data.room import check_room, holding
from interp_core.errors import InterpError
from interp_core.storage import claim, plain, read_csv, read_json, release, replace_file

MANIFEST, ABOUT, CLIPS = "clips.csv", "collection.json", "clips"
OWN_COLUMNS = ("clip_id", "path")
USUAL_LABELS = ("text", "speaker", "prosody_label")
LONGEST_NAME = 80
SILENT_DBFS = -60.0
WAV_HEADER = 44  # bytes
MOST_LABELS = 4 << 20  # bytes of a table, which the caps on recordings do not count
FULL_SCALE = 32767 / 32768  # the largest positive sample of 16 bits


@dataclass(frozen=True)
class Collection:
    """A folder of recordings.

    Attributes:
        folder: where it lies.
        name: what its maker called it; data, never markup.
        owner: who made it, as a token that no other browser has.
        shared: whether others see it.
    """

    folder: Path
    name: str
    owner: str
    shared: bool

    @property
    def manifest(self) -> Path:
        """The file that `--manifest` takes."""
        return self.folder / MANIFEST

    def table(self) -> pd.DataFrame:
        """Its clips, a row each: clip_id, path and labels, all text."""
        return read_csv(self.manifest, texts=True)

    def seen_by(self, owner: str) -> bool:
        """Whether the browser with this token may look at it."""
        return self.shared or self.owner == owner


@dataclass(frozen=True)
class Upload:
    """A file as it came: its name, which is data alone, and its bytes; labels that came with it."""

    name: str
    file: BinaryIO
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Added:
    """What became of an upload.

    Attributes:
        clip_ids: the clips that were made, in the order of the files.
        refused: (name, why it was left out) of every file that was.
        notes: (clip_id, what is worth knowing of it) of clips that were taken.
    """

    clip_ids: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]


# ---- the folders -----------------------------------------------------------------------------------------------------


def collections(root: Path, owner: str) -> list[Collection]:
    """The collections below `root` that a browser may see, its own ones first, each group by name."""
    found = [made for folder in root.glob("*/") if (made := opened(folder)) is not None and made.seen_by(owner)]
    return sorted(found, key=lambda one: (one.owner != owner, one.name.casefold(), one.folder.name))


def opened(folder: Path) -> Collection | None:
    """The collection in a folder; None where there is none."""
    try:
        about = read_json(folder / ABOUT)
        return Collection(folder, str(about["name"]), str(about["owner"]), about["shared"] is True)
    except (InterpError, KeyError, TypeError):
        return None


def containing(root: Path, path: Path) -> Collection | None:
    """The collection that a path below `root` belongs to, links followed; None for a path elsewhere."""
    try:
        inside = path.expanduser().resolve().relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):
        return None
    return opened(root / inside.parts[0]) if inside.parts else None


def create(root: Path, name: str, owner: str, caps: Caps) -> Collection:
    """Make an empty collection. Errors: InterpError for no name, or as many collections as one browser may have."""
    name = clean_name(name)
    if not name:
        raise InterpError("a collection needs a name; give one, like 'two voices'.")
    with holding(root):
        return _create(root, name, owner, caps)


def _create(root: Path, name: str, owner: str, caps: Caps) -> Collection:
    own = [one for one in collections(root, owner) if one.owner == owner]
    if len(own) >= caps.collections:
        raise InterpError(f"{len(own)} collections are as many as one browser may have here; delete one first.")
    slug = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:40]
    made = Collection(root / f"{slug or 'collection'}-{secrets.token_hex(4)}", name, owner, shared=False)
    (made.folder / CLIPS).mkdir(parents=True)
    _write_table(made, pd.DataFrame(columns=[*OWN_COLUMNS, *USUAL_LABELS]))
    return change(made)


def change(collection: Collection, *, name: str | None = None, shared: bool | None = None) -> Collection:
    """Rename or share a collection, or write it as it is."""
    made = dataclasses.replace(
        collection,
        name=collection.name if name is None else clean_name(name) or collection.name,
        shared=collection.shared if shared is None else shared,
    )
    about = {"name": made.name, "owner": made.owner, "shared": made.shared}
    replace_file(made.folder / ABOUT, json.dumps(plain(about), ensure_ascii=False, indent=2).encode())
    return made


def delete(collection: Collection) -> None:
    """Remove a collection from the disk. Errors: InterpError where that fails."""
    try:
        (collection.folder / ABOUT).unlink()  # first, so that what is half removed is no collection any more
        shutil.rmtree(collection.folder)
    except OSError as error:
        raise InterpError(f"{collection.folder} cannot be deleted ({error.strerror}).") from error


# ---- recordings ------------------------------------------------------------------------------------------------------


def add(collection: Collection, uploads: Iterable[Upload], caps: Caps, limits: ClipLimits) -> Added:
    """Take recordings, and those in zip files, into a collection; what cannot be used is named and left out.

    Args:
        collection: where they go.
        uploads: files as they came; at most `caps.files` are looked at.
        caps: how many clips a collection may have, and how many bytes all collections beside it together, and its
            maker's.
        limits: the durations that are taken.
    Raises:
        InterpError: another process writes into the collection, or its table cannot be written.
    """
    lock = claim(collection.folder)
    try:
        return _add(collection, uploads, caps, limits)
    finally:
        release(collection.folder, lock)


def _add(collection: Collection, uploads: Iterable[Upload], caps: Caps, limits: ClipLimits) -> Added:
    table = collection.table()
    rows: list[dict[str, str]] = table.to_dict("records")  # type: ignore[assignment]
    refused: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    taken, before = {row["clip_id"] for row in rows}, len(rows)
    for upload in _each(uploads, caps, refused):
        name = clean_name(PurePosixPath(upload.name.replace("\\", "/")).name) or "recording"
        try:
            samples, rate = _decoded(upload, caps, limits)
            if len(rows) >= caps.files:
                raise InterpError(f"the collection holds {caps.files} clips, the most here; begin another one")
            file = _kept(collection, samples, rate, caps)
        except InterpError as error:
            refused.append((name, error.reason if isinstance(error, BadAudio) else str(error).rstrip(".")))
            continue
        clip_id = _free(PurePosixPath(name).stem, taken)
        taken.add(clip_id)
        rows.append({**upload.labels, "clip_id": clip_id, "path": file})
        fault, more = fault_of(samples / 32768.0)
        if fault:
            notes.append((clip_id, f"is {fault}{more}"))
    columns = list(dict.fromkeys([*table.columns, *(column for row in rows for column in row)]))
    try:
        _write_table(collection, pd.DataFrame(rows, columns=columns).fillna(""))
    except InterpError:
        for row in rows[before:]:
            (collection.folder / row["path"]).unlink(missing_ok=True)
        raise
    return Added(tuple(row["clip_id"] for row in rows[before:]), tuple(refused), tuple(notes))


def _kept(collection: Collection, samples: np.ndarray, rate: int, caps: Caps) -> str:
    """Write a recording where there is room; its path in the collection's folder."""
    root = collection.folder.parent

    def own(folder: Path) -> bool:
        found = opened(folder)
        return found is not None and found.owner == collection.owner

    path = collection.folder / CLIPS / f"{secrets.token_hex(6)}.wav"
    with holding(root):
        check_room(root, own, samples.nbytes + WAV_HEADER, caps)
        _write_wav(path, samples, rate)
    return f"{CLIPS}/{path.name}"


def _each(uploads: Iterable[Upload], caps: Caps, refused: list[tuple[str, str]]) -> Iterator[Upload]:
    """The recordings among the uploads, with those that zip files hold."""
    for number, upload in enumerate(uploads):
        if number == caps.files:
            refused.append(("further files", f"at most {caps.files} are taken at a time"))
            return
        if not upload.name.casefold().endswith(".zip"):
            yield upload
            continue
        try:
            known: dict[str, dict[str, str]] = {}
            for name, file in unpacked(upload.file, caps):
                if PurePosixPath(name).name == MANIFEST:
                    known = _rows_in(read_bounded(file, MOST_LABELS))
                elif PurePosixPath(name).name != ABOUT:
                    row = known.get(name) or known.get(name.partition("/")[2], {})
                    labels = {label: value for label, value in row.items() if label and label not in OWN_COLUMNS}
                    yield Upload(f"{row['clip_id']}.wav" if row.get("clip_id") else name, file, labels)
        except InterpError as error:
            refused.append((clean_name(upload.name), str(error).rstrip(".")))


def _rows_in(data: bytes) -> dict[str, dict[str, str]]:
    """path -> row of a `clips.csv` that came in a zip; nothing where it is none."""
    with tempfile.NamedTemporaryFile(suffix=".csv") as draft:
        draft.write(data)
        draft.flush()
        try:
            rows = read_csv(Path(draft.name), texts=True).to_dict("records")
        except InterpError:
            return {}
    return {str(row.get("path")): {clean_name(str(name)): str(value) for name, value in row.items()} for row in rows}


def _decoded(upload: Upload, caps: Caps, limits: ClipLimits) -> tuple[np.ndarray, int]:
    """int16 samples and their rate, through a file that is gone again afterwards."""
    with tempfile.NamedTemporaryFile(prefix="upload-") as draft:
        draft.write(read_bounded(upload.file, caps.share))
        draft.flush()
        samples, rate = decode(draft.name, limits)
    # The scale that reading divides by: 16-bit recordings come back bit for bit.
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16), rate


def _write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    draft = path.with_suffix(".tmp")
    try:
        soundfile.write(draft, samples, rate, format="WAV", subtype="PCM_16")
        os.replace(draft, path)
    except (OSError, soundfile.SoundFileError) as error:
        draft.unlink(missing_ok=True)
        raise InterpError(f"{path.parent} cannot be written ({error}); make room, or set PATCHBAY_DATA.") from error


def level_dbfs(samples: np.ndarray) -> float:
    """Root mean square of samples whose full scale is 1, in dB below full scale; -inf for silence."""
    level = rms(samples)
    return float(20 * np.log10(level)) if level > 0 else -np.inf


def fault_of(samples: np.ndarray) -> tuple[str, str]:
    """What is wrong with a recording whose full scale is 1 (silent, nearly silent, clipped; "" for nothing), and more
    of it to set behind that."""
    level = level_dbfs(samples)
    if level < SILENT_DBFS:
        return ("silent", "") if np.isinf(level) else ("nearly silent", f" ({level:.0f} dB below full scale)")
    clipped = int(np.sum(np.abs(samples) >= FULL_SCALE))
    return ("clipped", f": {clipped} samples stand at full scale") if clipped > len(samples) // 1000 else ("", "")


def _free(stem: str, taken: set[str]) -> str:
    """A clip_id that no other clip has: the file's name without its ending, numbered where it comes twice."""
    number, clip_id = 2, stem
    while clip_id in taken:
        clip_id, number = f"{stem}-{number}", number + 1
    return clip_id


def clean_name(text: str) -> str:
    """A name as one line of visible text: without control characters and marks that turn the reading direction."""
    visible = "".join(" " if char.isspace() else char for char in text if char.isspace() or not _hidden(char))
    return " ".join(unicodedata.normalize("NFC", visible).split())[:LONGEST_NAME].strip()


def _hidden(char: str) -> bool:
    return unicodedata.category(char).startswith("C")


# ---- labels ----------------------------------------------------------------------------------------------------------


def set_clips(collection: Collection, table: pd.DataFrame) -> None:
    """Replace the labels of a collection; a row that is gone takes its recording along.

    Args:
        table: clip_id and label columns, all text; the rows are clips of the collection, and keep their paths.
    Raises:
        InterpError: a clip_id that is empty, twice there or unknown; a column without a name, or named twice.
    """
    lock = claim(collection.folder)
    try:
        known = collection.table().set_index("clip_id")["path"].to_dict()
        ids = table["clip_id"].astype(str).tolist()
        faults = [f"{name!r} is no clip of it" for name in ids if name not in known]
        faults += [f"{name!r} stands in two rows" for name in dict.fromkeys(ids) if ids.count(name) > 1]
        labels = [str(column) for column in table.columns if column not in OWN_COLUMNS]
        faults += [
            f"{name!r} cannot be the name of a column" for name in labels if not name or name != clean_name(name)
        ]
        if faults:
            raise InterpError(f"the labels of {collection.name!r} were not kept: {'; '.join(faults)}.")
        made = table[labels].fillna("").astype(str)
        made.insert(0, "clip_id", ids)
        made.insert(1, "path", [known[name] for name in ids])
        _write_table(collection, made)
        for name in known.keys() - set(ids):
            (collection.folder / known[name]).unlink(missing_ok=True)
    finally:
        release(collection.folder, lock)


def labels_from_names(names: Sequence[str], pattern: str) -> pd.DataFrame:
    """Read labels off clip names.

    Args:
        names: clip ids.
        pattern: like `{speaker}_{text}_{prosody_label}`; `{}` stands for a part that is not kept.
    Returns:
        A row a name, indexed by name; names that the pattern does not fit have no values (NaN).
    Raises:
        InterpError: a pattern without a field, with one twice, or with an unpaired brace.
    """
    fields = re.findall(r"\{([^{}]*)\}", pattern)
    kept = [name.strip() for name in fields if name.strip()]
    fixed = re.split(r"\{[^{}]*\}", pattern)
    if not kept or len(set(kept)) < len(kept) or any("{" in text or "}" in text for text in fixed):
        raise InterpError(
            f"the pattern {pattern!r} must name each label once, like {{speaker}}_{{text}}_{{prosody_label}}."
        )
    if reserved := set(kept) & set(OWN_COLUMNS):
        raise InterpError(f"{', '.join(sorted(reserved))} is no label; name the labels otherwise.")
    groups = iter(f"(?P<g{kept.index(n.strip())}>.+?)" if n.strip() else ".+?" for n in fields)
    expression = re.compile("".join(re.escape(text) + next(groups, "") for text in fixed))
    matched = [expression.fullmatch(name) for name in names]
    rows = [{one: match[f"g{i}"] for i, one in enumerate(kept)} if match else {} for match in matched]
    return pd.DataFrame(rows, index=pd.Index(names, name="clip_id"), columns=kept)


def _write_table(collection: Collection, table: pd.DataFrame) -> None:
    data = table.to_csv(index=False).encode()
    if len(data) > MOST_LABELS:
        raise InterpError(f"the labels take {len(data) / 2**20:.0f} MB, more than {MOST_LABELS >> 20}; shorten them.")
    replace_file(collection.manifest, data)
