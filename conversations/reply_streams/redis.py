"""Reply streams in Redis: a list keeps what was said, a channel tells that more was.

All readers of a process share one connection. A reader listens first and reads the list then, so
that nothing falls between; each item carries its number, so that nothing comes twice.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
import redis.asyncio
from redis.exceptions import RedisError

from conversations.reply_streams import (
    KEPT_SECONDS,
    SILENT_SECONDS_MAX,
    End,
    Item,
    ReplyStreamsUnavailable,
)
from eventstore.redis_client import TIMEOUT_SECONDS, redis_client

logger = logging.getLogger(__name__)

#: How long a lost connection stays lost before the next try.
RECONNECT_SECONDS = 0.2

_PUBLISH = """
for i = 2, #ARGV do
    local number = redis.call('RPUSH', KEYS[1], ARGV[i])
    redis.call('PUBLISH', KEYS[1], number .. ':' .. ARGV[i])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 0
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Item).decode


def _channel(message_id: UUID) -> str:
    return f"reply:{message_id}"


class RedisReplyStreams:
    """The streams of all processes; see the module's promise."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._publish = redis_client().register_script(_PUBLISH)
        self._hub: _Hub | None = None

    def publish(self, message_id: UUID, *items: Item) -> None:
        kept = KEPT_SECONDS if isinstance(items[-1], End) else SILENT_SECONDS_MAX
        try:
            self._publish(keys=[_channel(message_id)], args=[kept, *map(_encode, items)])
        except RedisError as error:
            raise ReplyStreamsUnavailable(str(error)) from error

    @asynccontextmanager
    async def follow(self, message_id: UUID) -> AsyncIterator[AsyncIterator[Item]]:
        hub = self._hub_of_this_loop()
        reader = _Reader(_channel(message_id))
        try:
            await hub.add(reader)
        except (RedisError, OSError, TimeoutError) as error:
            await hub.remove(reader)
            raise ReplyStreamsUnavailable(str(error)) from error
        try:
            yield reader.items()
        finally:
            await hub.remove(reader)

    def _hub_of_this_loop(self) -> "_Hub":
        loop = asyncio.get_running_loop()
        if self._hub is None or self._hub.loop is not loop:
            self._hub = _Hub(self._url, loop)
        return self._hub


class _Reader:
    """What one reader has yet to see of one stream, in the order of the numbers."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.seen = 0
        self.queue: asyncio.Queue[Item] = asyncio.Queue()
        # What the channel says may come before the list has told what was said earlier.
        self._early: dict[int, bytes] = {}

    def offer(self, number: int, data: bytes) -> None:
        if number > self.seen:
            self._early[number] = data
        while (following := self._early.pop(self.seen + 1, None)) is not None:
            self.seen += 1
            self.queue.put_nowait(_decode(following))

    async def items(self) -> AsyncIterator[Item]:
        while True:
            yield await self.queue.get()


class _Hub:
    """The one subscribed connection of an event loop, and who reads what from it."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._readers: dict[str, set[_Reader]] = defaultdict(set)
        self._waiting: dict[str, list[asyncio.Future[None]]] = defaultdict(list)
        self._client = redis.asyncio.Redis.from_url(
            url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS, retry=None
        )
        # Its connection is silent as long as nobody says anything: it has no read timeout.
        self._subscriber = redis.asyncio.Redis.from_url(
            url, socket_connect_timeout=TIMEOUT_SECONDS, retry=None
        ).pubsub()
        self._pump: asyncio.Task[None] | None = None

    async def add(self, reader: _Reader) -> None:
        """Listen for the reader's stream, then give it what is there already."""
        self._readers[reader.channel].add(reader)
        listening: asyncio.Future[None] = self.loop.create_future()
        self._waiting[reader.channel].append(listening)
        await self._subscriber.subscribe(reader.channel)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._receive())
        await asyncio.wait_for(listening, TIMEOUT_SECONDS)
        await self._catch_up(reader)

    async def remove(self, reader: _Reader) -> None:
        readers = self._readers.get(reader.channel)
        if readers is not None:
            readers.discard(reader)
            if not readers:
                del self._readers[reader.channel]
                self._waiting.pop(reader.channel, None)
                try:
                    await self._subscriber.unsubscribe(reader.channel)
                except (RedisError, OSError):
                    logger.debug("a channel was not unsubscribed: Redis is away")

    async def _catch_up(self, reader: _Reader) -> None:
        # Fixed before the answer comes: the channel may bring the reader further meanwhile.
        seen = reader.seen
        kept: Any = await self._client.lrange(reader.channel, seen, -1)
        for number, data in enumerate(kept, seen + 1):
            reader.offer(number, data)

    async def _receive(self) -> None:
        """Hand on what comes, as long as anybody reads; reconnect when the connection is lost."""
        lost = False
        while self._readers:
            try:
                message = await self._subscriber.get_message(timeout=None)
                if message is not None:
                    self._dispatch(message)
                if lost:
                    # The library subscribed anew by itself; what was said meanwhile is in the
                    # lists.
                    for reader in [each for group in self._readers.values() for each in group]:
                        await self._catch_up(reader)
                    lost = False
            except (RedisError, OSError) as error:
                if not lost:
                    logger.warning("reply streams lost Redis and will retry: %s", error)
                lost = True
                await asyncio.sleep(RECONNECT_SECONDS)

    def _dispatch(self, message: dict[str, Any]) -> None:
        channel = message["channel"].decode()
        if message["type"] == "subscribe":
            for listening in self._waiting.pop(channel, []):
                if not listening.done():
                    listening.set_result(None)
        elif message["type"] == "message":
            number, data = message["data"].split(b":", 1)
            for reader in list(self._readers.get(channel, ())):
                reader.offer(int(number), data)
