"""What all processes share beside the database: a broker, leases and reply streams.

As Redis they can be away, and lose all they hold at any moment.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from conversations.reply_streams import Item, ReplyStreamsUnavailable
from conversations.reply_streams.memory import MemoryReplyStreams
from eventstore.leases import LeasesUnavailable, MemoryLeases
from tests.simulation.seams import Seams


class Redis:
    """The three together."""

    def __init__(self, seams: Seams) -> None:
        self.away = False
        self.broker = Broker(self, seams)
        self.leases = Leases(self, seams)
        self.streams = Streams(self, seams)

    def lose_all(self) -> None:
        self.broker.queue.clear()
        self.leases._held.clear()
        self.leases._counts.clear()
        self.streams._streams.clear()


class Broker:
    """A queue of message ids, from which any one may come next."""

    def __init__(self, redis: Redis, seams: Seams) -> None:
        self.queue: list[str] = []
        self._redis = redis
        self._seams = seams

    def enqueue(self, message: Any, *, delay: int | None = None) -> Any:
        """In the place of the method of Dramatiq's broker."""
        self._seams.reach(error=ConnectionError)
        if self._redis.away:
            raise ConnectionError("the broker is away")
        self.queue.append(message.args[0])
        self._seams.reach(error=ConnectionError)
        return message

    def acknowledge(self) -> None:
        """The worker is about to say that a message is done."""
        self._seams.reach(error=ConnectionError)
        if self._redis.away:
            raise ConnectionError("the broker is away")


class Leases(MemoryLeases):
    """Leases that cannot be had while Redis is away."""

    def __init__(self, redis: Redis, seams: Seams) -> None:
        super().__init__()
        self._redis = redis
        self._seams = seams

    def take(self, name: str, holder: str, ttl_seconds: float) -> int:
        self._reach()
        return super().take(name, holder, ttl_seconds)

    def release(self, name: str, holder: str) -> None:
        self._reach()
        super().release(name, holder)

    def holder_of(self, name: str) -> str | None:
        self._reach()
        return super().holder_of(name)

    def _reach(self) -> None:
        self._seams.reach(error=LeasesUnavailable)
        if self._redis.away:
            raise LeasesUnavailable("no leases")


class Streams(MemoryReplyStreams):
    """Reply streams that hear nothing, and cannot be closed, while Redis is away."""

    def __init__(self, redis: Redis, seams: Seams) -> None:
        super().__init__()
        self._redis = redis
        self._seams = seams

    def publish(self, message_id: UUID, *items: Item) -> None:
        try:
            self._reach()
        except ReplyStreamsUnavailable:
            return
        super().publish(message_id, *items)

    def close(self, message_id: UUID) -> Sequence[Item]:
        self._reach()
        return super().close(message_id)

    def forget(self, message_ids: Iterable[UUID]) -> None:
        self._reach()
        super().forget(message_ids)

    def _reach(self) -> None:
        self._seams.reach(error=ReplyStreamsUnavailable)
        if self._redis.away:
            raise ReplyStreamsUnavailable("no streams")
