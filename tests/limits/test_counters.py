"""Counters, in memory and, where there is one, in Redis."""

import sys
import threading
import time
from uuid import uuid4

import pytest
from django.conf import settings

from accounts import counters
from accounts.counters import Count, Counters, MemoryCounters, RedisCounters
from accounts.rates import Rate
from eventstore.redis_client import redis_client

FIVE = Rate(5, 60)
STORES = ["memory", *(["redis"] if settings.REDIS_URL else [])]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Counters:
    return MemoryCounters() if request.param == "memory" else RedisCounters()


@pytest.fixture
def key() -> str:
    return f"limit:test:{uuid4()}"


def test_it_allows_so_many_and_no_more(store: Counters, key: str) -> None:
    counts = [store.take(key, FIVE) for _ in range(7)]

    assert [count.allowed for count in counts] == [True] * 5 + [False] * 2
    assert [count.left for count in counts] == [4, 3, 2, 1, 0, 0, 0]
    assert all(58 <= count.reset_seconds <= 60 for count in counts)


def test_each_key_has_a_counter_of_its_own(store: Counters, key: str) -> None:
    for _ in range(5):
        store.take(key, FIVE)

    assert store.take(f"{key}-other", FIVE) == Count(allowed=True, left=4, reset_seconds=60)


def test_several_at_once_count_one_after_the_other(store: Counters, key: str) -> None:
    counts = store.take_each([key, f"{key}-other", *[key] * 5], FIVE)

    assert [count.allowed for count in counts] == [True] * 6 + [False]
    assert [count.left for count in counts] == [4, 4, 3, 2, 1, 0, 0]
    assert all(58 <= count.reset_seconds <= 60 for count in counts)


def test_what_is_given_back_can_be_taken_again(store: Counters, key: str) -> None:
    for _ in range(5):
        store.take(key, FIVE)
    store.give_back(key)

    assert store.take(key, FIVE).allowed
    assert not store.take(key, FIVE).allowed


def test_giving_back_what_was_not_taken_gives_nobody_more(store: Counters, key: str) -> None:
    store.give_back(key)
    store.take(key, FIVE)
    for _ in range(3):
        store.give_back(key)

    assert [store.take(key, FIVE).allowed for _ in range(6)] == [True] * 5 + [False]


def test_a_limit_that_was_lowered_allows_nothing_and_owes_nothing(
    store: Counters, key: str
) -> None:
    for _ in range(5):
        store.take(key, FIVE)

    count = store.take(key, Rate(2, 60))

    assert (count.allowed, count.left) == (False, 0)


def test_a_window_ends_in_time_however_often_somebody_tries(store: Counters, key: str) -> None:
    rate = Rate(1, 1)
    began = time.monotonic()
    assert store.take(key, rate).allowed
    tries = 0
    while not store.take(key, rate).allowed:
        tries += 1
        assert time.monotonic() < began + 10
        time.sleep(0.02)

    assert tries > 1
    assert time.monotonic() - began >= 0.9


def test_of_many_at_once_as_many_are_allowed_as_the_limit_says(store: Counters) -> None:
    """Also at the beginning of a window, where a library that was tried let more through."""
    threads_count, rounds = 16, 30 if isinstance(store, MemoryCounters) else 10
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(rounds):
            key = f"limit:test:{uuid4()}"
            barrier = threading.Barrier(threads_count)
            allowed: list[bool] = []

            def take(barrier: threading.Barrier, allowed: list[bool], key: str) -> None:
                barrier.wait()
                allowed.extend(store.take(key, FIVE).allowed for _ in range(3))

            threads = [
                threading.Thread(target=take, args=(barrier, allowed, key))
                for _ in range(threads_count)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sum(allowed) == 5
            assert len(allowed) == 3 * threads_count
    finally:
        sys.setswitchinterval(switching)


def test_in_memory_an_ended_window_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    store = MemoryCounters()
    for number in range(100):
        store.take(f"{number}", FIVE)
    now += 61

    store.take("another", FIVE)

    assert len(store._windows) == 1


def test_in_memory_there_is_an_end_to_the_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "COUNTERS_MAX", 10)
    store = MemoryCounters()
    for number in range(1000):
        store.take(f"{number}", FIVE)

    assert list(store._windows) == [f"{number}" for number in range(990, 1000)]


if settings.REDIS_URL:

    def test_in_redis_every_counter_has_an_end(key: str) -> None:
        client, store = redis_client(), RedisCounters()
        for _ in range(2):
            store.take(key, FIVE)
        assert 0 < client.pttl(key) <= 60_000

        store.give_back(key)
        assert 0 < client.pttl(key) <= 60_000

        store.give_back(key)
        assert not client.exists(key)
