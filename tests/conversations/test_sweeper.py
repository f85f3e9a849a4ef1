from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError

from accounts.domain import Account
from conversations import sweeper as sweeper_module
from conversations.ends import end_of
from conversations.generation import end_with_failure, generate, lease_name
from conversations.sweeper import RESEND_SECONDS_MAX, SWEEP_SECONDS, Sweeper
from eventstore.decisions import Raced
from eventstore.leases import get_leases
from eventstore.log import EventLog
from eventstore.models import EventRecord
from eventstore.reading import clock_now, read_stream
from projections.pending import PendingRow
from tests.conversations.conftest import CAUSE, Send, project


class Clock:
    """The time of the log and of the process, moved by hand."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def of_the_log(self) -> int:
        return clock_now() + int(self.ahead_seconds * 1_000_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(sweeper_module, "clock_now", moved.of_the_log)
    monkeypatch.setattr("conversations.sweeper.time.monotonic", lambda: moved.ahead_seconds)
    return moved


@pytest.fixture
def resent(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """What the sweeper hands to the broker."""
    messages: list[UUID] = []

    def note(message_id: UUID) -> bool:
        messages.append(message_id)
        return True

    monkeypatch.setattr(sweeper_module, "enqueue", note)
    return messages


def sweep(sweeper: Sweeper, clock: Clock, at: float) -> None:
    clock.ahead_seconds = at
    project()
    assert sweeper.step() is False


def test_a_young_message_is_left_to_the_broker(
    alice: UUID, send: Send, clock: Clock, resent: list[UUID]
) -> None:
    send(alice)
    sweep(Sweeper(), clock, at=1)
    assert resent == []


def test_a_message_nobody_works_on_is_sent_again_with_backoff(
    alice: UUID, send: Send, clock: Clock, resent: list[UUID]
) -> None:
    message_id = send(alice).message_id
    sweeper = Sweeper()
    resent_at = []
    for second in range(3, 88):
        count = len(resent)
        sweep(sweeper, clock, at=second)
        if len(resent) > count:
            resent_at.append(second)
    assert set(resent) == {message_id}
    pauses = [later - earlier for earlier, later in pairwise(resent_at)]
    assert pauses == [2, 4, 8, 16, RESEND_SECONDS_MAX]


def test_a_message_somebody_works_on_is_left_to_them(
    alice: UUID, send: Send, clock: Clock, resent: list[UUID]
) -> None:
    message_id = send(alice).message_id
    get_leases().renew(lease_name(message_id), "somebody", 60)
    sweep(Sweeper(), clock, at=10)
    assert resent == []
    get_leases().release(lease_name(message_id), "somebody")


def test_past_its_deadline_a_message_fails_and_is_refunded(
    alice: UUID, send: Send, clock: Clock, resent: list[UUID]
) -> None:
    message_id = send(alice).message_id
    get_leases().renew(lease_name(message_id), "a worker that hangs", 600)
    sweep(Sweeper(), clock, at=91)
    sent, end = read_stream(message_id)
    assert (end.data["reason"], end.actor) == ("deadline", "sweeper")
    assert (end.request_id, end.causation_id) == (CAUSE.request_id, sent.event_id)
    assert EventLog().load(Account, alice).tokens == 4000
    get_leases().release(lease_name(message_id), "a worker that hangs")


def test_nothing_is_failed_before_its_deadline(
    alice: UUID, send: Send, clock: Clock, resent: list[UUID]
) -> None:
    message_id = send(alice).message_id
    sweep(Sweeper(), clock, at=89)
    assert end_of(message_id) is None


def test_what_has_ended_is_not_swept(
    alice: UUID, send: Send, clock: Clock, resent: list[UUID]
) -> None:
    generate(send(alice).message_id)
    sweep(Sweeper(), clock, at=100)
    assert resent == []


def test_a_message_that_cannot_be_failed_keeps_no_other_from_its_end(
    alice: UUID, bob: UUID, send: Send, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned, other = send(alice).message_id, send(bob).message_id
    EventRecord.objects.filter(stream_id=poisoned).update(data=b'{"broken')
    pending(monkeypatch, poisoned, other)
    clock.ahead_seconds = 91
    Sweeper().step()
    assert end_of(other)


def pending(monkeypatch: pytest.MonkeyPatch, *message_ids: UUID) -> None:
    """Let these be what is pending, one sent after the other."""
    sent_at = clock_now()
    rows = [
        PendingRow(each, each, sent_at + number, sent_at + 90_000_000)
        for number, each in enumerate(message_ids)
    ]

    def due(now: int, limit: int, after: PendingRow | None = None) -> list[PendingRow]:
        begin = rows.index(after) + 1 if after else 0
        return [row for row in rows[begin:] if row.deadline_at <= now][:limit]

    monkeypatch.setattr(sweeper_module, "due", due)


def fail_with(monkeypatch: pytest.MonkeyPatch, message_id: UUID, error: Exception) -> None:
    """Let this error be what comes of ending this message."""

    def end(each: UUID, *how: Any) -> None:
        if each == message_id:
            raise error
        end_with_failure(each, *how)

    monkeypatch.setattr(sweeper_module, "end_with_failure", end)


def test_messages_that_cannot_be_failed_do_not_take_every_place_in_a_sweep(
    alice: UUID, send: Send, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "SWEPT_MAX", 2)
    poisoned = [send(alice).message_id for _ in range(4)]
    others = [send(alice).message_id for _ in range(2)]
    EventRecord.objects.filter(stream_id__in=poisoned).update(data=b'{"broken')
    pending(monkeypatch, *poisoned, *others)
    sweeper = Sweeper()
    for second in (91, 92, 93):
        clock.ahead_seconds = second
        sweeper.step()
    assert [bool(end_of(each)) for each in others] == [True, True]


def test_one_that_loses_the_connection_each_time_keeps_no_other_from_its_end(
    alice: UUID, send: Send, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned, other = send(alice).message_id, send(alice).message_id

    lock_timeout = OperationalError("canceling statement due to lock timeout")
    fail_with(monkeypatch, poisoned, lock_timeout)
    project()
    sweeper = Sweeper()
    clock.ahead_seconds = 91
    with pytest.raises(OperationalError):
        sweeper.step()
    assert end_of(other) is None
    clock.ahead_seconds = 91 + SWEEP_SECONDS
    sweeper.step()
    assert end_of(other)


def test_one_that_is_raced_each_time_keeps_no_other_from_its_end(
    alice: UUID, send: Send, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    raced, other = send(alice).message_id, send(alice).message_id

    fail_with(monkeypatch, raced, Raced("too many others write to the same streams"))
    project()
    clock.ahead_seconds = 91
    Sweeper().step()
    assert end_of(other)


def test_one_that_cannot_be_failed_is_tried_again_with_backoff(
    alice: UUID, send: Send, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned = send(alice).message_id
    tried_at: list[float] = []

    def fail(*_: object) -> None:
        tried_at.append(clock.ahead_seconds)
        raise ValueError("it says nothing")

    monkeypatch.setattr(sweeper_module, "end_with_failure", fail)
    pending(monkeypatch, poisoned)
    sweeper = Sweeper()
    for second in range(91, 185):
        clock.ahead_seconds = second
        sweeper.step()
    pauses = [later - earlier for earlier, later in pairwise(tried_at)]
    assert pauses == [2, 4, 8, 16, RESEND_SECONDS_MAX, RESEND_SECONDS_MAX]


def test_more_messages_than_a_sweep_takes_are_all_looked_at_in_turn(
    alice: UUID, send: Send, clock: Clock, resent: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "SWEPT_MAX", 2)
    worked_on = [send(alice).message_id for _ in range(4)]
    lost = [send(alice).message_id for _ in range(3)]
    for each in worked_on:
        get_leases().renew(lease_name(each), "somebody", 60)
    sweeper = Sweeper()
    for second in range(3, 8):
        sweep(sweeper, clock, at=second)
    assert sorted(resent) == sorted(lost)
    resent.clear()
    for second in range(8, 30):
        sweep(sweeper, clock, at=second)
    assert {each: resent.count(each) for each in lost} == dict.fromkeys(lost, 3)
    assert set(resent) == set(lost)
    for second in range(91, 96):
        sweep(sweeper, clock, at=second)
    assert [each for each in worked_on + lost if not end_of(each)] == []
    assert len(sweeper._known) + len(sweeper._seen) <= 2
    for each in worked_on:
        get_leases().release(lease_name(each), "somebody")


def test_a_clock_that_was_set_back_delays_a_refund_by_no_more_than_the_deadline(
    alice: UUID, send: Send, clock: Clock, resent: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    message_id = send(alice).message_id
    monkeypatch.setattr(sweeper_module, "clock_now", lambda: clock_now() - 3_600_000_000)
    sweeper = Sweeper()
    for second in (0, 3, 89):
        sweep(sweeper, clock, at=second)
        assert end_of(message_id) is None
    assert resent
    sweep(sweeper, clock, at=91)
    assert read_stream(message_id)[1].data["reason"] == "deadline"
