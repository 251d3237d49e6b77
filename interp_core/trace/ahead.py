"""Values that are asked for soon, made on a thread beside the work that asks for them."""

import threading
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Makes what is wanted next, one after another in its order; each value is handed over once.

    Its thread ends when nothing is left to be made. `make` must not need a lock that who takes a value holds.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._wanted: dict[Hashable, Callable[[], T]] = {}
        self._made: dict[Hashable, T] = {}
        self._making: Hashable | None = None
        self._works = False

    def want(self, wanted: Mapping[Hashable, Callable[[], T]]) -> None:
        """Make these, by key, in their order; what was wanted before and is not among them is let go."""
        with self._changed:
            self._made = {key: value for key, value in self._made.items() if key in wanted}
            have = {*self._made, self._making}
            self._wanted = {key: make for key, make in wanted.items() if key not in have}
            if self._wanted and not self._works:
                self._works = True
                threading.Thread(target=self._work, name="reading ahead", daemon=True).start()

    def take(self, key: Hashable) -> T | None:
        """The value, once it is made if that has begun; None where it was not begun, or could not be made."""
        with self._changed:
            self._wanted.pop(key, None)
            self._changed.wait_for(lambda: self._making != key)
            return self._made.pop(key, None)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._making = None
                self._changed.notify_all()
                if not self._wanted:
                    self._works = False
                    return
                key = self._making = next(iter(self._wanted))
                make = self._wanted.pop(key)
            # Who takes it makes it anew, and is told there what is wrong.
            with suppress(Exception):
                value = make()
                with self._changed:
                    self._made[key] = value
