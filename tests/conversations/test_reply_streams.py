"""The promises of a reply stream, on the one that this profile uses."""

import asyncio
import threading
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from hypothesis import given
from hypothesis import strategies as st

from conversations.ends import Ended
from conversations.reply_streams import (
    KEPT_SECONDS,
    Closed,
    Delta,
    End,
    Forgotten,
    Item,
    ReplyStreams,
    Restart,
    Transcript,
    memory,
    redis,
    reply_streams,
    silent_seconds_max,
)
from eventstore.redis_client import redis_client

END = End(Ended(7, "done", 100, 0, response="Hello", attempt=2))
STORY: list[Item] = [
    Delta(1, 0, "Hi "),
    Delta(1, 3, "there"),
    Restart(2),
    Delta(2, 0, "Hel", prompt_tokens=4),
    Delta(2, 3, "lo"),
    END,
]


@dataclass
class Heard:
    """What a reader made of a stream."""

    text: str
    attempt: int
    prompt_tokens: int
    end: Item


AS_TOLD = Heard("Hello", 2, 4, END)


@pytest.fixture
def streams() -> ReplyStreams:
    reply_streams.forget()
    return reply_streams()


async def until_the_end(said: asyncio.Queue[Item]) -> Heard:
    transcript = Transcript()
    async with asyncio.timeout(5):
        while not isinstance(item := await said.get(), End):
            transcript.take(item)
    return Heard(transcript.text, transcript.attempt, transcript.prompt_tokens, item)


async def read(streams: ReplyStreams, message_id: UUID, delay_seconds: float = 0) -> Heard:
    await asyncio.sleep(delay_seconds)
    async with streams.follow(message_id) as said:
        return await until_the_end(said)


def test_a_reader_that_comes_late_hears_everything(streams: ReplyStreams) -> None:
    message_id = uuid4()
    for item in STORY:
        streams.publish(message_id, item)
    assert asyncio.run(read(streams, message_id)) == AS_TOLD


def test_readers_that_come_at_any_time_hear_the_text_in_order_and_the_end(
    streams: ReplyStreams,
) -> None:
    message_id = uuid4()
    words = [f"{number} " for number in range(200)]
    text = "".join(words)

    def tell() -> None:
        at = 0
        for word in words:
            streams.publish(message_id, Delta(1, at, word))
            at += len(word)
        streams.publish(message_id, END)

    async def tell_while_they_read() -> list[Heard]:
        readers = [
            asyncio.create_task(read(streams, message_id, number / 200)) for number in range(10)
        ]
        thread = threading.Thread(target=tell)
        thread.start()
        heard = await asyncio.gather(*readers)
        thread.join()
        return heard

    heard = asyncio.run(tell_while_they_read())
    # The end, which holds the whole text, may overtake what a late reader is still catching up on.
    assert all(text.startswith(each.text) and each.end == END for each in heard)
    assert len(heard) == 10


def test_streams_of_different_messages_do_not_mix(streams: ReplyStreams) -> None:
    first, second = uuid4(), uuid4()
    failed = End(Ended(2, "failed", 0, 100, reason="responder"))
    streams.publish(first, Delta(1, 0, "first"), END)
    streams.publish(second, Delta(1, 0, "second"), failed)

    async def story() -> list[Heard]:
        async with streams.follow(first) as one, streams.follow(second) as other:
            return [await until_the_end(one), await until_the_end(other)]

    assert asyncio.run(story()) == [Heard("first", 1, 0, END), Heard("second", 1, 0, failed)]


@given(st.data())
def test_a_transcript_is_right_whatever_comes_twice_late_or_never(data: st.DataObject) -> None:
    told: list[Item] = [
        Delta(1, 0, "void"),
        Restart(2),
        *(Delta(2, at, str(at)) for at in range(10)),
    ]
    twice = told + data.draw(st.lists(st.sampled_from(told)))
    shuffled = data.draw(st.permutations(twice))
    transcript = Transcript()
    for item in shuffled:
        transcript.take(item)
        assert "0123456789".startswith(transcript.text) or transcript.attempt == 1
    assert (transcript.attempt, transcript.text) == (2, "0123456789")
    assert all(transcript.delta(at).text == "0123456789"[at:] for at in range(12))


def test_a_transcript_stops_at_a_gap() -> None:
    transcript = Transcript()
    for item in (Delta(1, 0, "one "), Delta(1, 8, "three")):
        transcript.take(item)
    assert transcript.text == "one "
    transcript.take(Delta(1, 4, "two "))
    assert transcript.text == "one two three"


def test_what_the_channel_says_during_a_catch_up_is_not_lost() -> None:
    hub = object.__new__(redis._Hub)
    hub._followed = {}

    class BusyList:
        async def lrange(self, *_: object) -> list[bytes]:
            hub._dispatch(b'[["reply:test",' + redis._encode(Delta(1, 2, " there")) + b"]]")
            return [redis._encode(Delta(1, 0, "Hi")), redis._encode(END)]

    async def story() -> Heard:
        hub._lists = BusyList()  # type: ignore[assignment]
        reader = hub.add("reply:test")
        await hub.catch_up("reply:test")
        return await until_the_end(reader.said)

    assert asyncio.run(story()) == Heard("Hi there", 1, 0, END)


def test_a_reader_costs_by_what_it_reads_and_not_by_how_many_pieces_came(
    streams: ReplyStreams,
) -> None:
    message_id = uuid4()
    pieces = 2_000

    async def story() -> int:
        async with streams.follow(message_id) as said:
            for at in range(pieces):
                streams.publish(message_id, Delta(1, at, "x"))
            streams.publish(message_id, END)
            heard = 0
            async with asyncio.timeout(5):
                while not isinstance(await said.get(), End):
                    heard += 1
            return heard

    assert asyncio.run(story()) < pieces / 10


def test_pieces_that_follow_each_other_become_one() -> None:
    assert list(redis._joined(STORY)) == [
        Delta(1, 0, "Hi there"),
        Restart(2),
        Delta(2, 0, "Hello", prompt_tokens=4),
        END,
    ]
    gap: list[Item] = [Delta(1, 0, "a"), Delta(1, 5, "b"), Delta(2, 6, "c")]
    assert list(redis._joined(gap)) == gap


def test_a_reader_waits_for_what_has_not_been_said_yet(streams: ReplyStreams) -> None:
    message_id = uuid4()

    async def story() -> Heard:
        async with streams.follow(message_id) as said:
            reading = asyncio.create_task(until_the_end(said))
            await asyncio.sleep(0.05)
            assert not reading.done()
            await asyncio.to_thread(streams.publish, message_id, *STORY)
            return await reading

    assert asyncio.run(story()) == AS_TOLD


def test_nothing_is_said_after_the_end(streams: ReplyStreams) -> None:
    message_id = uuid4()
    streams.publish(message_id, Delta(1, 0, "Hi"), END)
    streams.publish(message_id, Delta(1, 2, "late"))
    assert streams.close(message_id) == [Delta(1, 0, "Hi"), END]
    assert asyncio.run(read(streams, message_id)) == Heard("Hi", 1, 0, END)


def test_a_closed_stream_takes_its_end_and_nothing_else(streams: ReplyStreams) -> None:
    message_id = uuid4()
    streams.publish(message_id, Delta(1, 0, "Hi"))
    assert streams.close(message_id) == [Delta(1, 0, "Hi")]
    streams.publish(message_id, Delta(1, 2, " there"))
    assert streams.close(message_id) == [Delta(1, 0, "Hi"), Closed()]
    streams.publish(message_id, Delta(1, 2, " there"), END)
    assert asyncio.run(read(streams, message_id)) == Heard("Hi", 1, 0, END)


def test_a_stream_that_was_never_told_can_be_closed(streams: ReplyStreams) -> None:
    message_id = uuid4()
    assert streams.close(message_id) == []
    streams.publish(message_id, Delta(1, 0, "Hi"), END)
    assert asyncio.run(read(streams, message_id)) == Heard("", 0, 0, END)


def test_a_forgotten_stream_holds_no_text(streams: ReplyStreams) -> None:
    message_id, other = uuid4(), uuid4()
    for each in (message_id, other):
        streams.publish(each, Delta(1, 0, "secret"), END)
    streams.forget([message_id])
    # A worker that still holds the text, and whoever reads the end from the log, tell nobody.
    streams.publish(message_id, Delta(1, 0, "secret"))
    streams.publish(message_id, END)
    assert streams.close(message_id) == [Forgotten()]
    assert streams.close(other) == [Delta(1, 0, "secret"), END]


def test_any_number_of_streams_is_forgotten(streams: ReplyStreams) -> None:
    messages = [uuid4() for _ in range(600)]
    for each in messages:
        streams.publish(each, Delta(1, 0, "secret"))
    streams.forget(messages)
    assert [streams.close(each) for each in messages] == [[Forgotten()]] * len(messages)


def test_many_readers_at_once_on_a_fresh_process_all_hear(streams: ReplyStreams) -> None:
    messages = [uuid4() for _ in range(40)]

    async def story() -> list[Heard]:
        readers = [asyncio.create_task(read(streams, each)) for each in messages]
        await asyncio.sleep(0)
        for each in messages:
            await asyncio.to_thread(streams.publish, each, END)
        return await asyncio.gather(*readers)

    assert asyncio.run(story()) == [Heard("", 0, 0, END)] * len(messages)


def test_a_redis_that_comes_back_empty_is_told_again_what_to_do(streams: ReplyStreams) -> None:
    if not isinstance(streams, redis.RedisReplyStreams):
        assert not settings.REDIS_URL
        return
    message_id = uuid4()
    streams.publish(message_id, Delta(1, 0, "lost"))
    assert streams.close(message_id)
    redis_client().execute_command("FLUSHALL")
    redis_client().execute_command("SCRIPT", "FLUSH")
    streams.publish(message_id, Delta(1, 4, " text"))
    streams.publish(message_id, END)
    # What is left has a gap before it, so none of it is shown before the end.
    assert asyncio.run(read(streams, message_id)) == Heard("", 1, 0, END)


def test_what_is_no_item_is_passed_over(streams: ReplyStreams) -> None:
    if not isinstance(streams, redis.RedisReplyStreams):
        assert not settings.REDIS_URL
        return
    message_id, channel = uuid4(), "reply:{}"

    async def story() -> Heard:
        redis_client().rpush(channel.format(message_id), b"of another version")
        async with streams.follow(message_id) as said:
            reading = asyncio.create_task(until_the_end(said))
            await asyncio.sleep(0.05)
            redis_client().publish(redis.CHANNEL, b'{"type":"of another version"}')
            told = f'[["{channel.format(message_id)}",{{"type":"of another version"}}]]'
            redis_client().publish(redis.CHANNEL, told.encode())
            await asyncio.to_thread(streams.publish, message_id, *STORY)
            return await reading

    assert asyncio.run(story()) == AS_TOLD


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
            # Before Python 3.12 one that comes together with an answer of Redis is swallowed.
            while not waiting.done():
                waiting.cancel()
                await asyncio.wait([waiting], timeout=0.1)

    asyncio.run(story())
    if isinstance(streams, redis.RedisReplyStreams):
        assert streams._hub
        assert not streams._hub._followed
    else:
        assert isinstance(streams, memory.MemoryReplyStreams)
        assert not streams._streams


def test_a_cut_connection_costs_no_reader_its_end(streams: ReplyStreams) -> None:
    if not isinstance(streams, redis.RedisReplyStreams):
        assert not settings.REDIS_URL
        return
    messages = [uuid4() for _ in range(20)]

    async def story() -> list[Heard]:
        readers = [asyncio.create_task(read(streams, each)) for each in messages]
        await asyncio.sleep(0.1)
        client = redis_client()
        for each in messages:
            await asyncio.to_thread(client.execute_command, "CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.to_thread(streams.publish, each, END)
        return await asyncio.gather(*readers)

    assert asyncio.run(story()) == [Heard("", 0, 0, END)] * len(messages)


class Clock:
    """A steady clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(memory, "time", clock)
    return clock


def test_what_has_expired_in_memory_can_be_forgotten(clock: Clock) -> None:
    streams = memory.MemoryReplyStreams()
    ended, other = uuid4(), uuid4()
    streams.publish(ended, Delta(1, 0, "Hi"), END)
    clock.now += KEPT_SECONDS + 1
    streams.forget([ended])
    clock.now += 1.1
    streams.publish(other, Delta(1, 0, "Hi"))
    assert streams.close(ended) == [Forgotten()]
    clock.now += silent_seconds_max() + 1
    streams.publish(other, END)
    assert ended not in streams._streams


def test_an_ended_stream_in_memory_is_kept_for_a_minute_whoever_comes(clock: Clock) -> None:
    streams = memory.MemoryReplyStreams()
    ended, other = uuid4(), uuid4()
    streams.publish(ended, Delta(1, 0, "Hi"), END)
    for _ in range(KEPT_SECONDS - 5):
        clock.now += 1.1
        streams.publish(other, Delta(1, 0, "x"))
        if clock.now < 1_000 + KEPT_SECONDS - 2:
            assert asyncio.run(read(streams, ended)).end == END
    clock.now += 10
    streams.publish(other, Delta(1, 0, "x"))
    assert ended not in streams._streams


def test_a_reader_that_leaves_drops_no_stream_but_its_own(clock: Clock) -> None:
    streams = memory.MemoryReplyStreams()
    message_id = uuid4()

    async def story() -> None:
        async with streams.follow(message_id):
            streams.forget([message_id])
        streams.publish(message_id, Delta(1, 0, "secret"))

    asyncio.run(story())
    assert streams.close(message_id) == [Forgotten()]


def test_a_loop_that_is_closed_keeps_nobody_from_publishing() -> None:
    streams = memory.MemoryReplyStreams()
    message_id = uuid4()
    following = streams.follow(message_id)
    asyncio.run(_enter(following))
    streams.publish(message_id, Delta(1, 0, "Hi"), END)
    assert streams.close(message_id) == [Delta(1, 0, "Hi"), END]


async def _enter(following: AbstractAsyncContextManager[object]) -> None:
    await following.__aenter__()
