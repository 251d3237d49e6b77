"""Whose recordings they are: a collection belongs to the visitor who made it."""

from __future__ import annotations

from pathlib import Path

from components import server
from components.visitors import visitor
from interp_core.data.collection import Collection, collections, containing
from interp_core.errors import InterpError


def visible() -> list[Collection]:
    """The collections that this visitor may use, the own ones first."""
    folder = server.data_folder()
    return collections(folder, visitor()) if folder is not None else []


def may_see(path: str | Path | None) -> bool:
    """Whether a path, if it lies in recordings, lies in recordings that this visitor may use."""
    folder = server.data_folder()
    found = containing(folder, Path(path)) if path and folder is not None else None
    return found is None or found.seen_by(visitor())


def refuse_foreign(path: str | Path | None) -> None:
    """Raise InterpError for a path into the recordings of another browser that are not shared, or around all."""
    if not may_see(path):
        raise InterpError(f"{path} lies in recordings of another visitor, which are not shared; choose your own clips.")
    if path and _holds_all(Path(path)):
        raise InterpError(f"{path} holds the recordings of all visitors; choose a folder that does not.")


def _holds_all(path: Path) -> bool:
    folder = server.data_folder()
    try:
        return folder is not None and folder.is_relative_to(path.expanduser().resolve())
    except (OSError, ValueError, RuntimeError):
        return False
