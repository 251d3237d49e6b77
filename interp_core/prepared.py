"""What preparing a run has computed, such as a fitted probe or a model's own answers: kept in the run's folder, so that
a run that goes on in another process does not compute it again.

Whoever computes says with `once` what the value follows from (weights, clips, settings); it is used again only for the
same. The values are JSON, so that those of an earlier process are equal to the last digit.
"""

import hashlib
import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


class Prepared:
    """Values by the name of what they follow from.

    Args:
        known: of an earlier process.
    """

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        self._known = dict(known or {})
        self.values: dict[str, Any] = {}
        """Those that were asked for."""

    def known(self, key: Hashable) -> Any:
        """The value of a key, None where there is none."""
        name = name_of(key)
        return self.values.get(name, self._known.get(name))

    def keep(self, key: Hashable, make: Callable[[], Any]) -> None:
        """Keep the value of a key, which is made unless it is known."""
        if (name := name_of(key)) not in self.values:
            self.values[name] = self._known[name] if name in self._known else json.loads(json.dumps(make()))

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a value of now in the place of one that is known."""
        self.values[name_of(key)] = json.loads(json.dumps(value))


def name_of(key: Hashable) -> str:
    """Under which name the value of a key is kept."""
    return hashlib.sha256(repr(key).encode()).hexdigest()[:32]


_CURRENT: ContextVar[Prepared | None] = ContextVar("prepared", default=None)


@contextmanager
def preparing(known: Mapping[str, Any] | None = None) -> Iterator[Prepared]:
    """Inside, `once` keeps what it makes and takes what is known, and keeps what it was asked for around this, too."""
    made = Prepared(known)
    made.values.update(current().values)
    token = _CURRENT.set(made)
    try:
        yield made
    finally:
        _CURRENT.reset(token)


def current() -> Prepared:
    """What is kept where this is called; an empty one outside of `preparing`."""
    return _CURRENT.get() or Prepared()


def once(key: Hashable, make: Callable[[], T]) -> T:
    """What `make` gives, which is JSON, or what it gave an earlier process for the same key.

    Args:
        key: all that the value follows from, in a form whose `repr` is the same in every process.
    """
    here = _CURRENT.get()
    if here is None:
        return make()
    here.keep(key, make)
    found: T = here.known(key)
    return found
