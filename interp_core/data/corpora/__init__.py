"""Public corpora as they lie on disk, read into the columns of a Patchbay manifest.

    corpus = read_corpus("auto", "ESC-50-master")
    corpus.clips                                     # clip_id, path, label, ...: one row a clip, all values text
    corpus.clips.to_csv("clips.csv", index=False)    # a manifest that `read_manifest` takes

One module a corpus, each with `read(root, *, skip_bad, ...) -> Corpus` and a cheap `recognises(root)`. A reader finds
the files and reads their names and tables; it opens no recording, which is `read_manifest`'s part. Clips that cannot
be used (no file, a name that does not parse, an unknown code) are raised together as `BadRows`, or left out and listed
in `Corpus.skipped`. Related clips are told by `Corpus.units`: intervals and folds resample those, never clips.

    corpus            label                       units                  further columns
    ravdess           emotion                     speaker                prosody_label, semantic_label, text_id, ...
    esc50             category                    src_file, fold         target, esc10, take
    tinysol           instrument                  recording, note        pitch, pitch_id, dynamics, string, fold, ...
    vocalsound        vocal sound                 speaker                split, sex, age, country, ...
    asvspoof5         bonafide, spoof             utterance, speaker     domain = codec, split, attack_label, ...
    camelyon17        normal, tumor (images)      slide, patient         domain = center, split
    folder_per_class  name of the folder          none                   split where there are folders of splits
"""

import difflib
import inspect
from pathlib import Path
from typing import Any

from interp_core.data.corpora import asvspoof5, camelyon17, esc50, folder_per_class, ravdess, tinysol, vocalsound
from interp_core.data.corpora.common import BadEntry, Corpus
from interp_core.errors import InterpError

__all__ = ["CORPORA", "BadEntry", "Corpus", "read_corpus", "recognise"]

CORPORA = {
    module.NAME: module for module in (camelyon17, asvspoof5, esc50, vocalsound, tinysol, ravdess, folder_per_class)
}
"""Readers by name, in the order in which a folder is tried: the plain layout fits most of the others too."""


def recognise(root: Path | str) -> str | None:
    """The name of the corpus that a folder holds, None where it is none that is known.

    Looks at a few names and at most one header line; no file is searched for below the second level.
    """
    path = Path(root).absolute()
    for name, reader in CORPORA.items():
        try:
            if (path.is_dir() or reader is asvspoof5) and reader.recognises(path):
                return name
        except (OSError, InterpError):  # a folder in it that may not be listed
            continue
    return None


def read_corpus(name: str, root: Path | str, *, skip_bad: bool = False, **choices: Any) -> Corpus:
    """Read a corpus by name.

    Args:
        name: one of `CORPORA`, or "auto" to recognise it.
        root: the corpus's folder.
        skip_bad: leave out clips that cannot be used.
        choices: further settings of the reader, such as `train=(0, 3, 4), ood=(2,)` of `camelyon17.read`.
    Raises:
        BadRows (an InterpError): clips that cannot be used, all of them, or no usable clip.
        InterpError: an unknown corpus or choice, a folder that is not recognised, tables that cannot be read.
    """
    if name == "auto":
        found = recognise(root)
        if found is None:
            reason = "holds no corpus that is recognised" if Path(root).exists() else "does not exist"
            raise InterpError(f"{Path(root).absolute()} {reason}; name one of {', '.join(CORPORA)}.")
        name = found
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
    return read(root, skip_bad=skip_bad, **choices)
