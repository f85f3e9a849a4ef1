import asyncio
import threading
import time

import pytest
from django.db import OperationalError, connection

from eventstore import database
from eventstore.database import FairLock, StoreUnavailable, in_thread, writing
from eventstore.silence import answers


def test_the_fair_lock_serves_in_the_order_of_coming() -> None:
    lock = FairLock()
    order: list[int] = []
    threads = []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    with lock:
        for number in range(20):
            thread = threading.Thread(target=take, args=[number])
            thread.start()
            threads.append(thread)
            wait_until(lambda number=number: len(lock._queue) == number + 1)
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_one_at_a_time_is_inside_the_fair_lock() -> None:
    lock = FairLock()
    inside: list[int] = []
    most = 0

    def take() -> None:
        nonlocal most
        for _ in range(200):
            with lock:
                inside.append(1)
                most = max(most, len(inside))
                inside.pop()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_the_holder_of_the_fair_lock_may_take_it_again() -> None:
    lock = FairLock()
    with lock:
        with lock:
            assert lock._owner is not None
        assert lock._owner is not None
    assert lock._owner is None


def test_a_database_that_is_away_is_named_as_such() -> None:
    def query() -> None:
        raise OperationalError("connection refused")

    with pytest.raises(StoreUnavailable, match="connection refused"):
        asyncio.run(in_thread(query))


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_the_server_closed_is_replaced_before_it_is_used() -> None:
    def pid() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()" if postgres else "SELECT 7")
            return int(cursor.fetchone()[0])

    def kill(others: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [others])

    postgres = connection.vendor == "postgresql"

    async def story() -> None:
        for _ in range(5):
            before = await in_thread(pid)
            if postgres:
                kill_from_here(before)
            after = await in_thread(pid)
            assert (after != before) == postgres

    def kill_from_here(backend: int) -> None:
        thread = threading.Thread(target=kill, args=[backend])
        thread.start()
        thread.join()

    asyncio.run(story())


@pytest.mark.django_db(transaction=True)
def test_a_transaction_inside_a_transaction_does_not_wait_for_itself() -> None:
    with writing(), writing():
        assert connection.in_atomic_block


def wait_until(condition: object, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("answering", [True, False])
def test_slow_work_is_waited_for_while_the_database_answers_anybody(
    monkeypatch: pytest.MonkeyPatch, *, answering: bool
) -> None:
    asked: list[int] = []
    go_on = threading.Event()

    async def ask() -> bool:
        asked.append(1)
        if len(asked) == 3:
            go_on.set()
        return answering

    monkeypatch.setattr(database, "SLOW_SECONDS", 0.01)
    monkeypatch.setattr(database, "answers", ask)
    try:
        if answering:
            assert asyncio.run(in_thread(go_on.wait, 10))
            assert len(asked) >= 3
        else:
            with pytest.raises(StoreUnavailable):
                asyncio.run(in_thread(go_on.wait, 10))
            assert asked == [1]
    finally:
        go_on.set()


def test_a_database_in_order_answers() -> None:
    assert asyncio.run(answers())
