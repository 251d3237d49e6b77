"""An in-memory cache bounded in bytes, for the states of clean runs: keyed by content, least recently used goes first.

Keys must name everything that the value depends on (weights, clip, prompt, dtype, ...): nothing here can tell.
"""

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar, cast

import numpy as np
import torch

from interp_core.errors import InterpError

T = TypeVar("T")
NOT_OWNED = (
    type,
    ModuleType,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
    torch.nn.Module,
    torch.device,
    torch.dtype,
)


@dataclass(frozen=True)
class CacheStats:
    """What a cache holds and how often it helped.

    Attributes:
        entries: values held; nbytes: their size; max_bytes: the bound.
        hits: values that were there, or that another thread was making already; misses: those that were not.
        evictions: values dropped to make room; oversized: values larger than the whole bound, never kept.
    """

    entries: int
    nbytes: int
    max_bytes: int
    hits: int
    misses: int
    evictions: int
    oversized: int

    @property
    def hit_rate(self) -> float | None:
        """hits / (hits + misses), or None before the first question."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


class _Making:
    """A value that one thread is computing and others wait for."""

    def __init__(self) -> None:
        self.owner = threading.get_ident()
        self.finished = threading.Event()
        self.made = False
        self.value: Any = None


class ByteCache:
    """Values by key, together at most `max_bytes`; every method may be called from any thread.

    Args:
        keep_latest: keep the value that was put last even where it alone is larger than the bound.
    """

    def __init__(self, max_bytes: int, *, keep_latest: bool = False) -> None:
        self._keep_latest = keep_latest
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()  # the least recently used comes first
        self._making: dict[Hashable, _Making] = {}
        self._max_bytes = _checked_bound(max_bytes)
        self._nbytes = self._hits = self._misses = self._evictions = self._oversized = 0

    def get(self, key: Hashable, default: Any = None) -> Any:
        """The value under `key`, which becomes the most recently used, or `default`."""
        with self._lock:
            if key not in self._held:
                self._misses += 1
                return default
            self._hits += 1
            self._held.move_to_end(key)
            return self._held[key][0]

    def holds(self, key: Hashable) -> bool:
        """Whether there is a value under `key`; no question that the counts know of."""
        with self._lock:
            return key in self._held

    def put(self, key: Hashable, value: Any, nbytes: int | None = None) -> bool:
        """Keep `value`, dropping what was under `key` and as many others as it takes; False if it is too large to keep.

        Args:
            nbytes: its size; measured by `nbytes_of` where left out.
        """
        size = nbytes_of(value) if nbytes is None else nbytes
        if size < 0:
            raise ValueError(f"nbytes={size} must not be negative.")
        with self._lock:
            return self._put(key, value, size)

    def get_or_make(
        self,
        key: Hashable,
        make: Callable[[], T],
        size: Callable[[T], int] | None = None,
        *,
        lock: AbstractContextManager[Any] | None = None,
    ) -> T:
        """The value under `key`; where there is none, `make()` is called, once however many threads ask meanwhile.

        Args:
            size: measures a value in bytes; `nbytes_of` where left out.
            lock: a reentrant one that `make` takes. It is then taken before anything is made or waited for, so that
                who holds it already may ask: else the thread that makes would wait for the lock, and its holder for the
                value.

        If `make` raises, the exception is its caller's alone, and one of the waiting threads tries anew. Hold no lock
        here that `make` takes, but the one that is given.
        """
        if lock is not None and not self.holds(key):
            with lock:
                return self.get_or_make(key, make, size)
        while True:
            with self._lock:
                if key in self._held:
                    self._hits += 1
                    self._held.move_to_end(key)
                    return cast(T, self._held[key][0])
                making = self._making.get(key)
                if making is None:
                    self._misses += 1
                    mine = self._making[key] = _Making()
                    break
                if making.owner == threading.get_ident():
                    raise RuntimeError(f"making {key!r} asks for itself.")
            making.finished.wait()
            if making.made:  # handed over directly: it may have been too large to keep, or be dropped again already
                with self._lock:
                    self._hits += 1
                return cast(T, making.value)
        try:
            value = make()
            nbytes = (size or nbytes_of)(value)
            mine.value, mine.made = value, True
            with self._lock:
                self._put(key, value, nbytes)
            return value
        finally:
            with self._lock:
                del self._making[key]
            mine.finished.set()

    def held(self) -> list[tuple[Hashable, Any, int]]:
        """(key, value, bytes) of all that is held, the most recently used first."""
        with self._lock:
            return [(key, *kept) for key, kept in reversed(self._held.items())]

    def make_room(self, nbytes: int) -> None:
        """Drop what has to go for a value of this size, before it is there."""
        with self._lock:
            self._make_room(nbytes)

    def drop(self, key: Hashable) -> None:
        """Forget the value under `key`, if there is one."""
        with self._lock:
            self._nbytes -= self._held.pop(key, (None, 0))[1]

    def clear(self) -> None:
        """Drop every value; the counts of hits and misses go on."""
        with self._lock:
            self._held.clear()
            self._nbytes = 0

    def resize(self, max_bytes: int) -> None:
        """Set another bound, dropping what no longer fits. Errors: InterpError for a negative bound."""
        with self._lock:
            self._max_bytes = _checked_bound(max_bytes)
            self._make_room(0)

    def stats(self) -> CacheStats:
        """The present state, all numbers of one moment."""
        with self._lock:
            return CacheStats(
                entries=len(self._held),
                nbytes=self._nbytes,
                max_bytes=self._max_bytes,
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
                oversized=self._oversized,
            )

    def _put(self, key: Hashable, value: Any, size: int) -> bool:
        if key in self._held:
            self._nbytes -= self._held.pop(key)[1]
        if size > self._max_bytes:
            self._oversized += 1
            if not self._keep_latest:
                return False
        self._make_room(size)
        self._held[key] = value, size
        self._nbytes += size
        return True

    def _make_room(self, size: int) -> None:
        while self._held and self._nbytes + size > self._max_bytes:
            self._nbytes -= self._held.popitem(last=False)[1][1]
            self._evictions += 1


def nbytes_of(value: Any) -> int:
    """The memory that keeping `value` keeps occupied, in bytes.

    Tensors and arrays count by their whole storage, as a view keeps all of it alive, and a storage counts once
    however many views share it. Mappings, sequences, dataclasses and plain objects count with all they hold, and an
    object that is reached twice counts once. Modules of weights, classes and functions count nothing: others own them.
    """
    return _nbytes(value, {})


def _nbytes(value: Any, seen: dict[Hashable, Any]) -> int:
    """`seen` holds what was counted, by id or storage, and keeps it alive: the id of a dead object is given again."""
    if id(value) in seen or isinstance(value, NOT_OWNED):
        return 0
    seen[id(value)] = value
    if isinstance(value, torch.Tensor):
        return _tensor_nbytes(value, seen)
    if isinstance(value, np.ndarray):
        if value.base is not None:  # a view: of another array, of a tensor, or of a buffer
            return _nbytes(value.base, seen)
        inside = value.ravel().tolist() if value.dtype.hasobject else []
        return value.nbytes + sum(_nbytes(item, seen) for item in inside)
    if isinstance(value, memoryview):
        return _nbytes(value.obj, seen)
    if hasattr(value, "memory_usage"):  # a pandas frame, series or index, without importing pandas
        return int(np.sum(value.memory_usage(deep=True)))
    return sys.getsizeof(value) + sum(_nbytes(part, seen) for part in _parts(value))


def _tensor_nbytes(tensor: torch.Tensor, seen: dict[Hashable, Any]) -> int:
    gradient = 0 if tensor.grad is None else _nbytes(tensor.grad, seen)
    if tensor.layout == torch.sparse_coo:
        return gradient + _nbytes(tensor._indices(), seen) + _nbytes(tensor._values(), seen)
    if tensor.layout != torch.strided:
        return gradient + tensor.element_size() * tensor.nelement()
    storage = tensor.untyped_storage()
    place = (str(tensor.device), storage.data_ptr())
    if place in seen or tensor.device.type == "meta":
        return gradient
    seen[place] = storage
    return gradient + storage.nbytes()


def _parts(value: Any) -> Iterable[Any]:
    """What a container or an object holds; its own header is not among it."""
    if isinstance(value, str | bytes | bytearray | int | float | complex | range | None):
        return ()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    parts: list[Any] = [*value.keys(), *value.values()] if isinstance(value, Mapping) else []
    if is_dataclass(value):  # its fields may lie in slots
        parts += [getattr(value, field.name) for field in fields(value)]
    return [*parts, *getattr(value, "__dict__", {}).values()]


def _checked_bound(max_bytes: int) -> int:
    if max_bytes < 0:
        raise InterpError(f"a cache of {max_bytes} bytes cannot be; give 0 (keep nothing) or more.")
    return max_bytes
