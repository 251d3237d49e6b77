"""A run as one file to take along."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from components import export
from interp_core.errors import InterpError
from interp_core.experiments.result import Result
from interp_core.storage import plain


def files_of(folder: Path) -> list[tuple[str, Path]]:
    """The files of a run folder with their names in it; links and hidden files, such as its lock, are left out."""
    return sorted(_files(folder))


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place) / name
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path.relative_to(folder).as_posix(), path


def nbytes_of(folder: Path) -> int:
    """What the files of a run folder take on the disk."""
    return sum(path.stat().st_size for _, path in files_of(folder))


def zip_folder(folder: Path, most_bytes: int) -> bytes:
    """A run folder as a zip file.

    Raises:
        InterpError: more than `most_bytes` before they are packed, or a file that cannot be read.
    """
    out, taken = io.BytesIO(), 0
    try:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, path in files_of(folder):
                data = path.read_bytes()
                taken += len(data)
                if taken > most_bytes:
                    raise InterpError(f"{folder} holds more than {most_bytes} bytes; copy it from the disk.")
                packed.writestr(f"{folder.name}/{name}", data)
    except OSError as error:
        raise InterpError(f"{folder} cannot be packed ({error.strerror}).") from error
    return out.getvalue()


def zip_result(result: Result, name: str) -> bytes:
    """The tables and the config of a run that is in memory alone."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(f"{name}/config.json", json.dumps(plain(result.config), ensure_ascii=False, indent=2))
        for table_name, table in result.tables().items():
            packed.writestr(f"{name}/{table_name}.csv", export.csv(table))
    return out.getvalue()
