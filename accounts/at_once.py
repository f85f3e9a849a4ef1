"""How much one may have going on at a time in a process: streams, exports, passwords."""

import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from accounts.metrics import refused

#: When it is worth another try: nobody knows when one of those that go on will end.
RETRY_AFTER_SECONDS = 5


class TooManyAtOnce(Exception):
    """A user, or an address, has as many of these going on as one may."""

    def __init__(self, name: str, most: int) -> None:
        super().__init__(f"at most {most} {name} at a time")
        self.name = name
        self.most = most


class AtOnce:
    """At most so many of something for each user or address; `name` says of what, in the plural."""

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.most = most
        # Whatever the collector finds gives its place back, maybe in the middle of a block of ours.
        self._guard = threading.RLock()
        # Only those who have something going on are in it.
        self._going: Counter[Hashable] = Counter()

    @contextmanager
    def one(self, whose: Hashable) -> Iterator[None]:
        """Let the block be one of theirs, or raise `TooManyAtOnce`."""
        with self._guard:
            allowed = self._going[whose] < self.most
            if allowed:
                self._going[whose] += 1
        if not allowed:
            refused(self.name)
            raise TooManyAtOnce(self.name, self.most)
        try:
            yield
        finally:
            with self._guard:
                self._going[whose] -= 1
                if not self._going[whose]:
                    del self._going[whose]


class Held(AsyncIterator[bytes]):
    """The parts of an answer, which give back at their end what was held for them.

    Closing a generator that has not begun runs nothing of it, so it cannot do that itself.
    """

    def __init__(self, parts: AsyncGenerator[bytes], held: ExitStack) -> None:
        self._parts = parts
        self._held = held

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except StopAsyncIteration:
            # Before the client hears of the end, and may begin the next one.
            self._held.close()
            raise

    async def aclose(self) -> None:
        """End it, wherever it stands."""
        try:
            await self._parts.aclose()
        finally:
            self._held.close()

    def __del__(self) -> None:
        # An answer that failed before its first byte is closed by nobody.
        self._held.close()
