"""Public corpora as they lie on disk, read into the columns of a Patchbay manifest.

    corpus = read_corpus("auto", "ESC-50-master")
    corpus.clips                                     # clip_id, path, label, ...: one row a clip, all values text
    corpus.clips.to_csv("clips.csv", index=False)    # a manifest that `read_manifest` takes

One module a corpus, each with `read(root, *, skip_bad, ...) -> Corpus` and a cheap `recognises(root)`. A reader finds
the files and reads their names and tables; it opens no recording, which is `read_manifest`'s part. Clips that cannot
be used (no file, a name that does not parse, an unknown code) are raised together as `BadRows`, or left out and listed
in `Corpus.skipped`. The folder that a corpus's folder lies in will do as well. Related clips are told by
`Corpus.units`: intervals and folds resample those, never clips.

    corpus            label                       units                  further columns
    ravdess           emotion                     speaker                prosody_label, semantic_label, text_id, ...
    esc50             category                    src_file, fold         target, esc10, take
    tinysol           instrument                  recording, note        pitch, pitch_id, dynamics, string, fold, ...
    vocalsound        vocal sound                 speaker                split, sex, age, country, ...
    asvspoof5         bonafide, spoof             utterance, speaker     domain = codec, split, attack_label, ...
    asvspoof_la       bonafide, spoof             speaker                domain = codec, split, attack_label, ...
    camelyon17        normal, tumor (images)      slide, patient         domain = center, split
    folder_per_class  name of the folder          none                   split where there are folders of splits
"""

import difflib
import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from interp_core.data.corpora import (
    asvspoof5,
    asvspoof_la,
    camelyon17,
    esc50,
    folder_per_class,
    ravdess,
    tinysol,
    vocalsound,
)
from interp_core.data.corpora.common import LOOKED_AT, BadEntry, Corpus, entries
from interp_core.data.manifest import SHOWN_ROWS as SHOWN
from interp_core.errors import InterpError, few

__all__ = ["CORPORA", "BadEntry", "Corpus", "read_corpus", "recognise"]

CORPORA = {
    module.NAME: module
    for module in (camelyon17, asvspoof5, asvspoof_la, esc50, vocalsound, tinysol, ravdess, folder_per_class)
}
"""Readers by name, in the order in which a folder is tried: the plain layout fits most of the others too."""


def recognise(root: Path | str) -> str | None:
    """The name of the corpus that a folder, or a folder in it, holds; None where it is none that is known.

    Looks at a few names and at most one header line; no file is searched for below the third level.

    Raises:
        InterpError: it holds several corpora, each in a folder of its own.
    """
    found = _located(Path(root).absolute(), tuple(CORPORA))
    return found[0] if found else None


def _located(path: Path, names: Sequence[str]) -> tuple[str, Path] | None:
    """The first of some readers that knows a folder, and the folder: the one given, or else one that it holds.

    Named layouts one folder down come before the plain one here, which fits whatever two corpora lie in.
    """
    plain = [name for name in names if CORPORA[name] is folder_per_class]
    for some in ([name for name in names if name not in plain], plain):
        if found := next((name for name in some if _knows(name, path)), None):
            return found, path
        folders = _folders(path)
        if some is plain and len(folders) > 1:  # they may be classes themselves, whose recordings lie deeper
            return None
        knowing = {folder: next((name for name in some if _knows(name, folder)), "") for folder in folders}
        below = [(name, folder) for folder, name in knowing.items() if name]
        if len(below) > 1:
            told = few([f"{folder.name}/ ({CORPORA[name].TITLE})" for name, folder in below], SHOWN)
            raise InterpError(f"{path} holds several corpora, {told}; give the folder of one of them.")
        if below:
            return below[0]
    return None


def _knows(name: str, path: Path) -> bool:
    reader = CORPORA[name]
    try:
        return (path.is_dir() or reader is asvspoof5) and reader.recognises(path)
    except (OSError, InterpError):  # a folder in it that may not be listed
        return False


def _folders(path: Path) -> list[Path]:
    """The first folders in a folder; a corpus's own folder has no more than a few neighbours."""
    try:
        return [Path(entry.path) for entry in entries(path) if entry.is_dir()][:LOOKED_AT] if path.is_dir() else []
    except (OSError, InterpError):
        return []


def read_corpus(name: str, root: Path | str, *, skip_bad: bool = False, **choices: Any) -> Corpus:
    """Read a corpus by name.

    Args:
        name: one of `CORPORA`, or "auto" to recognise it.
        root: the corpus's folder, or one that holds it, which `Corpus.notes` then says.
        skip_bad: leave out clips that cannot be used.
        choices: further settings of the reader, such as `train=(0, 3, 4), ood=(2,)` of `camelyon17.read`.
    Raises:
        BadRows (an InterpError): clips that cannot be used, all of them, or no usable clip.
        InterpError: an unknown corpus or choice, a folder that is not recognised, tables that cannot be read.
    """
    given = folder = Path(root).absolute()
    if name == "auto":
        found = _located(given, tuple(CORPORA))
        if found is None:
            reason = "holds no corpus that is recognised" if given.exists() else "does not exist"
            raise InterpError(f"{given} {reason}; name one of {', '.join(CORPORA)}.")
        name, folder = found
    if name not in CORPORA:
        near = difflib.get_close_matches(name, CORPORA, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: auto, {', '.join(CORPORA)}."
        raise InterpError(f"unknown corpus {name!r}; {hint}")
    read = CORPORA[name].read
    known = [choice for choice in inspect.signature(read).parameters if choice not in ("root", "skip_bad")]
    unknown = [choice for choice in choices if choice not in known]
    if unknown:
        raise InterpError(
            f"{', '.join(map(repr, unknown))} is no choice of the corpus {name!r}; "
            f"its choices are {', '.join(known) or 'none'}."
        )
    if folder == given and (found := _located(given, (name,))):
        folder = found[1]
    corpus = read(folder, skip_bad=skip_bad, **choices)
    if folder == given:
        return corpus
    return replace(corpus, notes=(f"Read from {folder.name}/.", *corpus.notes))
