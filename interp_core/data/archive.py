"""Zip files that somebody sent: read member by member, within bounds; no name in them becomes a name on the disk."""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from interp_core.errors import InterpError


@dataclass(frozen=True)
class Caps:
    """How much is taken.

    Attributes:
        files: clips a collection.
        nbytes: bytes of all collections together.
        collections: collections a visitor.
        visitor: bytes of the collections of one visitor.
    """

    files: int = 200
    nbytes: int = 2 << 30
    collections: int = 20
    visitor: int = 512 << 20

    @property
    def share(self) -> int:
        """Bytes that one visitor may bring at most."""
        return min(self.visitor, self.nbytes)


def read_bounded(file: BinaryIO, most: int) -> bytes:
    """All bytes of a file. Errors: InterpError for more than `most`, and for a damaged or locked member of a zip."""
    try:
        data = file.read(most + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        raise InterpError(f"cannot be unpacked ({error}); pack it again without a password.") from error
    if len(data) > most:
        raise InterpError(f"holds more than {most / 2**20:.0f} MB, the most that is taken here.")
    return data


def unpacked(file: BinaryIO, caps: Caps) -> Iterator[tuple[str, BinaryIO]]:
    """The files in a zip, `clips.csv` first, each as (name in it, its bytes); hidden files and folders are passed over.

    Raises:
        InterpError: no zip; more files than `caps.files`, or more bytes than `caps.share`, by what it says of itself.
    """
    try:
        with zipfile.ZipFile(file) as packed:
            members = [one for one in packed.infolist() if not one.is_dir() and not _hidden(one.filename)]
            if len(members) > caps.files + 1:
                raise InterpError(f"holds {len(members)} files, more than the {caps.files} that are taken here.")
            told = sum(one.file_size for one in members)
            if told > caps.share:
                raise InterpError(
                    f"unpacks to {told / 2**20:.0f} MB, more than the {caps.share / 2**20:.0f} MB that are taken here."
                )
            for one in sorted(members, key=lambda member: not member.filename.endswith("clips.csv")):
                with packed.open(one) as member:
                    yield one.filename, member  # type: ignore[misc]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, UnicodeError) as error:
        raise InterpError(f"cannot be read as a zip file ({error}); pack it again without a password.") from error


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part.startswith(".") and part != ".." or part == "__MACOSX" for part in parts)
