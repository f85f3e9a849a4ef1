from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection
from pytest_django import Settings

from accounts.domain import Account, InsufficientTokens
from conversations.commands import ConversationNotFound, IdempotencyKeyReused, message_id_for
from conversations.domain import Conversation
from eventstore import writer
from eventstore.append import Conflict, Job, Outcome
from eventstore.log import EventLog, event_log
from eventstore.reading import max_position, read_events, read_stream
from tests.conversations.conftest import CAUSE, Send


def kinds(after: int = 0) -> list[str]:
    return [event.topic.rsplit(".", 1)[1] for event in read_events(after)]


def test_the_first_message_pays_starts_the_conversation_and_is_sent_in_one_append(
    alice: UUID, send: Send
) -> None:
    before = max_position()
    accepted = send(alice)
    assert kinds(before) == ["TokensDebited", "ConversationStarted", "MessageSent"]
    assert len({event.at for event in read_events(before)}) == 1
    assert accepted.position == max_position()
    assert not accepted.repeated


def test_the_second_message_goes_into_the_same_conversation(alice: UUID, send: Send) -> None:
    send(alice)
    before = max_position()
    send(alice, "bye")
    assert kinds(before) == ["TokensDebited", "MessageSent"]
    assert event_log().load(Account, alice).tokens == 3800


def test_a_message_that_the_balance_does_not_cover_is_refused_and_nothing_is_stored(
    alice: UUID, send: Send, settings: Settings
) -> None:
    settings.MESSAGE_PRICE = 4001
    before = max_position()
    with pytest.raises(InsufficientTokens):
        send(alice)
    assert max_position() == before


def test_a_repeat_is_the_same_message_and_costs_nothing(alice: UUID, send: Send) -> None:
    first = send(alice, key="default")
    before = max_position()
    again = send(alice, key="default")
    assert (again.message_id, again.repeated) == (first.message_id, True)
    assert max_position() == before


def test_a_repeat_is_found_before_the_balance_is_looked_at(
    alice: UUID, send: Send, settings: Settings
) -> None:
    send(alice, key="k")
    settings.MESSAGE_PRICE = 5000
    assert send(alice, key="k").repeated


def test_a_refused_send_does_not_bind_its_key(alice: UUID, send: Send, settings: Settings) -> None:
    settings.MESSAGE_PRICE = 5000
    with pytest.raises(InsufficientTokens):
        send(alice, "hello", key="k")
    settings.MESSAGE_PRICE = 100
    assert not send(alice, "another text", key="k").repeated


def test_a_key_with_another_text_is_refused(alice: UUID, send: Send) -> None:
    send(alice, "hello", key="k")
    with pytest.raises(IdempotencyKeyReused):
        send(alice, "Hello", key="k")


def test_another_users_key_is_another_key(alice: UUID, bob: UUID, send: Send) -> None:
    assert send(alice, key="k").message_id != send(bob, key="k").message_id
    assert message_id_for(alice, None) != message_id_for(alice, None)


def test_nobody_sends_into_somebody_elses_conversation(alice: UUID, bob: UUID, send: Send) -> None:
    send(bob)
    account = event_log().load(Account, bob)
    before = max_position()
    for conversation_id in (account.default_conversation_id, uuid4()):
        with pytest.raises(ConversationNotFound):
            send(alice, conversation_id=conversation_id)
    assert max_position() == before


def test_parallel_sends_never_overdraw(alice: UUID, send: Send) -> None:
    start = Barrier(16)

    def attempt(number: int) -> bool:
        if number < 16:
            start.wait()
        try:
            send(alice)
        except InsufficientTokens:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(16) as clients:
        assert sum(clients.map(attempt, range(60))) == 40
    assert EventLog().load(Account, alice).tokens == 0


def test_another_process_between_load_and_append_is_noticed(alice: UUID, send: Send) -> None:
    send(alice)
    other = EventLog()
    account = other.load(Account, alice)
    account.debit(3800, message_id=uuid4())
    other.append(account, cause=CAUSE)
    send(alice)
    assert EventLog().load(Account, alice).tokens == 0
    with pytest.raises(InsufficientTokens):
        send(alice)


def test_credit_from_another_process_is_seen_before_a_send_is_refused(
    alice: UUID, send: Send
) -> None:
    for _ in range(40):
        send(alice)
    other = EventLog()
    account = other.load(Account, alice)
    account.refund(100, message_id=uuid4(), reason="unused")
    other.append(account, cause=CAUSE)
    assert not send(alice).repeated


def test_a_commit_whose_answer_was_lost_is_found_and_not_paid_twice(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_commit = writer._append_and_commit
    lost: list[object] = []

    def commit_and_lose_the_first_answer(jobs: Sequence[Job]) -> list[Outcome]:
        outcomes = really_commit(jobs)
        if not lost:
            lost.append(outcomes)
            raise OperationalError("the connection was cut after COMMIT")
        return outcomes

    monkeypatch.setattr(writer, "_append_and_commit", commit_and_lose_the_first_answer)
    accepted = send(alice)
    assert lost
    # Nobody else has handed it on to a worker.
    assert not accepted.repeated
    assert kinds().count("TokensDebited") == 1
    assert len(read_stream(accepted.message_id)) == 1
    assert event_log().load(Account, alice).tokens == 3900


def test_a_conversation_is_found_in_memory_the_second_time(alice: UUID, send: Send) -> None:
    send(alice)
    conversation_id = event_log().load(Account, alice).default_conversation_id
    assert event_log().load(Conversation, conversation_id).user_id == alice
    assert Conflict(alice, 1) != Conflict(alice, 2)
