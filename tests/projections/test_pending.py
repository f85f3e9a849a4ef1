"""Pending: what has been sent and has not ended."""

import pytest

from eventstore.reading import read_events
from projections.models import PendingMessage
from projections.pending import PendingRow, due
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    HELLO,
    Fact,
    drain,
    failed,
    generated,
    happened,
    messages,
    projected,
    rows,
    sent,
)

pytestmark = pytest.mark.django_db


def pending() -> list[object]:
    return rows(PendingMessage, "pending", "message_id")


def test_a_message_is_pending_with_its_deadline() -> None:
    projected(sent(deadline_seconds=90))
    (event,) = read_events(0)
    assert due(event.at, limit=10) == [PendingRow(HELLO, ALICE, event.at, event.at + 90_000_000)]


@pytest.mark.parametrize("end", [generated(), failed()], ids=["generated", "failed"])
def test_an_end_takes_the_message_away(end: Fact) -> None:
    projected(sent())
    assert pending() == [HELLO]
    projected(end)
    assert pending() == []


def test_a_message_that_ends_in_its_own_batch_is_never_written() -> None:
    one, two = messages(2)
    happened(sent(one), sent(two), generated(one))
    drain(ProjectionRunner())
    assert pending() == [two]


def test_only_messages_that_were_sent_by_then_are_due() -> None:
    projected(sent())
    (event,) = read_events(0)
    assert due(event.at - 1, limit=10) == []


def test_the_oldest_messages_are_due_first_and_no_more_than_asked_for() -> None:
    one, two, three = messages(3)
    projected(sent(one), sent(two), sent(three))
    now = read_events(0)[-1].at
    assert [row.message_id for row in due(now, limit=2)] == [one, two]


def test_nothing_is_due_before_the_first_projection() -> None:
    assert due(10**18, limit=10) == []
