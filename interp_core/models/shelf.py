"""Opened models: each opened once however many ask, and under a bound the least recently used is let go first."""

import gc
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from interp_core.cache import ByteCache
from interp_core.models.subject import Subject

ModelKey = tuple[str, str, str, str]
"""As it was asked for: name, device, dtype, adapter."""


@dataclass(frozen=True)
class OpenModel:
    """One model that is open: what was asked for, where its weights lie, and the bytes that they take."""

    name: str
    device: str
    dtype: str
    nbytes: int
    adapter: str = ""


class Shelf:
    """The models of an engine, together at most `max_bytes` of weights; the one opened last is kept whatever its size.

    Opening one model never waits for another that is being opened. A model that is let go while somebody still works
    with it goes when they have finished.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._models = ByteCache(default_bytes() if max_bytes is None else max_bytes, keep_latest=True)

    @property
    def max_bytes(self) -> int:
        """The bound."""
        return self._models.stats().max_bytes

    def get(self, key: ModelKey) -> Subject | None:
        """The model if it is open; it is then the most recently used."""
        found: Subject | None = self._models.get(key)
        return found

    def get_or_open(self, key: ModelKey, open_it: Callable[[], Subject], expected: int = 0) -> Subject:
        """The model, opened if it is not; others go beforehand to make room.

        Args:
            expected: bytes that it will take, as far as that can be told from its files.
        """

        def make() -> Subject:
            before = self._models.stats().evictions
            self._models.make_room(expected)
            if self._models.stats().evictions != before:
                gc.collect()  # modules lie in circles, and their memory is needed now
            return open_it()

        return self._models.get_or_make(key, make, weight_bytes)

    def let_go(self, key: ModelKey) -> None:
        """Drop a model, if it is open."""
        self._models.drop(key)

    def opened(self) -> list[OpenModel]:
        """What is open, the most recently used first."""
        return [
            OpenModel(key[0], str(subject.device), subject.precision, nbytes, key[3])  # type: ignore[index]
            for key, subject, nbytes in self._models.held()
        ]


def weight_bytes(subject: Subject) -> int:
    """Bytes of a model's parameters and buffers, each storage once."""
    held: dict[int | str, int] = {}
    for name, tensor in subject.hf.state_dict().items():
        storage = tensor.untyped_storage()  # what was put off to memory has no place between two passes
        held[storage.data_ptr() or name] = storage.nbytes() or tensor.nbytes
    return sum(held.values())


def default_bytes() -> int:
    """The bound where none is set: half of the memory that models are put into, of all GPUs or of this machine."""
    gpus = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    return (sum(gpus) or psutil.virtual_memory().total) // 2
