"""Reply streams in Redis: a list keeps what was said, a channel tells what is being said.

All readers of a process share one connection. A reader listens first and reads the list then, so
that nothing falls between. All that a process publishes passes one thread: what gathers while a
round trip is under way shares the next one, and the pieces of one response become one.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec
import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from conversations.reply_streams import (
    KEPT_SECONDS,
    Delta,
    Forgotten,
    Item,
    ReplyStreamsUnavailable,
    silent_seconds_max,
)
from conversations.reply_streams.stream import Reader, Stream
from eventstore.redis_client import TIMEOUT_SECONDS, Breaker, new_client, redis_client

logger = logging.getLogger(__name__)

#: How long a lost connection stays lost before the next try.
RECONNECT_SECONDS = 0.2
#: How long the connection may be silent before its task looks whether it shall end.
HEAR_SECONDS = 1.0
#: Streams that one round trip adds to at most.
PUBLISHED_TOGETHER_MAX = 256
#: Streams that one transaction forgets at most: a user may have had thousands.
FORGOTTEN_TOGETHER_MAX = 256

_PUBLISH = """
local kind = string.match(redis.call('LINDEX', KEYS[1], -1) or '', '^{"type":"(%a+)"')
if kind == 'end' or kind == 'forgotten' then return 0 end
for i = 3, #ARGV do
    local ended = string.sub(ARGV[i], 1, 13) == '{"type":"end"'
    if ended or kind ~= 'closed' then
        redis.call('RPUSH', KEYS[1], ARGV[i])
        redis.call('PUBLISH', KEYS[1], ARGV[i])
    end
    if ended then
        redis.call('EXPIRE', KEYS[1], ARGV[2])
        return 0
    end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 0
"""
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


def _channel(message_id: UUID | str) -> str:
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
            said: Any = self._close(keys=[_channel(message_id)], args=[silent_seconds_max()])
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
                for channel in map(_channel, some):
                    pipeline.delete(channel)
                    pipeline.rpush(channel, _encode(Forgotten()))
                    pipeline.expire(channel, silent_seconds_max())
                pipeline.execute()
        except RedisError as error:
            raise ReplyStreamsUnavailable(str(error)) from error

    @asynccontextmanager
    async def follow(
        self, message_id: UUID, *, only_end: bool = False
    ) -> AsyncIterator[asyncio.Queue[Item]]:
        hub, channel = self._hub_of_this_loop(), _channel(message_id)
        reader = hub.add(channel, only_end=only_end)
        try:
            try:
                await hub.catch_up(channel)
            except (RedisError, OSError) as error:
                # It hears what is said all the same, or at least what is said later.
                logger.warning("message %s is followed from now on only: %s", message_id, error)
            yield reader.said
        finally:
            hub.remove(channel, reader)

    def _hub_of_this_loop(self) -> "_Hub":
        loop = asyncio.get_running_loop()
        if self._hub is None or self._hub.loop is not loop:
            self._hub = _Hub(self._url, loop)
        return self._hub


class _Publisher:
    """The thread that tells Redis what this process's workers say; what is lost is in the log."""

    def __init__(self) -> None:
        # Two hundred threads that take their leases at once kept it from the shared one for 100 ms.
        self._client = new_client()
        self._script = self._client.register_script(_PUBLISH)
        self._breaker = Breaker()
        self._changed = threading.Condition()
        self._waiting: dict[UUID, list[Item]] = {}
        self._busy = False
        self._complained = False
        self._thread: threading.Thread | None = None

    def add(self, message_id: UUID, items: Iterable[Item]) -> None:
        with self._changed:
            self._waiting.setdefault(message_id, []).extend(items)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all that was added so far is published or given up, but not for ever."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._busy, TIMEOUT_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                self._busy = True
                now = list(self._waiting)[:PUBLISHED_TOGETHER_MAX]
                batch = {message_id: self._waiting.pop(message_id) for message_id in now}
            try:
                self._publish(batch)
                self._complained = False
            except Exception as error:  # noqa: BLE001 (it must not die of anything)
                if not self._complained:
                    logger.warning("nobody can be told of responses now: %s", error)
                self._complained = True

    def _publish(self, batch: Mapping[UUID, Sequence[Item]]) -> None:
        try:
            self._send(batch)
        except NoScriptError:
            # Redis came back empty: it has to be told the script again.
            self._client.script_load(self._script.script)
            self._send(batch)

    def _send(self, batch: Mapping[UUID, Sequence[Item]]) -> None:
        pipeline: Any = self._client.pipeline(transaction=False)
        for message_id, items in batch.items():
            key, said = _channel(message_id), map(_encode, _joined(items))
            pipeline.execute_command(
                "EVALSHA", self._script.sha, 1, key, silent_seconds_max(), KEPT_SECONDS, *said
            )
        with self._breaker:
            pipeline.execute()


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

    def add(self, channel: str, *, only_end: bool = False) -> Reader:
        """A reader of what is said from now on; `catch_up` gives it what was said before."""
        stream = self._followed.setdefault(channel, Stream())
        reader = Reader(stream, only_end=only_end)
        stream.readers.add(reader)
        reader.hear()
        return reader

    def remove(self, channel: str, reader: Reader) -> None:
        stream = self._followed[channel]
        stream.readers.discard(reader)
        if not stream.readers:
            del self._followed[channel]

    async def catch_up(self, channel: str) -> None:
        kept: Any = await self._lists.lrange(channel, 0, -1)
        stream = self._followed.get(channel)
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
                    await channels.psubscribe(_channel("*"))
                    while not me.cancelling():
                        message = await channels.get_message(timeout=HEAR_SECONDS)
                        if message is None:
                            continue
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
        """Take what was said before this connection listened."""
        for channel in list(self._followed):
            await self.catch_up(channel)

    def _dispatch(self, message: dict[str, Any]) -> None:
        stream = self._followed.get(message["channel"].decode())
        if stream and (item := _readable(message["data"])):
            stream.take(item)


def _readable(data: bytes) -> Item | None:
    """An item; None for what another version of this program says, and this one does not know."""
    item: Item | None = None
    try:
        item = _decode(data)
    except msgspec.DecodeError as error:
        logger.warning("a reply stream holds what is no item: %s", error)
    return item
