"""Responders that know their response at once: no lease, one look for many, the same one end."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.domain import Account
from conversations import instant
from conversations.commands import fail_message
from conversations.ends import Ended, end_of
from conversations.instant import answer, expect, flush, together
from conversations.responders import InstantResponder
from conversations.responders.dummy import RESPONSES, DummyResponder
from eventstore.database import StoreUnavailable
from eventstore.leases import get_leases
from eventstore.log import event_log
from eventstore.reading import read_stream
from eventstore.writer import Command, shared_writer
from tests.conversations.conftest import CAUSE, Send

SECONDS = 5.0
DUMMY = DummyResponder()


@pytest.fixture(autouse=True)
def nothing_expected() -> Iterator[None]:
    yield
    instant._ahead = instant._ReadAhead()


def ended(message_id: UUID) -> Ended:
    flush(SECONDS)
    found = end_of(message_id)
    assert found
    return found


def test_a_message_ends_with_its_response_and_what_caused_it(alice: UUID, send: Send) -> None:
    message_id = send(alice).message_id
    answer(message_id, DUMMY)
    assert ended(message_id).response == RESPONSES["hello"]
    sent, end = read_stream(message_id)
    assert end.topic == "chatledger.conversations.ResponseGenerated"
    assert (end.data["cost"], end.data["model"]) == (100, "dummy")
    assert (end.actor, end.request_id, end.causation_id) == ("worker", "request-1", sent.event_id)
    assert event_log().load(Account, alice).tokens == 3900


def test_what_is_expected_is_read_with_the_first_of_it(alice: UUID, send: Send) -> None:
    messages = [send(alice).message_id for _ in range(5)]
    expect(messages)
    with CaptureQueriesContext(connection) as queries:
        for each in messages:
            answer(each, DUMMY)
    assert len([each for each in queries if "eventstore_event" in each["sql"]]) == 1
    assert {ended(each).status for each in messages} == {"done"}


def test_a_message_that_was_not_expected_is_read_all_the_same(alice: UUID, send: Send) -> None:
    first, second = send(alice).message_id, send(alice).message_id
    expect([second])
    answer(first, DUMMY)
    # Read with the first, and sent again by the sweeper before it came.
    answer(second, DUMMY)
    answer(second, DUMMY)
    assert {ended(each).status for each in (first, second)} == {"done"}


def test_a_message_delivered_any_number_of_times_has_one_end(alice: UUID, send: Send) -> None:
    message_id = send(alice).message_id
    for _ in range(3):
        answer(message_id, DUMMY)
    flush(SECONDS)
    answer(message_id, DUMMY)
    flush(SECONDS)
    assert len(read_stream(message_id)) == 2
    assert event_log().load(Account, alice).tokens == 3900


def test_a_message_that_was_read_before_its_end_keeps_that_end(alice: UUID, send: Send) -> None:
    first, second = send(alice).message_id, send(alice).message_id
    expect([first, second])
    answer(first, DUMMY)
    fail_message(second, "deadline", CAUSE)
    answer(second, DUMMY)
    assert ended(second).status == "failed"
    assert len(read_stream(second)) == 2
    assert event_log().load(Account, alice).tokens == 3900


def test_a_message_that_is_not_in_the_log_is_nobodys_work() -> None:
    answer(uuid4(), DUMMY)


def test_a_message_somebody_holds_is_answered_all_the_same(alice: UUID, send: Send) -> None:
    message_id = send(alice).message_id
    get_leases().renew(f"message:{message_id}", "somebody", 10)
    answer(message_id, DUMMY)
    assert ended(message_id).status == "done"
    get_leases().release(f"message:{message_id}", "somebody")


def test_a_responder_that_breaks_ends_the_message_and_refunds_it(alice: UUID, send: Send) -> None:
    class Broken(InstantResponder):
        model = "broken"

        def answer(self, message: str) -> str:
            raise RuntimeError("a bug")

    message_id = send(alice).message_id
    answer(message_id, Broken())
    assert (ended(message_id).status, ended(message_id).reason) == ("failed", "responder")
    assert event_log().load(Account, alice).tokens == 4000


def test_an_end_that_cannot_be_written_is_left_to_the_sweeper(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    message_id = send(alice).message_id
    with monkeypatch.context() as away:
        away.setattr(shared_writer, "submit", _raise_unavailable)
        answer(message_id, DUMMY)
    flush(SECONDS)
    assert end_of(message_id) is None
    assert f"message {message_id} could not be worked on: away" in caplog.messages
    answer(message_id, DUMMY)
    assert ended(message_id).status == "done"


def test_what_is_answered_together_is_committed_once_and_at_the_end(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    really = shared_writer.carry_out_here

    def carry_out_here(commands: Sequence[Command[Any]]) -> None:
        batches.append(len(commands))
        really(commands)

    monkeypatch.setattr(shared_writer, "carry_out_here", carry_out_here)
    messages = [send(alice).message_id for _ in range(3)]
    with together():
        for each in messages:
            answer(each, DUMMY)
        assert not any(map(end_of, messages))
    assert batches == [3]
    assert {ended(each).status for each in messages} == {"done"}


def test_a_thread_waits_when_the_writer_owes_too_much(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instant, "OWED_MAX", 1)
    messages = [send(alice).message_id for _ in range(3)]
    for each in messages:
        answer(each, DUMMY)
        assert instant._owed._number <= 1
    assert {ended(each).status for each in messages} == {"done"}


def test_no_more_is_expected_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instant, "EXPECTED_MAX", 3)
    expect(uuid4() for _ in range(10))
    assert len(instant._ahead._expected) == 3


def _raise_unavailable(_: object) -> None:
    raise StoreUnavailable("away")
