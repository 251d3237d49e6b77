"""Tiny trees in the layouts of the real corpora; recordings are empty files unless a test decodes them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from interp_core.data.corpora import Corpus, read_corpus
from interp_core.data.manifest import BadRows, Manifest, read_manifest
from interp_core.errors import InterpError


def touch(root: Path, files: Iterable[str]) -> Path:
    files = list(files)
    for folder in {file.rpartition("/")[0] for file in files}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for file in files:
        open(f"{root}/{file}", "ab").close()
    return root


def sound(root: Path, files: Iterable[str]) -> Path:
    """Files of 0.1 s that decode, each with another content."""
    for number, file in enumerate(files, 1):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / file, np.full(800, number / 100), 8000)
    return root


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def told(name: str, root: Path, **choices: object) -> list[str]:
    """Every bad clip of a corpus as the error lists it; a message without such a list fails the test."""
    with pytest.raises(BadRows) as caught:
        read_corpus(name, root, **choices)
    return [str(row) for row in caught.value.rows]


def refusal(name: str, root: Path, **choices: object) -> str:
    with pytest.raises(InterpError) as caught:
        read_corpus(name, root, **choices)
    return str(caught.value)


def row(corpus: Corpus, clip_id: str) -> dict[str, str]:
    found = corpus.clips[corpus.clips["clip_id"] == clip_id]
    assert len(found) == 1
    return {str(column): value for column, value in found.iloc[0].items()}


def through_a_csv(corpus: Corpus, path: Path) -> Manifest:
    """The corpus written as a manifest and read back, every clip decoded."""
    corpus.clips.to_csv(path, index=False)
    manifest = read_manifest(path)
    by_id = {clip.clip_id: clip for clip in manifest.clips}
    for clip in corpus.clips.to_dict("records"):
        kept = {column: value for column, value in clip.items() if value and column not in ("clip_id", "path")}
        assert by_id[clip["clip_id"]].labels == kept
    assert all(isinstance(value, str) for column in corpus.clips for value in pd.Series(corpus.clips[column]))
    return manifest
