"""The work on messages that have ended otherwise is stopped."""

import threading
import time
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from conversations import watching
from conversations.commands import fail_message
from conversations.watching import stopped_when_ended
from eventstore.database import StoreUnavailable
from tests.conversations.conftest import CAUSE, Send

WAIT_SECONDS_MAX = 5


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.02)


def test_work_is_stopped_once_its_message_has_an_end(alice: UUID, send: Send) -> None:
    ended, pending = (send(alice).message_id for _ in range(2))
    stopped, other = threading.Event(), threading.Event()
    with stopped_when_ended(ended, stopped.set), stopped_when_ended(pending, other.set):
        assert not stopped.wait(0.1)
        fail_message(ended, "deadline", CAUSE)
        assert stopped.wait(WAIT_SECONDS_MAX)
        assert not other.is_set()


def test_a_stop_that_breaks_keeps_no_other_from_its_stop(alice: UUID, send: Send) -> None:
    first, second = (send(alice).message_id for _ in range(2))
    tried, stopped = threading.Event(), threading.Event()

    def break_down() -> None:
        tried.set()
        raise RuntimeError

    fail_message(first, "deadline", CAUSE)
    with stopped_when_ended(first, break_down):
        assert tried.wait(WAIT_SECONDS_MAX)
    fail_message(second, "deadline", CAUSE)
    with stopped_when_ended(second, stopped.set):
        assert stopped.wait(WAIT_SECONDS_MAX)


def test_a_database_that_is_away_is_asked_again(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = send(alice).message_id
    fail_message(message_id, "deadline", CAUSE)
    asked, stopped = threading.Event(), threading.Event()

    def away(*_: object) -> Callable[..., object]:
        asked.set()
        raise StoreUnavailable

    with monkeypatch.context() as outage:
        outage.setattr(watching, "ended_among", away)
        with stopped_when_ended(message_id, stopped.set):
            assert asked.wait(WAIT_SECONDS_MAX)
            assert not stopped.is_set()
            outage.undo()
            assert stopped.wait(WAIT_SECONDS_MAX)


def test_many_that_come_and_go_do_not_end_the_watch(alice: UUID, send: Send) -> None:
    until = time.monotonic() + 1

    def come_and_go() -> None:
        while time.monotonic() < until:
            with stopped_when_ended(uuid4(), lambda: None):
                time.sleep(0)

    threads = [threading.Thread(target=come_and_go) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    message_id, stopped = send(alice).message_id, threading.Event()
    fail_message(message_id, "deadline", CAUSE)
    with stopped_when_ended(message_id, stopped.set):
        assert stopped.wait(WAIT_SECONDS_MAX)
