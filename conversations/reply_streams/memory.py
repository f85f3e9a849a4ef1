"""Reply streams within one process."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from conversations.reply_streams import (
    KEPT_SECONDS,
    Closed,
    End,
    Forgotten,
    Item,
    silent_seconds_max,
)


class _Stream:
    def __init__(self) -> None:
        self.items: list[Item] = []
        self.wakers: set[Callable[[], None]] = set()
        self.expires_at = 0.0

    def add(self, items: Iterable[Item]) -> None:
        """Add items; only the end comes after a `Closed`, and nothing after the end."""
        last = self.items[-1] if self.items else None
        if isinstance(last, Closed):
            self.items += [item for item in items if isinstance(item, End)]
        elif not isinstance(last, End | Forgotten):
            self.items += items
        ended = bool(self.items) and isinstance(self.items[-1], End)
        self.expires_at = time.monotonic() + (KEPT_SECONDS if ended else silent_seconds_max())


class MemoryReplyStreams:
    """A list of items a message, and a wake-up for each reader."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._streams: dict[UUID, _Stream] = {}
        self._swept_at = time.monotonic()

    def publish(self, message_id: UUID, *items: Item) -> None:
        with self._guard:
            self._sweep(time.monotonic())
            stream = self._streams.setdefault(message_id, _Stream())
            stream.add(items)
            wakers = list(stream.wakers)
        for wake in wakers:
            wake()

    def close(self, message_id: UUID) -> Sequence[Item]:
        with self._guard:
            stream = self._streams.setdefault(message_id, _Stream())
            said = list(stream.items)
            stream.add([Closed()])
            return said

    def forget(self, message_ids: Iterable[UUID]) -> None:
        with self._guard:
            for message_id in message_ids:
                self._streams[message_id] = _Stream()
                self._streams[message_id].add([Forgotten()])

    @asynccontextmanager
    async def follow(self, message_id: UUID) -> AsyncIterator[asyncio.Queue[Item]]:
        loop = asyncio.get_running_loop()
        said: asyncio.Queue[Item] = asyncio.Queue()
        read = 0

        def hear() -> None:
            nonlocal read
            while read < len(stream.items):
                said.put_nowait(stream.items[read])
                read += 1

        def wake() -> None:
            loop.call_soon_threadsafe(hear)

        with self._guard:
            stream = self._streams.setdefault(message_id, _Stream())
            stream.expires_at = max(stream.expires_at, time.monotonic() + silent_seconds_max())
            stream.wakers.add(wake)
        try:
            hear()
            yield said
        finally:
            with self._guard:
                stream.wakers.discard(wake)
                if not stream.items and not stream.wakers:
                    self._streams.pop(message_id, None)

    def _sweep(self, now: float) -> None:
        """Drop what has expired, once a second at most."""
        if now - self._swept_at >= 1.0:
            self._swept_at = now
            expired = [
                message_id
                for message_id, stream in self._streams.items()
                if stream.expires_at < now and not stream.wakers
            ]
            for message_id in expired:
                del self._streams[message_id]
