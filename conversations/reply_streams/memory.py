"""Reply streams within one process."""

import threading
import time
from asyncio import Queue
from collections.abc import AsyncIterator, Iterable, Sequence
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
from conversations.reply_streams.stream import Reader, Stream


class MemoryReplyStreams:
    """A stream a message, until it expires."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._streams: dict[UUID, Stream] = {}
        self._expires_at: dict[UUID, float] = {}
        self._swept_at = time.monotonic()

    def publish(self, message_id: UUID, *items: Item) -> None:
        ended = isinstance(items[-1], End)
        stream = self._stream(message_id, KEPT_SECONDS if ended else silent_seconds_max())
        for item in items:
            stream.take(item)

    def close(self, message_id: UUID) -> Sequence[Item]:
        stream = self._stream(message_id, silent_seconds_max())
        said = stream.items()
        stream.take(Closed())
        return said

    def forget(self, message_ids: Iterable[UUID]) -> None:
        for message_id in message_ids:
            # In place of the one that is forgotten, whose readers have yet to hear its end.
            with self._guard:
                self._streams.pop(message_id, None)
            self._stream(message_id, silent_seconds_max()).take(Forgotten())

    @asynccontextmanager
    async def follow(
        self, message_id: UUID, *, only_end: bool = False
    ) -> AsyncIterator[Queue[Item]]:
        stream = self._stream(message_id, silent_seconds_max())
        reader = Reader(stream, only_end=only_end)
        with stream.guard:
            stream.readers.add(reader)
        try:
            reader.hear()
            yield reader.said
        finally:
            with stream.guard:
                stream.readers.discard(reader)
            with self._guard:
                if not stream.readers and not stream.items():
                    self._drop(message_id)

    def _stream(self, message_id: UUID, kept_seconds: float) -> Stream:
        now = time.monotonic()
        with self._guard:
            self._sweep(now)
            self._expires_at[message_id] = now + kept_seconds
            return self._streams.setdefault(message_id, Stream())

    def _sweep(self, now: float) -> None:
        """Drop what has expired, once a second at most."""
        if now - self._swept_at >= 1.0:
            self._swept_at = now
            for message_id, expires_at in list(self._expires_at.items()):
                if expires_at < now and not self._streams[message_id].readers:
                    self._drop(message_id)

    def _drop(self, message_id: UUID) -> None:
        self._streams.pop(message_id, None)
        self._expires_at.pop(message_id, None)
