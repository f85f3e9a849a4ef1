"""History: every message, and what became of it."""

import pytest

from eventstore.reading import read_events
from projections.models import Message
from projections.runner import ProjectionRunner
from tests.projections.story import (
    ALICE,
    HELLO,
    TALK,
    Fact,
    drain,
    failed,
    generated,
    happened,
    projected,
    read,
    rows,
    sent,
)

pytestmark = pytest.mark.django_db

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


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in two batches"])
def test_a_response_completes_its_message(*, together: bool) -> None:
    tell(sent(text="hello"), generated(response="hi", cost=80), together=together)
    _, end = read_events(0)
    assert state() == [("done", 80, "dummy", None, end.at)]
    assert texts() == ["hello", "hi"]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in two batches"])
def test_a_failure_names_its_reason_and_costs_nothing(*, together: bool) -> None:
    tell(sent(), failed(reason="worker_lost"), together=together)
    _, end = read_events(0)
    assert state() == [("failed", 0, None, "worker_lost", end.at)]


def test_a_response_without_its_text_is_done_all_the_same() -> None:
    projected(sent(), generated(response=None))
    assert texts() == ["hello", None]
    assert rows(Message, "history", "status") == ["done"]


def tell(*facts: Fact, together: bool) -> None:
    if together:
        happened(*facts)
        drain(ProjectionRunner())
    else:
        projected(*facts)
