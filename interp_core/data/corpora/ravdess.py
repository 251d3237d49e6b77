"""RAVDESS: 24 actors say two sentences in eight emotions; everything about a clip stands in its name.

`Actor_12/03-01-06-01-02-01-12.wav` = modality, vocal channel, emotion, intensity, statement, repetition, actor. All
seven fields are demanded: a name with fewer has lost one, and nobody can tell which. The names are enough where the
folders of the actors are gone. Kaggle's copy holds everything twice, in `Actor_01` and in
`audio_speech_actors_01-24/Actor_01`: what has actor, name and size of a recording above it is passed over.
Source: Livingstone & Russo 2018, PLoS ONE 13(5): e0196391, table 3.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from interp_core.data.corpora.common import (
    AUDIO,
    LOOKED_AT,
    Corpus,
    by_column,
    corpus_folder,
    draft,
    ending_of,
    entries,
    finish,
    passed_over,
    walk,
)

NAME = "ravdess"
TITLE = "RAVDESS"

FIELDS = ("modality", "vocal channel", "emotion", "intensity", "statement", "repetition", "actor")
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""In the order of their codes, 01 to 08, so that class number = code - 1."""

TEXTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
_VALUES: tuple[dict[str, str], ...] = (
    {"01": "audio-video", "02": "video", "03": "audio"},
    {"01": "speech", "02": "song"},
    {f"{code:02}": emotion for code, emotion in enumerate(EMOTIONS, 1)},
    {"01": "normal", "02": "strong"},
    TEXTS,
    {"01": "1", "02": "2"},
    {f"{actor:02}": f"{actor:02}" for actor in range(1, 25)},
)
_COLUMNS = (
    *("clip_id", "path", "label", "prosody_label", "semantic_label", "speaker", "text_id", "text", "sex"),
    *("modality", "vocal_channel", "intensity", "repetition", "emotion_code"),
)


def recognises(root: Path) -> bool:
    """A folder of `Actor_01` to `Actor_24` or of recordings with such names, or a folder of such folders alone."""
    here = entries(root)
    if _looks_like_it(here):
        return True
    inside = [entries(Path(entry.path)) for entry in here if entry.is_dir()][:8]
    fits = [found for found in inside if _looks_like_it(found)]
    return bool(fits) and not any(_holds_recordings(found) for found in inside if found not in fits)


def _holds_recordings(found: Sequence[os.DirEntry[str]]) -> bool:
    """Whether a folder of these entries, or a folder in it, holds a recording."""
    inside = [below for entry in found[:LOOKED_AT] if entry.is_dir() for below in entries(Path(entry.path))[:LOOKED_AT]]
    return any(ending_of(entry.name) in AUDIO for entry in [*found[:LOOKED_AT], *inside])


def _looks_like_it(found: Sequence[os.DirEntry[str]]) -> bool:
    if any(_actor_of(entry.name) and entry.is_dir() for entry in found):
        return True
    names = [name for entry in found if ending_of(name := entry.name) in AUDIO][:LOOKED_AT]
    fits = [name for name in names if re.fullmatch(r"\d\d(-\d\d){6}", Path(name).stem)]
    return 2 * len(fits) > len(names)


def read(root: Path | str, *, skip_bad: bool = False) -> Corpus:
    """Read every recording below a folder, speech and song.

    Args:
        root: holds `Actor_01` ... `Actor_24`, folders that do, or the recordings themselves.
        skip_bad: leave out clips that cannot be used; a second copy of a recording is one of them.
    Returns:
        `label` and `prosody_label` are the emotion, `semantic_label` is "neutral" (both sentences were chosen to be),
        `text_id` the statement, `speaker` the actor ("01" to "24").
    Raises:
        BadRows, InterpError: see `finish`.
    """
    folder = corpus_folder(root, NAME)
    files, others = walk(folder)
    files, copies = _once(folder, files)
    notes = [f"{len(copies)} second copies in {copies[0].partition('/')[0]}/ passed over."] if copies else []
    clips, reasons = [], []
    for file in files:
        stem = Path(file).stem
        reasons.append("; and ".join(_faults(file, stem)))
        codes = (*stem.split("-"), *[""] * 7)[:7]
        modality, channel, emotion, intensity, text, repetition, actor = (
            values.get(code, "") for values, code in zip(_VALUES, codes, strict=True)
        )
        sex = ("female", "male")[int(actor) % 2] if actor else ""
        said = (emotion, emotion, "neutral", actor, codes[4], text)
        clips.append((stem, str(folder / file), *said, sex, modality, channel, intensity, repetition, codes[2]))
    return finish(
        NAME,
        folder,
        draft(by_column(_COLUMNS, clips), files=files, reasons=reasons),
        skip_bad=skip_bad,
        units=("speaker",),
        classes=EMOTIONS,
        notes=[*notes, *passed_over(others)],
    )


def _once(root: Path, files: Sequence[str]) -> tuple[list[str], list[str]]:
    """The recordings, and those in a folder below that stand, with their actor, name and size, in the root as well."""
    above = {file for file in files if _actor_of(file.partition("/")[0])}
    copies = [
        file
        for file in files
        if file not in above and (first := "/".join(file.split("/")[1:])) in above and _same_size(root, first, file)
    ]
    left_out = frozenset(copies)
    return [file for file in files if file not in left_out], copies


def _same_size(root: Path, one: str, other: str) -> bool:
    return (root / one).stat().st_size == (root / other).stat().st_size


def _faults(file: str, stem: str) -> list[str]:
    codes = stem.split("-")
    if len(codes) != len(FIELDS):
        return [
            f"has {len(codes)} of the 7 fields {'-'.join(FIELDS)} in its name (an example is 03-01-06-01-02-01-12); "
            "give it its full name back"
        ]
    faults = [
        f"has the {field} code {code!r} in its name (known: {min(values)} to {max(values)}); correct it"
        for field, code, values in zip(FIELDS, codes, _VALUES, strict=True)
        if code not in values
    ]
    if codes[0] == "02":
        faults.append("is video without sound by its name (modality 02); leave it out")
    if codes[2:4] == ["01", "02"]:
        faults.append("is strong neutral by its name, which was never recorded; correct it")
    inside = _actor_of(Path(file).parent.name)
    if inside and codes[6] in _VALUES[6] and inside != codes[6]:
        faults.append(f"lies in Actor_{inside}, but is of actor {codes[6]} by its name; correct one of them")
    return faults


def _actor_of(folder: str) -> str:
    found = re.fullmatch(r"Actor_(\d\d)", folder)
    return found.group(1) if found else ""
