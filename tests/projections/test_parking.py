"""Events that a projection cannot handle: parked with their stream, and healed in order."""

import io
import logging
from collections.abc import Callable
from copy import copy
from typing import Any

import pytest
from django.core.management import call_command

from config.logs import OneLineFormatter
from eventstore.models import EventRecord
from eventstore.reading import RecordedEvent
from projections import positions, queries
from projections.balances import Balances
from projections.comparison import compare_with_fresh_replay
from projections.history import History
from projections.models import Balance, Message, ParkedEvent
from projections.parked_events import parked_streams
from projections.parking import retry
from projections.runner import ProjectionRunner
from projections.statement import Statement
from tests.projections.story import (
    ALICE,
    BOB,
    CHAT,
    HELLO,
    TALK,
    broken,
    debited,
    deleted,
    drain,
    failed,
    generated,
    granted,
    happened,
    messages,
    projected,
    registered,
    rows,
    sent,
    started,
)

pytestmark = pytest.mark.django_db

DEBITED = "chatledger.accounts.TokensDebited"
OF_AMOUNTS = (Balances, Statement)


@pytest.fixture
def poison() -> None:
    """Alice's second event makes no sense; Bob's are all right, and so are her later ones."""
    happened(
        registered(ALICE),
        debited(ALICE, "a hundred"),
        registered(BOB, "bob"),
        granted(ALICE, 500),
        granted(BOB, 500),
        sent(),
    )
    drain(ProjectionRunner())


@pytest.fixture
def healed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version of the code knows what the event means."""

    def in_words(handler: Callable[[Any, RecordedEvent], None]) -> Callable[..., None]:
        def handle(projection: object, event: RecordedEvent) -> None:
            amount = event.data["amount"]
            said = event.data | {"amount": 100 if amount == "a hundred" else amount}
            understood = copy(event)
            understood._data = said
            handler(projection, understood)

        return handle

    for projection in OF_AMOUNTS:
        handler = in_words(projection.handlers[DEBITED])
        monkeypatch.setitem(projection.handlers, DEBITED, handler)


def parked(*names: str) -> list[tuple[str, int, str]]:
    """What is parked, of all read models or of those that are named."""
    found = ParkedEvent.objects.order_by("projection", "position")
    return [
        (event.projection, event.position, event.error)
        for event in found
        if event.projection in names or not names
    ]


def test_an_event_that_cannot_be_handled_is_parked_and_its_stream_waits_behind_it(
    poison: None,
) -> None:
    assert {name for name, _, _ in parked()} == {"balances", "statement"}
    for name in ("balances", "statement"):
        (first, second) = parked(name)
        assert first[:2] == (name, 2)
        assert first[2].startswith("TypeError: ")
        assert second == (name, 4, "waits behind event 2 of its stream")


def test_everything_else_goes_on(poison: None) -> None:
    assert rows(Balance, "balances", "user_id", "amount") == [(ALICE, 0), (BOB, 500)]
    assert rows(Message, "history", "message_id") == [HELLO]
    assert {place.position for place in positions.live().values()} == {6}


def test_later_batches_are_parked_behind_it_too(poison: None) -> None:
    projected(debited(ALICE, 1), debited(BOB, 1))
    assert [position for _, position, _ in parked("balances")] == [2, 4, 7]
    assert rows(Balance, "balances", "user_id", "amount") == [(ALICE, 0), (BOB, 499)]


def test_what_the_database_refuses_is_parked_like_what_the_code_refuses() -> None:
    projected(sent(), generated(cost=2**63), granted(ALICE, 500))
    ((projection, position, _),) = parked()
    assert (projection, position) == ("history", 2)
    assert rows(Message, "history", "status") == ["pending"]
    assert rows(Balance, "balances", "amount") == [500]


def test_a_value_of_the_wrong_type_is_parked_on_either_database() -> None:
    projected(sent(), generated(model={"name": "dummy"}))
    assert parked() == [("history", 2, "TypeError: dict in a column of text")]


@pytest.mark.parametrize(
    "stored", [b"", b"\xff", b"[100]", b"{", b'{"amount": {"key": "?", "box": ""}}', b"[" * 9_999]
)
def test_an_event_whose_bytes_say_nothing_is_parked_and_everything_else_goes_on(
    stored: bytes,
) -> None:
    happened(registered(ALICE), granted(ALICE, 500), registered(BOB, "bob"), granted(BOB, 500))
    EventRecord.objects.filter(position=2).update(data=stored)
    drain(ProjectionRunner())
    for name in ("balances", "statement"):
        ((_, position, error),) = parked(name)
        assert position == 2
        assert error.startswith("UnreadableEvent: the data of event 2 cannot be read")
    assert rows(Balance, "balances", "user_id", "amount") == [(ALICE, 0), (BOB, 500)]


def test_parking_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    projected(registered(ALICE), debited(ALICE, "a hundred"))
    errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert len(errors) == len(OF_AMOUNTS)
    for projection, error in zip(OF_AMOUNTS, errors, strict=True):
        assert f"{projection.name} cannot apply event 2" in error
        assert str(ALICE) in error


def test_the_line_about_a_parked_event_carries_the_request_that_it_came_from() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(OneLineFormatter())
    logging.getLogger("projections.parking").addHandler(handler)
    happened(registered(ALICE), debited(ALICE, "a hundred"))
    EventRecord.objects.filter(position=2).update(request_id="the-request")
    try:
        drain(ProjectionRunner())
    finally:
        logging.getLogger("projections.parking").removeHandler(handler)
    assert written.getvalue().count(" request_id=the-request\n") == len(OF_AMOUNTS)


def test_a_retry_applies_the_stream_in_order(poison: None, healed: None) -> None:
    for projection in OF_AMOUNTS:
        retried = retry(projection, ALICE)
        assert (retried.applied, retried.remaining, retried.error) == (2, 0, "")
    assert parked() == []
    assert rows(Balance, "balances", "user_id", "amount") == [(ALICE, 400), (BOB, 500)]
    assert compare_with_fresh_replay() == []


def test_after_a_retry_the_runner_applies_the_stream_again(poison: None, healed: None) -> None:
    runner = ProjectionRunner()
    drain(runner)
    retry(Balances, ALICE)
    happened(debited(ALICE, 1))
    drain(runner)
    assert parked("balances") == []
    assert rows(Balance, "balances", "user_id", "amount") == [(ALICE, 399), (BOB, 500)]


def test_a_retry_takes_a_long_stream_in_several_transactions(
    monkeypatch: pytest.MonkeyPatch, poison: None, healed: None
) -> None:
    monkeypatch.setattr("projections.parking.RETRY_EVENTS_MAX", 2)
    projected(debited(ALICE, 1), debited(ALICE, 1), debited(ALICE, 1))
    assert [retry(projection, ALICE).applied for projection in OF_AMOUNTS] == [5, 5]
    assert parked() == []
    assert compare_with_fresh_replay() == []


def test_a_retry_that_fails_again_leaves_the_stream_as_it_was(poison: None) -> None:
    before = parked()
    retried = retry(Balances, ALICE)
    assert (retried.applied, retried.remaining) == (0, 2)
    assert retried.error.startswith("TypeError: ")
    assert parked() == before


def test_a_retry_of_a_message_that_names_no_conversation_fails_again() -> None:
    projected(broken(sent()))
    retried = retry(History, HELLO)
    assert (retried.applied, retried.remaining, retried.error) == (
        0,
        1,
        "KeyError: 'conversation_id'",
    )


def test_a_retry_goes_as_far_as_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(History.handlers, "chatledger.conversations.MessageSent", refuse)
        projected(sent(), failed())
    assert [position for _, position, _ in parked()] == [1, 2]
    monkeypatch.setitem(History.handlers, "chatledger.conversations.ResponseFailed", refuse)
    retried = retry(History, HELLO)
    assert (retried.applied, retried.remaining, retried.error) == (1, 1, "ValueError: not today")
    assert parked() == [("history", 2, "ValueError: not today")]


def test_a_message_that_is_retried_after_its_conversation_was_deleted_has_no_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, lost = messages(2)
    with monkeypatch.context() as patch:
        patch.setitem(History.handlers, "chatledger.conversations.MessageSent", refuse)
        projected(started(TALK), sent(kept, conversation=CHAT), sent(lost), generated(lost))
    projected(deleted(TALK))
    retry(History, kept)
    retried = retry(History, lost)
    assert (retried.applied, retried.remaining) == (2, 0)
    assert rows(Message, "history", "message_id") == [kept]
    assert compare_with_fresh_replay() == []


def test_the_command_says_what_it_did(
    poison: None, healed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("retry_parked")
    assert capsys.readouterr().out.splitlines() == [
        f"{projection.name}: stream {ALICE}: 2 applied" for projection in OF_AMOUNTS
    ]
    call_command("retry_parked")
    assert capsys.readouterr().out == "nothing is parked\n"


def test_the_command_fails_while_something_remains(
    poison: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        call_command("retry_parked")
    assert stopped.value.code == 1
    assert "0 applied, 2 still parked: TypeError: " in capsys.readouterr().out


def test_a_parked_stream_is_counted_and_named(poison: None) -> None:
    assert queries.parked_count() == 4
    assert parked_streams("balances") == [ALICE]
    assert parked_streams("history") == []


def refuse(projection: object, event: RecordedEvent) -> None:
    raise ValueError("not today")
