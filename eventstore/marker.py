"""A number that only grows, and that threads and coroutines can wait for."""

import asyncio
import threading
from collections.abc import Callable


class Marker:
    """The highest position that something has reached, as far as this process knows."""

    def __init__(self) -> None:
        self._value = 0
        self._changed = threading.Condition()
        self._waiters: list[tuple[int, Callable[[], None]]] = []

    @property
    def value(self) -> int:
        return self._value

    def advance(self, position: int) -> None:
        """Note that `position` has been reached; a lower one changes nothing."""
        if position <= self._value:
            return
        with self._changed:
            if position <= self._value:
                return
            self._value = position
            self._changed.notify_all()
            due = [wake for at_least, wake in self._waiters if at_least <= position]
            self._waiters = [waiter for waiter in self._waiters if waiter[0] > position]
        for wake in due:
            wake()

    def wait(self, at_least: int, timeout_seconds: float) -> bool:
        """Block until the marker has reached `at_least`; False when the time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._value >= at_least, timeout_seconds)

    async def reached(self, at_least: int, timeout_seconds: float) -> bool:
        """Wait, on the event loop, for the marker to reach `at_least`; False when time ran out."""
        if self._value >= at_least:
            return True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            loop.call_soon_threadsafe(_resolve, future)

        with self._changed:
            if self._value >= at_least:
                return True
            self._waiters.append((at_least, wake))
        try:
            await asyncio.wait_for(future, timeout_seconds)
        except TimeoutError:
            return self._value >= at_least
        finally:
            with self._changed:
                self._waiters = [waiter for waiter in self._waiters if waiter[1] is not wake]
        return True


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


#: The highest position of the log that this process knows to be committed.
appended = Marker()
