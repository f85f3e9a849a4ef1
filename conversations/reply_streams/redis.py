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
local last = redis.call('LINDEX', KEYS[1], -1)
if last and string.sub(last, 1, 13) == '{"type":"end"' then return 0 end
for i = 2, #ARGV do
    local number = redis.call('RPUSH', KEYS[1], ARGV[i])
    redis.call('PUBLISH', KEYS[1], number .. ':' .. ARGV[i])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 0
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Item).decode


def _channel(message_id: UUID | str) -> str:
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
        hub.add(reader)
        try:
            try:
                await hub.catch_up(reader)
            except (RedisError, OSError) as error:
                raise ReplyStreamsUnavailable(str(error)) from error
            yield reader.items()
        finally:
            hub.remove(reader)

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
    """The one connection on which an event loop hears all streams, and who reads which of them.

    One task owns it, so that nobody writes to a connection that another is reading. It hears the
    items of every message, also of those that wait elsewhere: a look into a dictionary each, where
    a subscription for each message would cost several round trips.
    """

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._readers: dict[str, set[_Reader]] = defaultdict(set)
        options: dict[str, Any] = {"socket_connect_timeout": TIMEOUT_SECONDS, "retry": None}
        self._lists = redis.asyncio.Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, **options)
        # It is silent as long as nobody says anything: it has no read timeout.
        self._channels = redis.asyncio.Redis.from_url(url, **options)
        self._listening = loop.create_task(self._listen())

    def add(self, reader: _Reader) -> None:
        """Give the reader what is said from now on; `catch_up` gives it what was said before."""
        self._readers[reader.channel].add(reader)

    def remove(self, reader: _Reader) -> None:
        readers = self._readers.get(reader.channel)
        if readers is not None:
            readers.discard(reader)
            if not readers:
                del self._readers[reader.channel]

    async def catch_up(self, reader: _Reader) -> None:
        # Fixed before the answer comes: the channel may bring the reader further meanwhile.
        seen = reader.seen
        kept: Any = await self._lists.lrange(reader.channel, seen, -1)
        for number, data in enumerate(kept, seen + 1):
            reader.offer(number, data)

    async def _listen(self) -> None:
        """Hand on what is said, for as long as the loop lives; reconnect whenever that is lost."""
        lost = False
        while True:
            try:
                async with self._channels.pubsub() as channels:
                    await channels.psubscribe(_channel("*"))
                    async for message in channels.listen():
                        if message["type"] == "psubscribe":
                            await self._catch_up_all()
                            lost = False
                        else:
                            self._dispatch(message)
            except (RedisError, OSError) as error:
                if not lost:
                    logger.warning("reply streams lost Redis and will retry: %s", error)
                lost = True
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _catch_up_all(self) -> None:
        """Give every reader what was said before this connection listened."""
        for reader in [each for readers in self._readers.values() for each in readers]:
            await self.catch_up(reader)

    def _dispatch(self, message: dict[str, Any]) -> None:
        readers = self._readers.get(message["channel"].decode())
        if readers:
            number, data = message["data"].split(b":", 1)
            for reader in readers:
                reader.offer(int(number), data)
