"""Reply streams within one process."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from conversations.reply_streams import KEPT_SECONDS, SILENT_SECONDS_MAX, End, Item


class _Stream:
    def __init__(self) -> None:
        self.items: list[Item] = []
        self.wakers: set[Callable[[], None]] = set()
        self.expires_at = 0.0


class MemoryReplyStreams:
    """A list of items a message, and a wake-up for each reader."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._streams: dict[UUID, _Stream] = {}
        self._swept_at = time.monotonic()

    def publish(self, message_id: UUID, *items: Item) -> None:
        now = time.monotonic()
        with self._guard:
            self._sweep(now)
            stream = self._streams.setdefault(message_id, _Stream())
            if stream.items and isinstance(stream.items[-1], End):
                return
            stream.items.extend(items)
            ended = isinstance(items[-1], End)
            stream.expires_at = now + (KEPT_SECONDS if ended else SILENT_SECONDS_MAX)
            wakers = list(stream.wakers)
        for wake in wakers:
            wake()

    @asynccontextmanager
    async def follow(self, message_id: UUID) -> AsyncIterator[AsyncIterator[Item]]:
        loop = asyncio.get_running_loop()
        news = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(news.set)

        with self._guard:
            stream = self._streams.setdefault(message_id, _Stream())
            stream.expires_at = max(stream.expires_at, time.monotonic() + SILENT_SECONDS_MAX)
            stream.wakers.add(wake)
        try:
            yield _items(stream, news)
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


async def _items(stream: _Stream, news: asyncio.Event) -> AsyncIterator[Item]:
    read = 0
    while True:
        news.clear()
        while read < len(stream.items):
            read += 1
            yield stream.items[read - 1]
        await news.wait()
