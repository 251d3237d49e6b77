"""Corpora of recordings or pictures as the clips of an ablation, read by the reader that knows their layout."""

import hashlib
import os
from pathlib import Path
from typing import Any

from interp_core.data.clips import Clip
from interp_core.data.corpora import read_corpus
from interp_core.data.manifest import Manifest
from interp_core.errors import InterpError


def corpus_manifest(engine: Any, request: Any) -> tuple[Manifest, tuple[str, ...]]:
    """The clips of a corpus's folder, and its classes in the order of their numbers.

    Centres of Camelyon17 that are named as train and ood (`center=0,center=3`) are handed to its reader, which then
    makes the three splits; otherwise the official split stands.
    """
    if request.manifest is None:
        raise InterpError(f"the corpus {request.corpus!r} needs its folder (--manifest FOLDER).")
    root = Path(request.manifest).expanduser()
    roots = engine._roots
    if roots is not None:
        real = Path(os.path.realpath(root))
        if not any(real.is_relative_to(os.path.realpath(allowed)) for allowed in roots):
            raise InterpError(f"{root} lies outside the folders that may be read; move it below one of them.")
    choices: dict[str, Any] = {}
    train, inside, out = (getattr(request, name, "") for name in ("train", "id", "ood"))
    if train.startswith("center=") and out.startswith("center="):
        choices = {"train": _centres(train), "ood": _centres(out)}
        if inside:
            choices["id_val"] = _centres(inside)
    corpus = read_corpus(request.corpus, root, skip_bad=request.skip_bad, **choices)
    table = corpus.clips if request.max_clips is None else corpus.clips.iloc[: request.max_clips]
    clips = []
    for row in table.to_dict("records"):
        labels = {str(k): str(v) for k, v in row.items() if v and k not in ("clip_id", "path")}
        # By place and not by content: a corpus of pictures has half a million files.
        clips.append(Clip(row["clip_id"], Path(row["path"]), labels, hashlib.sha256(row["path"].encode()).hexdigest()))
    digest = hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()
    return Manifest(root, tuple(clips), tuple(map(str, table.columns)), digest, corpus.skipped), corpus.classes


def _centres(text: str) -> list[int]:
    try:
        return [int(part.partition("=")[2]) for part in text.split(",")]
    except ValueError as error:
        raise InterpError(f"{text!r} names no centres; write center=0,center=3.") from error
