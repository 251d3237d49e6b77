"""Audio files as they really are: the size that a header states is held against the bytes that follow it.

libsndfile corrects a frame count in silence to what a file holds, so that a copy which broke off looks like a short
recording, and calls a WAV or AU empty whose recorder was killed before it wrote the size.
"""

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

STREAMED = 0x7FFFF000
"""From here on a 32-bit size says that the length was not known: sox writes this one, arecord 2**31, ffmpeg 2**32-1."""
UNKNOWN_FRAMES = 2**62  # libsndfile reports 2**63 - 1 frames of a FLAC that does not say its length
MOST_CHUNKS = 1000
BLOCK_VALUES = 1 << 20  # frames times channels that are decoded at a time


@dataclass(frozen=True)
class SampleBytes:
    """The part of a file that holds its samples.

    Attributes:
        size_at: where in the file its size is written.
        stated: bytes by that size; None where the writer did not know it.
        present: bytes from its beginning to the end of the file.
        size: how its size is packed.
    """

    size_at: int
    stated: int | None
    present: int
    size: str


class Recording(soundfile.SoundFile):
    """An audio file open for reading from its beginning to its end; one whose size was never written is read on.

    Attributes:
        part: its samples' bytes, of a container that states their size; else None.
    """

    def __init__(self, path: Path | str) -> None:
        self.part = sample_bytes(path)
        if self.part is not None and self.part.stated is None and self.part.present > 0:
            size = struct.pack(self.part.size, min(self.part.present, 0xFFFFFFFE))
            super().__init__(_Mended(path, self.part.size_at, size))
        else:
            super().__init__(path)

    def seekable(self) -> bool:
        """Never: libsndfile fails to seek to the end of a FLAC without a length, and nothing here goes back."""
        return False

    @property
    def stated_frames(self) -> int | None:
        """Frames in all, by the header; None where it does not say."""
        if self.frames >= UNKNOWN_FRAMES:
            return None
        part = self.part
        if part is None or part.stated is None or part.stated <= part.present:
            return int(self.frames)
        return round(self.frames * part.stated / part.present) if part.present > 0 else 0

    def in_blocks(self, most: int) -> Iterator[np.ndarray]:
        """Float32 [n_frames, n_channels] after each other, `most` frames at most."""
        size = max(1, BLOCK_VALUES // self.channels)
        while most > 0:
            block = self.read(min(size, most), dtype="float32", always_2d=True)
            yield block
            most = most - len(block) if len(block) else 0


def sample_bytes(path: Path | str) -> SampleBytes | None:
    """Where a WAV, RF64, W64, AIFF or AU file holds its samples; None for other files, and where nothing says so."""
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        head = file.read(16)
        match head[:4]:
            case b"RIFF" | b"RF64":
                return _of_chunks(file, end, b"data", "<I", 12)
            case b"RIFX":
                return _of_chunks(file, end, b"data", ">I", 12)
            case b"FORM":
                return _of_chunks(file, end, b"SSND", ">I", 12)
            case b"riff":
                return _of_chunks(file, end, b"data", "<Q", 40)
            case b".snd" | b"dns." if len(head) >= 12:
                order = ">" if head[:4] == b".snd" else "<"
                begins, stated = struct.unpack(f"{order}II", head[4:12])
                return SampleBytes(8, _known(stated), end - begins, f"{order}I")
    return None


def _of_chunks(file: BinaryIO, end: int, wanted: bytes, size: str, at: int) -> SampleBytes | None:
    stated_64: int | None = None
    for name, size_at, begins, stated in _chunks(file, end, size, at):
        if name == b"ds64":  # of an RF64 file, which says 2**32 - 1 where its size belongs
            file.seek(begins + 8)
            stated_64 = int.from_bytes(file.read(8), "little") or None
        if name != wanted:
            continue
        if size == "<Q":
            return SampleBytes(size_at, stated if 0 < stated < 2**62 else None, end - begins, size)
        if wanted == b"SSND":  # an offset and a block size stand before the samples
            begins, stated = begins + 8, max(stated - 8, 0)
        known = stated_64 if stated_64 is not None and stated == 0xFFFFFFFF else _known(stated)
        if stated == 0 and _ends_well(file, end, size, begins):
            known = 0
        return SampleBytes(size_at, known, end - begins, size)
    return None


def _chunks(file: BinaryIO, end: int, size: str, at: int) -> Iterator[tuple[bytes, int, int, int]]:
    """(name, place of its size, place of its content, bytes of its content) of each chunk from `at` on."""
    wide = size == "<Q"  # W64: names of 16 bytes, sizes that count the chunk's own head, contents in steps of 8
    name_bytes, size_bytes, step = (16, 8, 8) if wide else (4, 4, 2)
    for _ in range(MOST_CHUNKS):
        file.seek(at)
        head = file.read(name_bytes + size_bytes)
        if len(head) < name_bytes + size_bytes:
            return
        stated = struct.unpack(size, head[name_bytes:])[0] - (len(head) if wide else 0)
        yield head[:4], at + name_bytes, at + len(head), stated
        at += len(head) + max(stated, 0) + -stated % step
        if at >= end:
            return


def _ends_well(file: BinaryIO, end: int, size: str, at: int) -> bool:
    """Whether chunks follow up to the very end of the file: then what is called empty is empty."""
    while at < end:
        following = next(_chunks(file, end, size, at), None)
        if following is None or not following[0].isalnum():
            return False
        at = following[2] + following[3] + following[3] % 2
    return True


def _known(stated: int) -> int | None:
    return stated if 0 < stated < STREAMED else None


class _Mended(io.FileIO):
    """A file that reads as if other bytes stood at one place."""

    def __init__(self, path: Path | str, at: int, instead: bytes) -> None:
        super().__init__(path)
        self._at, self._instead = at, instead

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        start = self.tell()
        count = super().readinto(buffer) or 0
        view = memoryview(buffer).cast("B")
        for place, byte in enumerate(self._instead, self._at - start):
            if 0 <= place < count:
                view[place] = byte
        return count
