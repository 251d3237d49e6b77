"""What was read from files, kept until one of the files is another one."""

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from interp_core.cache import ByteCache
from interp_core.digests import digest_like, digest_or_none

T = TypeVar("T")
MANY, REST = 5_000, 10.0
"""More files than this are not looked through again before so many times as long has passed as it took."""
DOCUMENTS = frozenset({".csv", ".tsv", ".txt", ".json", ".parquet"})

Mark = str | None


@dataclass
class _Kept(Generic[T]):
    value: T
    marks: dict[Path, Mark]
    again: float = field(default=0.0)

    def is_current(self) -> bool:
        now = time.monotonic()
        if now < self.again:
            return True
        same = all(mark_of(path, mark) == mark for path, mark in self.marks.items())
        if len(self.marks) > MANY:
            self.again = time.monotonic() + REST * (time.monotonic() - now)
        return same


class CurrentFiles:
    """Values by key in a cache, each with marks of the files that it was read from; any thread may ask."""

    def __init__(self, cache: ByteCache) -> None:
        self._cache = cache

    def get(self, key: Hashable, read: Callable[[], T], marks: Callable[[T], dict[Path, Mark]]) -> T:
        """The value under `key` if its files are as they were, else what `read` makes of them now."""
        kept: _Kept[T] | None = self._cache.get(key)
        if kept is None or not kept.is_current():
            value = read()
            kept = _Kept(value, marks(value))
            self._cache.put(key, kept)
        return kept.value

    def has(self, key: Hashable) -> bool:
        """Whether there is a value under `key`, of its files as they are or as they were."""
        return self._cache.get(key) is not None


def mark_of(path: Path, like: Mark = None) -> Mark:
    """What a file holds, or which names a folder has and since when; None where neither is there."""
    if like is not None and not like.startswith("folder"):
        return digest_like(path, like)
    try:
        if path.is_dir():
            found = path.stat()
            return f"folder {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"
    except (OSError, ValueError):
        return None
    return digest_or_none(path)


def marks_of_folder(root: Path, paths: Iterable[Path]) -> dict[Path, Mark]:
    """Of a folder, of those below it that hold `paths`, and of the documents that stand in it and one level below."""
    try:
        folders = [root, *(path for path in root.iterdir() if path.is_dir())]
        documents = [path for folder in folders for path in folder.iterdir() if path.suffix.lower() in DOCUMENTS]
    except OSError:
        folders, documents = [root], []
    return {path: mark_of(path) for path in [*folders, *dict.fromkeys(path.parent for path in paths), *documents]}
