"""One read for all who ask while another is under way."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from eventstore import database, shared_reads
from eventstore.database import StoreUnavailable
from eventstore.shared_reads import SharedReads

Batch = Sequence[int]


class Reading:
    """A read that can be held up, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, questions: Batch) -> list[int | Exception]:
        self.asked.append(list(questions))
        assert self.go_on.wait(10)
        return [LookupError(each) if each < 0 else each * 10 for each in questions]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, no read here is slow but the one that is to be."""
    monkeypatch.setattr(shared_reads, "PATIENCE_SECONDS", 60)


@pytest.fixture
def reading() -> Reading:
    return Reading()


async def until_read(reading: Reading, times: int) -> None:
    async with asyncio.timeout(10):
        while len(reading.asked) < times:  # noqa: ASYNC110 (it is a thread that is waited for)
            await asyncio.sleep(0.001)


def begun(*questions: Coroutine[Any, Any, int]) -> list["asyncio.Task[int]"]:
    return [asyncio.create_task(question) for question in questions]


def test_who_asks_alone_is_read_for_alone(reading: Reading) -> None:
    reads = SharedReads(reading)

    async def story() -> list[int]:
        return [await reads.ask(1), await reads.ask(2)]

    assert asyncio.run(story()) == [10, 20]
    assert reading.asked == [[1], [2]]


def test_who_asks_while_a_read_is_under_way_shares_the_next(reading: Reading) -> None:
    reads = SharedReads(reading)

    async def story() -> list[int]:
        reading.go_on.clear()
        first = begun(reads.ask(1))
        await until_read(reading, 1)
        others = begun(*(reads.ask(number) for number in range(2, 9)))
        await asyncio.sleep(0)
        reading.go_on.set()
        return list(await asyncio.gather(*first, *others))

    assert asyncio.run(story()) == [number * 10 for number in range(1, 9)]
    assert reading.asked == [[1], list(range(2, 9))]


def test_nobody_is_answered_by_a_read_that_began_before_the_question(reading: Reading) -> None:
    """Or a JWT would be believed that was revoked just before its request."""
    reads = SharedReads(reading)

    async def story() -> None:
        reading.go_on.clear()
        first = begun(reads.ask(1))
        await until_read(reading, 1)
        same = begun(reads.ask(1))
        await asyncio.sleep(0)
        reading.go_on.set()
        await asyncio.gather(*first, *same)

    asyncio.run(story())
    assert reading.asked == [[1], [1]]


def test_an_error_of_one_is_raised_for_nobody_else(reading: Reading) -> None:
    reads = SharedReads(reading)

    async def story() -> list[Any]:
        reading.go_on.clear()
        all_of_them = begun(*(reads.ask(number) for number in (1, 2, -3, 4)))
        await until_read(reading, 1)
        reading.go_on.set()
        return list(await asyncio.gather(*all_of_them, return_exceptions=True))

    answers = asyncio.run(story())
    assert [answers[0], answers[1], answers[3]] == [10, 20, 40]
    assert isinstance(answers[2], LookupError)


def test_an_error_of_the_read_is_everybodys_and_the_next_read_is_tried() -> None:
    asked: list[Batch] = []

    def read(questions: Batch) -> Batch:
        asked.append(questions)
        if len(asked) == 1:
            raise StoreUnavailable("away")
        return questions

    reads = SharedReads(read)

    async def story() -> list[Any]:
        both = (reads.ask(each) for each in (1, 2))
        return [*await asyncio.gather(*both, return_exceptions=True), await reads.ask(3)]

    first, second, third = asyncio.run(story())
    assert isinstance(first, StoreUnavailable)
    assert isinstance(second, StoreUnavailable)
    assert third == 3


def test_who_asks_in_the_same_turn_of_the_loop_shares_a_read(reading: Reading) -> None:
    reads = SharedReads(reading)

    async def story() -> list[int]:
        return list(await asyncio.gather(*(reads.ask(number) for number in (1, 2, 3))))

    assert asyncio.run(story()) == [10, 20, 30]
    assert reading.asked == [[1, 2, 3]]


def test_behind_a_slow_read_nobody_waits_for_long(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_reads, "PATIENCE_SECONDS", 0.01)
    slow = threading.Event()

    def read(questions: Batch) -> list[int | Exception]:
        answers = reading(questions)
        if 1 in questions:
            assert slow.wait(10)
        return answers

    reads = SharedReads(read)

    async def story() -> None:
        (first,) = begun(reads.ask(1))
        await until_read(reading, 1)
        (second,) = begun(reads.ask(2))
        try:
            async with asyncio.timeout(5):
                assert await second == 20
            assert not first.done()
        finally:
            slow.set()
        assert await first == 10

    asyncio.run(story())


def test_a_silent_database_fails_all_who_wait_for_the_read(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent() -> bool:
        return False

    monkeypatch.setattr(database, "SLOW_SECONDS", 0.01)
    monkeypatch.setattr(database, "answers", silent)
    reads = SharedReads(reading)
    reading.go_on.clear()

    async def story() -> list[Any]:
        waiting = begun(*(reads.ask(number) for number in range(5)))
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    try:
        answers = asyncio.run(story())
    finally:
        reading.go_on.set()
    assert {type(answer) for answer in answers} == {StoreUnavailable}


def test_who_gives_up_takes_nobody_along(reading: Reading) -> None:
    reads = SharedReads(reading)

    async def story() -> int:
        reading.go_on.clear()
        gone, stays = begun(reads.ask(1), reads.ask(2))
        await until_read(reading, 1)
        gone.cancel()
        await asyncio.sleep(0)
        reading.go_on.set()
        return await stays

    assert asyncio.run(story()) == 20


def test_there_is_an_end_to_what_one_read_answers(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_reads, "BATCH_MAX", 3)
    reads = SharedReads(reading)

    async def story() -> list[int]:
        reading.go_on.clear()
        first = begun(reads.ask(0))
        await until_read(reading, 1)
        others = begun(*(reads.ask(number) for number in range(1, 8)))
        await asyncio.sleep(0)
        reading.go_on.set()
        return list(await asyncio.gather(*first, *others))

    assert asyncio.run(story()) == [number * 10 for number in range(8)]
    assert reading.asked == [[0], [1, 2, 3], [4, 5, 6], [7]]
