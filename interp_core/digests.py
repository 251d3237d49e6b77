"""SHA-256 of files, taken again only where a file may have changed since.

What a file holds is known by its digest, never by its time: a file that was written twice within one tick of its file
system's clock, or whose time was set back, looks as it did. So a digest is kept beside everything that the system
says of the file (device, inode, size, times of its last change and of the last change of what is said about it, which
no program can set), and stands only if both times had come to rest before the file was read. Where the system
keeps no time of that second kind (Windows), small files are read every time.
"""

import hashlib
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path

from interp_core.errors import InterpError

REST_NS = 3_000_000_000
"""Longer than a tick of any file system in use (2 s on FAT)."""
SMALL = 1 << 20
MOST_KNOWN = 200_000
BY_PLACE = "place-"

_known: OrderedDict[str, tuple[tuple[int, ...], str]] = OrderedDict()
_lock = threading.Lock()


def digest_of(path: Path | str) -> str:
    """SHA-256 of a file's bytes as they are now, in hex. Errors: OSError where there is no file to read."""
    name = os.path.abspath(path)
    before = _signature(name)
    with _lock:
        signature, digest = _known.get(name, ((), ""))
    if signature == before and (os.name != "nt" or before[2] > SMALL):
        return digest
    with open(name, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    at_rest = max(before[3:]) + REST_NS < time.time_ns()  # a clock ahead of ours is never at rest: read every time
    with _lock:
        _known.pop(name, None)
        if at_rest and _signature(name) == before:
            _known[name] = before, digest
            while len(_known) > MOST_KNOWN:
                _known.popitem(last=False)
    return digest


def digest_or_none(path: Path | str) -> str | None:
    """As `digest_of`; None where there is no file that can be read."""
    try:
        return digest_of(path)
    except (OSError, ValueError):
        return None


def place_digest(path: Path | str) -> str:
    """Of a file's place, size and time, for collections too large to be read through; another one than its content's.

    Errors: OSError where there is no such file.
    """
    name = os.path.abspath(path)
    told = f"{name}\0{_signature(name)[2:]}"
    return BY_PLACE + hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def digest_like(path: Path | str, digest: str) -> str | None:
    """What a file has now of the kind that `digest` is: by content or by place; None where it cannot be read."""
    try:
        return place_digest(path) if digest.startswith(BY_PLACE) else digest_of(path)
    except (OSError, ValueError):
        return None


def check_same(path: Path | str, digest: str) -> None:
    """Refuse a file that is not what it was when it was looked at first.

    Raises:
        InterpError: it was changed or removed meanwhile.
    """
    now = digest_like(path, digest)
    if now != digest:
        what = "was removed" if now is None else f"was changed (SHA-256 {digest[:12]} then, {now[:12]} now)"
        raise InterpError(
            f"{path} {what} since the run was begun, so its numbers would be a mixture; put it back and go on, or "
            "start anew."
        )


def joined(digests: dict[str, str]) -> str:
    """One digest for named ones, whatever their order; "" for none."""
    if not digests:
        return ""
    text = "".join(f"{name}\0{value}\n" for name, value in sorted(digests.items()))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _signature(path: str) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
