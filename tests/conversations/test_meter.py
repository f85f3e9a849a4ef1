"""What the meter counts of the log, against what happened."""

import threading
from uuid import UUID

import pytest
from django.db import connection
from prometheus_client import REGISTRY

from config.metrics import meter as meter_module
from config.metrics.meter import Meter
from conversations.commands import cancel_message, fail_message
from conversations.generation import generate
from eventstore import followers
from eventstore.leases import LEASE_SECONDS, get_leases
from eventstore.reading import read_events
from tests.conversations.conftest import CAUSE, Send


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


def figures() -> dict[str, float]:
    ended = "chatledger_messages_ended_total"
    return {
        **{
            kind: value("chatledger_tokens_total", kind=kind)
            for kind in ("granted", "debited", "refunded")
        },
        "done": value(ended, status="done", reason=""),
        "cancelled": value(ended, status="cancelled", reason=""),
        "deadline": value(ended, status="failed", reason="deadline"),
        "other": value(ended, status="failed", reason="other"),
        "sent": value("chatledger_events_total", type="conversations.MessageSent"),
        "timed": value("chatledger_response_seconds_count"),
    }


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The process's steady clock, moved by hand."""
    clock = [1_000.0]
    monkeypatch.setattr("config.metrics.meter.time.monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def meter(alice: UUID, now: list[float]) -> Meter:
    """A meter that has seen where the log stands."""
    meter = Meter()
    meter.step()
    return meter


def counted(meter: Meter, now: list[float], before: dict[str, float]) -> dict[str, float]:
    """What a look adds to the figures."""
    now[0] += 1
    while meter.step():
        pass
    return {
        name: figure - before[name] for name, figure in figures().items() if figure != before[name]
    }


def test_tokens_and_ends_are_counted_as_the_log_has_them(
    meter: Meter, now: list[float], alice: UUID, send: Send
) -> None:
    before = figures()
    answered, cancelled, late = (send(alice).message_id for _ in range(3))
    generate(answered)
    cancel_message(cancelled, CAUSE)
    fail_message(late, "deadline", CAUSE)

    assert counted(meter, now, before) == {
        "debited": 300,
        "refunded": 200,
        "sent": 3,
        "timed": 3,
        "done": 1,
        "cancelled": 1,
        "deadline": 1,
    }
    assert counted(meter, now, figures()) == {}


def test_what_was_there_before_it_began_is_not_counted(
    alice: UUID, now: list[float], send: Send
) -> None:
    send(alice)
    before = figures()
    meter = Meter()
    meter.step()

    assert counted(meter, now, before) == {}


def test_what_was_appended_while_it_could_not_look_is_counted(
    meter: Meter, now: list[float], alice: UUID, send: Send
) -> None:
    send(alice)
    before = figures()
    now[0] += 3 * LEASE_SECONDS

    assert counted(meter, now, before) == {"debited": 100, "sent": 1}


def test_it_counts_in_every_process_also_where_another_one_has_a_lease() -> None:
    stepped, stop = threading.Event(), threading.Event()

    class Everywhere:
        name = "everywhere"

        def step(self) -> bool:
            stepped.set()
            return False

    assert get_leases().renew("follower:everywhere", "another process", LEASE_SECONDS)
    threads = followers.run([], stop, everywhere=[Everywhere()])
    try:
        assert stepped.wait(10)
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert get_leases().holder_of("follower:everywhere") == "another process"
    get_leases().release("follower:everywhere", "another process")


def test_the_log_is_read_once_a_second_and_a_page_at_a_time(
    meter: Meter, now: list[float], alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "READ_MAX", 2)
    monkeypatch.setattr(meter_module, "read_events", lambda after: read_events(after, 2))
    before = figures()
    for _ in range(3):
        send(alice)
    assert meter.step() is False
    assert figures() == before
    now[0] += 1
    assert meter.step() is True

    assert counted(meter, now, before)["sent"] == 3


def test_an_event_that_was_changed_stops_nothing_and_makes_no_series(
    meter: Meter, now: list[float], alice: UUID, send: Send
) -> None:
    before = figures()
    message_id = send(alice).message_id
    fail_message(message_id, "deadline", CAUSE)
    with connection.cursor() as cursor:
        cursor.execute("SELECT position, topic FROM eventstore_event ORDER BY position")
        positions = {topic.rpartition(".")[2]: position for position, topic in cursor.fetchall()}
        for name, data in {
            "TokensDebited": b"no JSON",
            "ResponseFailed": b'{"reason":"made up"}',
        }.items():
            cursor.execute(
                "UPDATE eventstore_event SET data = %s WHERE position = %s", [data, positions[name]]
            )

    assert counted(meter, now, before) == {"refunded": 100, "sent": 1, "other": 1, "timed": 1}
