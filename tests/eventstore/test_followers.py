"""Which process follows the log, and what becomes of a follower that cannot."""

import threading
import time
from collections.abc import Iterator
from unittest.mock import Mock

import pytest
from django.db import OperationalError

from eventstore import followers
from eventstore.followers import GATHER_EVENTS_MIN
from eventstore.leases import LEASE_SECONDS, MemoryLeases
from eventstore.marker import Marker


class Counting:
    """A follower that counts its steps, and fails at each if it has an error to fail with."""

    name = "counting"

    def __init__(self, error: Exception | None = None) -> None:
        self.steps = 0
        self._error = error

    def step(self) -> bool:
        self.steps += 1
        if self._error:
            raise self._error
        return False


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """The leases of all, with an eye on how often they are asked for; everybody is quick here."""
    leases = Mock(wraps=MemoryLeases())
    monkeypatch.setattr(followers, "get_leases", lambda: leases)
    for name in ("IDLE_SECONDS", "ASK_SECONDS"):
        monkeypatch.setattr(followers, name, 0.02)
    monkeypatch.setattr(followers, "FAILED_SECONDS", 0.2)
    return leases


@pytest.fixture
def stop(leases: Mock) -> Iterator[threading.Event]:
    stop, before = threading.Event(), set(threading.enumerate())
    yield stop
    stop.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)


def wait_until_steps(follower: Counting, steps: int) -> None:
    until = time.monotonic() + LEASE_SECONDS / 2
    while follower.steps < steps:
        assert time.monotonic() < until, f"{follower.steps} steps"
        time.sleep(0.01)


@pytest.mark.parametrize("error", [OperationalError("away"), ValueError("a full disk")])
def test_one_that_fails_at_every_step_leaves_it_to_another_process(
    stop: threading.Event, error: Exception
) -> None:
    failing, sound = Counting(error), Counting()
    followers.run([failing], stop)
    wait_until_steps(failing, 1)
    followers.run([sound], stop)
    wait_until_steps(sound, 3)
    steps = failing.steps
    wait_until_steps(sound, sound.steps + 10)
    assert failing.steps <= steps + 1


def test_who_looks_by_the_clock_is_woken_by_no_append(
    stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "IDLE_SECONDS", 60)
    log, woken, looking = Marker(), Counting(), Counting()
    looking.name = "looking"
    followers.run([woken], stop, appends=log, by_the_clock=[looking])
    wait_until_steps(woken, 1)
    wait_until_steps(looking, 1)
    for position in (1, 2, 3):
        steps = woken.steps
        log.advance(position)
        wait_until_steps(woken, steps + 1)
    assert looking.steps == 1
    stop.set()
    log.advance(4)


class Busy(Counting):
    """While it steps for the first time, so many events are appended; one more right after that."""

    def __init__(self, log: Marker, events: int) -> None:
        super().__init__()
        self.began: list[float] = []
        self._log, self._events = log, events

    def step(self) -> bool:
        if not self.began:
            self._log.advance(self._events)
            threading.Timer(0.05, self._log.advance, [self._events + 1]).start()
        self.began.append(time.monotonic())
        return super().step()


@pytest.mark.parametrize(("events", "is_gathered"), [(GATHER_EVENTS_MIN, True), (4, False)])
def test_many_that_come_while_one_steps_wait_for_more(
    stop: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    events: int,
    is_gathered: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    monkeypatch.setattr(followers, "IDLE_SECONDS", 3)
    monkeypatch.setattr(followers, "GATHER_SECONDS", 0.5)
    log = Marker()
    busy = Busy(log, events)
    followers.run([busy], stop, appends=log)
    wait_until_steps(busy, 2 if is_gathered else 3)
    assert (busy.began[1] - busy.began[0] >= 0.5) is is_gathered
    assert log.value == events + 1
    steps, appended_at = busy.steps, time.monotonic()
    log.advance(events + 2)
    wait_until_steps(busy, steps + 1)
    assert busy.began[-1] - appended_at < 0.5  # alone, so at once
    stop.set()
    log.advance(events + 3)


def test_one_that_fails_alone_goes_on_trying(stop: threading.Event) -> None:
    failing = Counting(OperationalError("away"))
    followers.run([failing], stop)
    wait_until_steps(failing, 3)


def test_who_has_to_wait_asks_no_oftener_than_it_may(
    stop: threading.Event, leases: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "ASK_SECONDS", 60)
    first, second = Counting(), Counting()
    followers.run([first], stop)
    wait_until_steps(first, 1)
    leases.renew.reset_mock()
    followers.run([second], stop)
    wait_until_steps(first, first.steps + 20)
    assert second.steps == 0
    assert leases.renew.call_count == 1
