"""The promises of a reply stream, on the one that this profile uses."""

import asyncio
import threading
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from django.conf import settings

from conversations.ends import Ended
from conversations.reply_streams import (
    Delta,
    End,
    Item,
    ReplyStreams,
    Restart,
    redis,
    reply_streams,
)
from eventstore.redis_client import redis_client

END = End(Ended(7, "done", 100, response="Hello"))
STORY: list[Item] = [Delta("Hi "), Delta("there"), Restart(), Delta("Hello"), END]


@pytest.fixture
def streams() -> ReplyStreams:
    reply_streams.forget()
    return reply_streams()


async def until_the_end(items: AsyncIterator[Item]) -> list[Item]:
    heard: list[Item] = []
    async with asyncio.timeout(5):
        async for item in items:
            heard.append(item)
            if isinstance(item, End):
                break
    return heard


def test_a_reader_that_comes_late_hears_everything(streams: ReplyStreams) -> None:
    message_id = uuid4()
    for item in STORY:
        streams.publish(message_id, item)

    async def read() -> list[Item]:
        async with streams.follow(message_id) as items:
            return await until_the_end(items)

    assert asyncio.run(read()) == STORY


def test_readers_that_come_at_any_time_hear_everything_once_and_in_order(
    streams: ReplyStreams,
) -> None:
    message_id = uuid4()
    story = [Delta(str(number)) for number in range(200)] + [END]

    async def read(delay: float) -> list[Item]:
        await asyncio.sleep(delay)
        async with streams.follow(message_id) as items:
            return await until_the_end(items)

    async def tell_while_they_read() -> list[list[Item]]:
        def tell() -> None:
            for item in story:
                streams.publish(message_id, item)

        readers = [asyncio.create_task(read(number / 200)) for number in range(10)]
        thread = threading.Thread(target=tell)
        thread.start()
        heard = await asyncio.gather(*readers)
        thread.join()
        return heard

    assert asyncio.run(tell_while_they_read()) == [story] * 10


def test_streams_of_different_messages_do_not_mix(streams: ReplyStreams) -> None:
    first, second = uuid4(), uuid4()
    streams.publish(first, Delta("first"), END)
    streams.publish(second, Delta("second"), End(Ended(2, "failed", 0, reason="responder")))

    async def read() -> list[list[Item]]:
        async with streams.follow(first) as one, streams.follow(second) as other:
            return [await until_the_end(one), await until_the_end(other)]

    assert asyncio.run(read()) == [
        [Delta("first"), END],
        [Delta("second"), End(Ended(2, "failed", 0, reason="responder"))],
    ]


def test_what_the_channel_says_during_a_catch_up_comes_once_and_in_order() -> None:
    reader = redis._Reader("reply:test")
    hub = object.__new__(redis._Hub)

    class BusyList:
        async def lrange(self, *_: object) -> list[bytes]:
            reader.offer(1, redis._encode(Delta("Hi")))
            reader.offer(2, redis._encode(END))
            return [redis._encode(Delta("Hi"))]

    async def story() -> list[Item]:
        hub._lists = BusyList()  # type: ignore[assignment]
        await hub.catch_up(reader)
        return await until_the_end(reader.items())

    assert asyncio.run(story()) == [Delta("Hi"), END]
    assert reader.queue.empty()


def test_a_reader_waits_for_what_has_not_been_said_yet(streams: ReplyStreams) -> None:
    message_id = uuid4()

    async def read() -> list[Item]:
        async with streams.follow(message_id) as items:
            reading = asyncio.create_task(until_the_end(items))
            await asyncio.sleep(0.05)
            assert not reading.done()
            await asyncio.to_thread(streams.publish, message_id, *STORY)
            return await reading

    assert asyncio.run(read()) == STORY


def test_nothing_is_said_after_the_end(streams: ReplyStreams) -> None:
    message_id = uuid4()
    streams.publish(message_id, Delta("Hi"), END)
    streams.publish(message_id, Delta("late"))

    async def read() -> list[Item]:
        async with streams.follow(message_id) as items:
            return await until_the_end(items)

    assert asyncio.run(read()) == [Delta("Hi"), END]


def test_many_readers_at_once_on_a_fresh_process_all_hear(streams: ReplyStreams) -> None:
    messages = [uuid4() for _ in range(40)]

    async def read(message_id: UUID) -> list[Item]:
        async with streams.follow(message_id) as items:
            return await until_the_end(items)

    async def story() -> list[list[Item]]:
        readers = [asyncio.create_task(read(each)) for each in messages]
        await asyncio.sleep(0)
        for each in messages:
            await asyncio.to_thread(streams.publish, each, END)
        return await asyncio.gather(*readers)

    assert asyncio.run(story()) == [[END]] * len(messages)


def test_readers_that_go_leave_nothing_behind(streams: ReplyStreams) -> None:
    async def wait_a_little(hops: int) -> None:
        async with streams.follow(uuid4()):
            for _ in range(hops):
                await asyncio.sleep(0)
            await asyncio.sleep(5)

    async def story() -> None:
        for hops in range(30):
            waiting = asyncio.create_task(wait_a_little(hops))
            for _ in range(hops):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])

    asyncio.run(story())
    if isinstance(streams, redis.RedisReplyStreams):
        assert streams._hub
        assert not streams._hub._readers


def test_a_cut_connection_costs_no_reader_its_end(streams: ReplyStreams) -> None:
    if not isinstance(streams, redis.RedisReplyStreams):
        assert not settings.REDIS_URL
        return
    messages = [uuid4() for _ in range(20)]

    async def read(message_id: UUID) -> list[Item]:
        async with streams.follow(message_id) as items:
            return await until_the_end(items)

    async def story() -> list[list[Item]]:
        readers = [asyncio.create_task(read(each)) for each in messages]
        await asyncio.sleep(0.1)
        client = redis_client()
        for each in messages:
            await asyncio.to_thread(client.execute_command, "CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.to_thread(streams.publish, each, END)
        return await asyncio.gather(*readers)

    assert asyncio.run(story()) == [[END]] * len(messages)
