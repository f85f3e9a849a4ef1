"""Reply streams in Redis: lists keep what was said, one channel tells what is being said.

All readers of a process share one connection. A reader listens first and reads the list then, so
that nothing falls between. All that a process publishes passes one thread: what gathers while a
round trip is under way shares the next one, the pieces of one response become one, and whoever
listens gets all of it as one message.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import Context
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec
import redis.asyncio
from redis.exceptions import RedisError

from conversations.reply_streams import (
    KEPT_SECONDS,
    Delta,
    Forgotten,
    Item,
    ReplyStreamsUnavailable,
    silent_seconds_max,
)
from conversations.reply_streams.stream import Reader, Stream
from eventstore.gathering import Gathering, TooManyWait
from eventstore.redis_client import TIMEOUT_SECONDS, new_client, redis_client

logger = logging.getLogger(__name__)

#: How long a lost connection stays lost before the next try.
RECONNECT_SECONDS = 0.2
#: How long the connection may be silent before its task looks whether it shall end.
HEAR_SECONDS = 1.0
#: Streams that one transaction forgets at most: a user may have had thousands.
FORGOTTEN_TOGETHER_MAX = 256

#: On this channel every process hears, in groups, what is said of any message.
CHANNEL = "replies"

# ARGV: how long a silent stream is kept, and an ended one; then for each key the number of its
# items, and its items. What the channel tells is `[[key, item], …]`.
_PUBLISH = """
local told, at = {}, 3
for k = 1, #KEYS do
    local kind = string.match(redis.call('LINDEX', KEYS[k], -1) or '', '^{"type":"(%a+)"')
    local over, last = kind == 'end' or kind == 'forgotten', at + tonumber(ARGV[at])
    for i = at + 1, last do
        local ended = string.sub(ARGV[i], 1, 13) == '{"type":"end"'
        if not over and (ended or kind ~= 'closed') then
            redis.call('RPUSH', KEYS[k], ARGV[i])
            redis.call('EXPIRE', KEYS[k], ended and ARGV[2] or ARGV[1])
            told[#told + 1] = '["' .. KEYS[k] .. '",' .. ARGV[i] .. ']'
            over = ended
        end
    end
    at = last + 1
end
if #told > 0 then redis.call('PUBLISH', '__CHANNEL__', '[' .. table.concat(told, ',') .. ']') end
return 0
""".replace("__CHANNEL__", CHANNEL)
_CLOSE = """
local items = redis.call('LRANGE', KEYS[1], 0, -1)
local kind = string.match(items[#items] or '', '^{"type":"(%a+)"')
if kind ~= 'end' and kind ~= 'closed' and kind ~= 'forgotten' then
    redis.call('RPUSH', KEYS[1], '{"type":"closed"}')
    redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return items
"""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Item).decode
_decode_told = msgspec.json.Decoder(list[tuple[str, msgspec.Raw]]).decode


def _key(message_id: UUID | str) -> str:
    return f"reply:{message_id}"


class RedisReplyStreams:
    """The streams of all processes; see the module's promise."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = redis_client()
        self._close = self._client.register_script(_CLOSE)
        self._publisher = _Publisher()
        self._hub: _Hub | None = None

    def publish(self, message_id: UUID, *items: Item) -> None:
        self._publisher.add(message_id, items)

    def close(self, message_id: UUID) -> Sequence[Item]:
        self._publisher.flush()
        try:
            said: Any = self._close(keys=[_key(message_id)], args=[silent_seconds_max()])
        except RedisError as error:
            raise ReplyStreamsUnavailable(str(error)) from error
        return [item for item in map(_readable, said) if item]

    def forget(self, message_ids: Iterable[UUID]) -> None:
        # What is still on its way there would bring them back.
        self._publisher.flush()
        left = iter(message_ids)
        try:
            while some := tuple(islice(left, FORGOTTEN_TOGETHER_MAX)):
                pipeline = self._client.pipeline(transaction=True)
                for key in map(_key, some):
                    pipeline.delete(key)
                    pipeline.rpush(key, _encode(Forgotten()))
                    pipeline.expire(key, silent_seconds_max())
                pipeline.execute()
        except RedisError as error:
            raise ReplyStreamsUnavailable(str(error)) from error

    @contextmanager
    def listening(
        self, message_id: UUID, *, only_end: bool = False
    ) -> Iterator[asyncio.Queue[Item]]:
        hub, key = self._hub_of_this_loop(), _key(message_id)
        reader = hub.add(key, only_end=only_end)
        try:
            yield reader.said
        finally:
            hub.remove(key, reader)

    @asynccontextmanager
    async def follow(self, message_id: UUID) -> AsyncIterator[asyncio.Queue[Item]]:
        with self.listening(message_id) as said:
            try:
                await self._hub_of_this_loop().catch_up(_key(message_id))
            except (RedisError, OSError) as error:
                # It hears what is said all the same, or at least what is said later.
                logger.warning("message %s is followed from now on only: %s", message_id, error)
            yield said

    def _hub_of_this_loop(self) -> "_Hub":
        loop = asyncio.get_running_loop()
        if self._hub is None or self._hub.loop is not loop:
            self._hub = _Hub(self._url, loop)
        return self._hub


class _Publisher:
    """Tells Redis what this process's workers say; what is lost is in the log."""

    def __init__(self) -> None:
        # Two hundred threads that take their leases at once kept it from the shared one for 100 ms.
        self._client = new_client()
        self._script = self._client.register_script(_PUBLISH)
        self._said = Gathering[tuple[UUID, tuple[Item, ...]]](
            "publisher", self._publish, "nobody can be told of responses now"
        )

    def add(self, message_id: UUID, items: tuple[Item, ...]) -> None:
        with suppress(TooManyWait):
            self._said.add((message_id, items))

    def flush(self) -> None:
        """Wait until all that was added so far is published or given up, but not for ever."""
        self._said.flush(TIMEOUT_SECONDS)

    def _publish(self, batch: Sequence[tuple[UUID, tuple[Item, ...]]]) -> None:
        of_messages: defaultdict[UUID, list[Item]] = defaultdict(list)
        for message_id, items in batch:
            of_messages[message_id].extend(items)
        arguments: list[Any] = [silent_seconds_max(), KEPT_SECONDS]
        for said in of_messages.values():
            encoded = [_encode(item) for item in _joined(said)]
            arguments += (len(encoded), *encoded)
        self._script(keys=[_key(each) for each in of_messages], args=arguments)


def _joined(items: Iterable[Item]) -> Iterator[Item]:
    """The items, with pieces that follow each other made one."""
    run: list[Delta] = []
    for item in items:
        if run and not _follows(item, run[-1]):
            yield _one(run)
            run = []
        if isinstance(item, Delta):
            run.append(item)
        else:
            yield item
    if run:
        yield _one(run)


def _follows(item: Item, last: Delta) -> bool:
    return (
        isinstance(item, Delta)
        and item.attempt == last.attempt
        and item.at == last.at + len(last.text)
    )


def _one(run: Sequence[Delta]) -> Delta:
    return msgspec.structs.replace(run[0], text="".join(delta.text for delta in run))


class _Hub:
    """The one connection on which an event loop hears all streams, and who reads which of them.

    One task owns it, so that nobody writes to a connection that another is reading. It hears the
    items of every message, also of those that wait elsewhere: a look into a dictionary each, where
    a subscription for each message would cost several round trips.
    """

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._followed: dict[str, Stream] = {}
        options: dict[str, Any] = {"socket_connect_timeout": TIMEOUT_SECONDS, "retry": None}
        self._lists = redis.asyncio.Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, **options)
        # It is silent as long as nobody says anything: it has no read timeout.
        self._channels = redis.asyncio.Redis.from_url(url, **options)
        # Not in the context of the request that comes first, whose ids its lines would carry.
        self._listening = loop.create_task(self._listen(), context=Context())

    def add(self, key: str, *, only_end: bool = False) -> Reader:
        """A reader of what is said from now on; `catch_up` gives it what was said before."""
        stream = self._followed.setdefault(key, Stream())
        reader = Reader(stream, only_end=only_end)
        stream.readers.add(reader)
        reader.hear()
        return reader

    def remove(self, key: str, reader: Reader) -> None:
        stream = self._followed[key]
        stream.readers.discard(reader)
        if not stream.readers:
            del self._followed[key]

    async def catch_up(self, key: str) -> None:
        kept: Any = await self._lists.lrange(key, 0, -1)
        stream = self._followed.get(key)
        for item in map(_readable, kept if stream else ()):
            if stream and item:
                stream.take(item)

    async def _listen(self) -> None:
        """Hand on what is said, for as long as the loop lives; reconnect whenever that is lost."""
        lost, me = False, asyncio.current_task()
        # A cancellation that comes together with a message is swallowed on its way (wait_for does
        # so before Python 3.12), so it is asked for.
        while me and not me.cancelling():
            try:
                async with self._channels.pubsub() as channels:
                    await channels.subscribe(CHANNEL)
                    while not me.cancelling():
                        message = await channels.get_message(timeout=HEAR_SECONDS)
                        if message is None:
                            continue
                        if message["type"] == "subscribe":
                            await self._catch_up_all()
                            lost = False
                        else:
                            self._dispatch(message["data"])
            except (RedisError, OSError) as error:
                if not lost:
                    logger.warning("reply streams lost Redis and will retry: %s", error)
                lost = True
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _catch_up_all(self) -> None:
        """Take what was said before this connection listened."""
        for key in list(self._followed):
            await self.catch_up(key)

    def _dispatch(self, told: bytes) -> None:
        try:
            items = _decode_told(told)
        except msgspec.DecodeError as error:
            logger.warning("the channel of replies tells what is no list of items: %s", error)
            return
        for key, said in items:
            stream = self._followed.get(key)
            if stream and (item := _readable(said)):
                stream.take(item)


def _readable(data: bytes | msgspec.Raw) -> Item | None:
    """An item; None for what another version of this program says, and this one does not know."""
    item: Item | None = None
    try:
        item = _decode(data)
    except msgspec.DecodeError as error:
        logger.warning("a reply stream holds what is no item: %s", error)
    return item
