"""What is heard of PostgreSQL: by whom, and after what."""

import threading
import time
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connection

from eventstore import notifications
from eventstore.append import APPENDED_CHANNEL
from eventstore.marker import appended
from eventstore.notifications import AppendsHeard, Ear
from tests.projections.test_runner import in_threads

pytestmark = pytest.mark.django_db(transaction=True)

HEARD_SECONDS_MAX = 5.0
#: Enough to tell a wait from none.
WAITING_SECONDS = 0.3


@pytest.fixture
def heard() -> Iterator[AppendsHeard]:
    heard = AppendsHeard()
    assert not heard.wait(1, HEARD_SECONDS_MAX)  # it has only just begun to listen
    yield heard
    heard.close()


def another_process_appends(position: int = 2) -> None:
    """What PostgreSQL's append tells: in this process it would be known without that."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [APPENDED_CHANNEL, str(position)])


def cut_all_others() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_who_waits_hears_an_append_of_another_connection(heard: AppendsHeard) -> None:
    began = time.monotonic()
    threading.Timer(WAITING_SECONDS, in_threads, [another_process_appends]).start()

    assert heard.wait(2, HEARD_SECONDS_MAX)

    assert WAITING_SECONDS <= time.monotonic() - began < HEARD_SECONDS_MAX
    assert heard.value == 2


def test_what_was_announced_meanwhile_is_known_without_waiting(heard: AppendsHeard) -> None:
    another_process_appends()
    until = time.monotonic() + HEARD_SECONDS_MAX
    while heard.value < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert heard.wait(2, 0)


def test_nothing_is_waited_for_beyond_the_timeout(heard: AppendsHeard) -> None:
    began = time.monotonic()
    assert not heard.wait(1, WAITING_SECONDS)
    assert WAITING_SECONDS <= time.monotonic() - began < HEARD_SECONDS_MAX


def test_who_begins_to_listen_has_missed_what_was_before() -> None:
    another_process_appends()
    heard = AppendsHeard()
    try:
        assert not heard.wait(2, HEARD_SECONDS_MAX)
        assert appended.value == 0
    finally:
        heard.close()


def test_a_lost_connection_is_a_reason_to_look_and_then_made_anew(
    heard: AppendsHeard, caplog: pytest.LogCaptureFixture
) -> None:
    cut_all_others()
    began = time.monotonic()
    # Its last words, its end, and a new beginning.
    assert not any(heard.wait(1, HEARD_SECONDS_MAX) for _ in range(3))
    assert time.monotonic() - began < WAITING_SECONDS
    assert caplog.text.count("appends are looked for, not heard") == 1

    another_process_appends()
    assert heard.wait(2, HEARD_SECONDS_MAX)


def test_who_cannot_listen_looks_as_often_as_it_would_without_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: Ear) -> None:
        raise OperationalError("too many connections")

    monkeypatch.setattr(Ear, "_connect", fail)
    heard, began = AppendsHeard(), time.monotonic()
    assert heard.value == 0
    assert not heard.wait(1, WAITING_SECONDS)
    assert time.monotonic() - began >= WAITING_SECONDS


def test_only_who_asked_for_a_channel_is_called_back(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setitem(notifications._callbacks, "chatledger_test", [told.append])
    ear = Ear("chatledger_test")
    assert not ear.hear(0)
    with connection.cursor() as cursor:
        cursor.execute("NOTIFY chatledger_other, 'no'")
        cursor.execute("NOTIFY chatledger_test, 'yes'")
    assert ear.hear(HEARD_SECONDS_MAX)
    ear.close()
    assert told == ["yes"]
