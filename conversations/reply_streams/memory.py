"""Reply streams within one process."""

import threading
import time
from asyncio import Queue
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

from conversations.reply_streams import (
    KEPT_SECONDS,
    Closed,
    Forgotten,
    Item,
    silent_seconds_max,
)
from conversations.reply_streams.stream import Reader, Stream


class _Kept(Stream):
    """A stream, and until when it is kept."""

    expires_at = 0.0


class MemoryReplyStreams:
    """A stream a message, until it expires."""

    def __init__(self) -> None:
        # Held around every change, so that nobody adds to a stream that another drops.
        self._guard = threading.Lock()
        self._streams: dict[UUID, _Kept] = {}
        self._swept_at = time.monotonic()

    def publish(self, message_id: UUID, *items: Item) -> None:
        with self._guard:
            stream = self._stream(message_id)
            for item in items:
                stream.take(item)

    def close(self, message_id: UUID) -> Sequence[Item]:
        with self._guard:
            stream = self._stream(message_id)
            said = stream.items()
            stream.take(Closed())
            return said

    def forget(self, message_ids: Iterable[UUID]) -> None:
        with self._guard:
            for message_id in message_ids:
                # In place of the one that is forgotten, whose readers have yet to hear its end.
                self._streams.pop(message_id, None)
                self._stream(message_id).take(Forgotten())

    @contextmanager
    def listening(self, message_id: UUID, *, only_end: bool = False) -> Iterator[Queue[Item]]:
        with self._guard:
            stream = self._stream(message_id)
            reader = Reader(stream, only_end=only_end)
            stream.readers.add(reader)
        try:
            reader.hear()
            yield reader.said
        finally:
            with self._guard:
                stream.readers.discard(reader)
                is_empty = not stream.readers and not stream.items()
                if is_empty and self._streams.get(message_id) is stream:
                    del self._streams[message_id]

    @asynccontextmanager
    async def follow(self, message_id: UUID) -> AsyncIterator[Queue[Item]]:
        # What was said before is here, and a reader begins with it.
        with self.listening(message_id) as said:
            yield said

    def _stream(self, message_id: UUID) -> _Kept:
        now = time.monotonic()
        self._sweep(now)
        stream = self._streams.setdefault(message_id, _Kept())
        if stream.end is None:
            stream.expires_at = now + silent_seconds_max()
        return stream

    def _sweep(self, now: float) -> None:
        """Drop what has expired, once a second at most."""
        if now - self._swept_at < 1.0:
            return
        self._swept_at = now
        for message_id, stream in list(self._streams.items()):
            if stream.end is not None:
                # From when the end was first seen here, which is soon enough.
                stream.expires_at = min(stream.expires_at, now + KEPT_SECONDS)
            if stream.expires_at < now and not stream.readers:
                del self._streams[message_id]
