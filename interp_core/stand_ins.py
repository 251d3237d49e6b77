"""Files that stand in the place of those that were meant: pointers of Git LFS and git-annex, saved web pages. They are
told by their first bytes, before a reader makes something else of them."""

from pathlib import Path

_BEGINNINGS = (
    (b"version https://git-lfs.github.com/spec/", "is a Git LFS pointer; fetch the large files (git lfs pull)"),
    (b"/annex/objects/", "is a git-annex pointer; fetch the file (git annex get)"),
    (b"<!doctype html", "is a web page, not what was to be downloaded; fetch the file again"),
    (b"<html", "is a web page, not what was to be downloaded; fetch the file again"),
)


def stand_in(path: Path | str) -> str:
    """What a file is that stands in the place of the one meant, as the rest of a sentence; "" where it is none.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(64).lstrip().lower()
    return next((said for begins, said in _BEGINNINGS if head.startswith(begins)), "")
