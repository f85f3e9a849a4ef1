"""History: every message, and what became of it."""

import pytest

from eventstore.reading import read_events
from projections import queries
from projections.comparison import compare_with_fresh_replay
from projections.models import Message
from tests.projections.story import (
    ALICE,
    HELLO,
    TALK,
    Fact,
    cancelled,
    conversations,
    deleted,
    failed,
    generated,
    messages,
    projected,
    read,
    rows,
    sent,
    started,
    told,
)

pytestmark = pytest.mark.django_db

in_one_batch_and_in_several = pytest.mark.parametrize(
    "together", [True, False], ids=["in one batch", "in several"]
)
STATE = ("status", "cost", "model", "reason", "responded_at")


def state() -> list[object]:
    return rows(Message, "history", *STATE)


def texts() -> list[str | None]:
    ((message, response),) = rows(Message, "history", "message", "response")
    return read([message, response])


def test_a_message_is_pending_and_costs_its_price_until_it_ends() -> None:
    projected(sent(text="hello"))
    assert state() == [("pending", 100, None, None, None)]
    assert texts() == ["hello", None]


def test_a_message_knows_its_user_its_conversation_and_its_place() -> None:
    projected(sent())
    (event,) = read_events(0)
    columns = ("message_id", "user_id", "conversation_id", "position", "created_at")
    assert rows(Message, "history", *columns) == [(HELLO, ALICE, TALK, 1, event.at)]


@in_one_batch_and_in_several
def test_a_response_completes_its_message(*, together: bool) -> None:
    told(sent(text="hello"), generated(response="hi", cost=80), together=together)
    _, end = read_events(0)
    assert state() == [("done", 80, "dummy", None, end.at)]
    assert texts() == ["hello", "hi"]


@in_one_batch_and_in_several
def test_a_failure_names_its_reason_and_costs_nothing(*, together: bool) -> None:
    told(sent(), failed(reason="worker_lost"), together=together)
    _, end = read_events(0)
    assert state() == [("failed", 0, None, "worker_lost", end.at)]


def test_a_response_without_its_text_is_done_all_the_same() -> None:
    projected(sent(), generated(response=None))
    assert texts() == ["hello", None]
    assert rows(Message, "history", "status") == ["done"]


@in_one_batch_and_in_several
def test_a_cancelled_message_keeps_the_text_so_far_and_what_it_cost(*, together: bool) -> None:
    told(sent(text="hello"), cancelled(response="so fa", cost=40), together=together)
    _, end = read_events(0)
    assert state() == [("cancelled", 40, None, None, end.at)]
    assert texts() == ["hello", "so fa"]


@in_one_batch_and_in_several
def test_a_message_that_was_cancelled_before_any_text_has_none(*, together: bool) -> None:
    told(sent(text="hello"), cancelled(response=None), together=together)
    assert rows(Message, "history", "status", "cost") == [("cancelled", 0)]
    assert texts() == ["hello", None]


@in_one_batch_and_in_several
def test_a_deletion_takes_every_message_of_its_conversation_and_no_other(*, together: bool) -> None:
    one, other = conversations(2)
    first, second, third, fourth = messages(4)
    told(
        sent(first, conversation=one),
        sent(second, conversation=other),
        generated(first, conversation=one),
        sent(third, conversation=one),
        deleted(one),
        sent(fourth, conversation=other),
        generated(second, conversation=other),
        together=together,
    )
    assert rows(Message, "history", "message_id", "status") == [
        (second, "done"),
        (fourth, "pending"),
    ]


def test_a_batch_deletes_what_was_sent_in_it_and_what_was_there() -> None:
    one, other = conversations(2)
    first, second, third = messages(3)
    projected(sent(first, conversation=one), sent(second, conversation=other))
    told(
        generated(first, conversation=one),
        sent(third, conversation=one),
        deleted(one),
        deleted(other),
        together=True,
    )
    assert rows(Message, "history", "message_id") == []


@pytest.mark.parametrize("end", [generated(), failed(), cancelled()], ids=lambda end: end.topic)
@in_one_batch_and_in_several
def test_a_late_end_after_the_deletion_changes_nothing(end: Fact, *, together: bool) -> None:
    told(started(), sent(), deleted(), end, together=together)
    assert rows(Message, "history", "message_id") == []
    assert queries.parked_count() == 0
    assert compare_with_fresh_replay() == []
