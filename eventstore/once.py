"""What a process has one of, made when it is first asked for."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class once(Generic[T]):  # noqa: N801 (it is used as a decorator)
    """Let a function make its value once, however many threads ask for it together.

    `functools.cache` would let two threads that come first each make one of their own.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._guard = threading.Lock()
        self._made: list[T] = []
        self.__doc__ = make.__doc__

    def __call__(self) -> T:
        if not self._made:
            with self._guard:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]

    def forget(self) -> None:
        """Make it anew at the next call; for tests."""
        with self._guard:
            self._made = []
