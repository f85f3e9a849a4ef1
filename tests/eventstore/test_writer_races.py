"""Commands that other processes overtake, and commits whose fate is unknown.

Batches here are carried out in the test's own thread, so that who shares a commit is known.
"""

from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError
from pytest_django import Settings

import eventstore.log
from accounts.domain import Account, AccountDeactivated
from conversations import commands
from conversations.commands import Accepted, ConversationNotFound
from conversations.conversation_commands import (
    DeleteConversation,
    StartConversation,
    delete_conversation,
    start_conversation,
)
from eventstore import reading
from eventstore.database import StoreUnavailable
from eventstore.decisions import CONFLICTS_MAX, Raced, View
from eventstore.log import READS_AHEAD, EventLog, event_log
from eventstore.reading import read_stream
from eventstore.writer import Command, SharedWriter, decide_together
from privacy.erasure import EraseUser, erase_user
from tests.eventstore.deciding import (
    PRICE,
    a_send,
    around_the_commit,
    assert_contiguous,
    before_the_commit,
    carry_out,
    credit_elsewhere,
    cut_off,
    of_kind,
    refusal,
    result,
    to_rest,
    tokens,
)
from tests.eventstore.making import CAUSE
from tests.isolation import carry_out_here

pytestmark = pytest.mark.django_db(transaction=True)


# Conflicts with other processes


def test_a_conflict_takes_along_what_was_decided_on_it_and_nobody_else(
    alice: UUID, bob: UUID
) -> None:
    to_rest([a_send(alice), a_send(bob)])
    credit_elsewhere(alice)
    hers, his = [a_send(alice) for _ in range(3)], [a_send(bob) for _ in range(2)]
    again = carry_out(hers[0], his[0], hers[1], his[1], hers[2])
    assert again == hers
    assert all(not result(each).repeated for each in his)
    assert not any(each.done.done() for each in hers)
    assert carry_out(*again) == []
    for each in (*hers, *his):
        (sent,) = read_stream(result(each).message_id)
        assert sent.position == result(each).position
    assert (tokens(alice), tokens(bob)) == (3700, 3700)
    assert_contiguous()


def in_account(user_id: UUID) -> Command[Accepted]:
    """A send that says which account it decides on, as those of the API do."""
    command = a_send(user_id)
    command.streams = [(Account, user_id)]
    return command


def test_an_account_to_which_others_write_is_read_before_it_is_decided_on(
    alice: UUID, bob: UUID
) -> None:
    to_rest([in_account(alice), in_account(bob)])
    credit_elsewhere(alice)
    first = in_account(alice)
    assert carry_out(first, in_account(bob)) == [first]
    to_rest([first])
    for _ in range(READS_AHEAD + 2):
        credit_elsewhere(alice)
        assert carry_out(in_account(alice), in_account(bob), in_account(alice)) == []
    assert_contiguous()
    assert vars(event_log().load(Account, alice)) == vars(EventLog().load(Account, alice))


def test_it_is_read_so_no_longer_when_the_others_have_gone(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_rest([in_account(alice)])
    credit_elsewhere(alice)
    to_rest([in_account(alice)])
    reads: list[Any] = []
    really = EventLog.read_anew

    def read_anew(log: EventLog, streams: Any) -> Any:
        reads.append(streams)
        return really(log, streams)

    monkeypatch.setattr(EventLog, "read_anew", read_anew)
    for _ in range(READS_AHEAD + 5):
        assert carry_out(in_account(alice)) == []
    assert len(reads) == READS_AHEAD


def test_what_is_decided_again_is_read_at_once_for_all(
    alice: UUID, bob: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_rest([a_send(alice), a_send(bob)])
    credit_elsewhere(alice)
    credit_elsewhere(bob)
    sends = [a_send(each) for each in (alice, bob, alice, bob)]
    again = carry_out(*sends)
    assert again == sends
    reads: list[Any] = []

    def read_each_from(versions: Any, **limit: Any) -> Any:
        reads.append(versions)
        return reading.read_each_from(versions, **limit)

    monkeypatch.setattr(eventstore.log, "read_each_from", read_each_from)
    assert carry_out(*again) == []
    # Two accounts, their conversations, and four messages that may be there already.
    assert [len(versions) for versions in reads] == [8]
    assert (tokens(alice), tokens(bob)) == (3800, 3800)


def test_a_refusal_is_not_believed_on_what_was_read_ahead_of_a_first_try(
    alice: UUID, settings: Settings
) -> None:
    """It has not looked whether the message is there already."""
    settings.MESSAGE_PRICE = 2000
    to_rest([a_send(alice, key="k")])
    credit_elsewhere(alice, 1)
    to_rest([a_send(alice)])
    repeat = a_send(alice, key="k")
    repeat.streams = [(Account, alice)]
    assert event_log().is_shared(alice)
    to_rest([repeat])
    assert result(repeat).repeated


def test_a_read_ahead_that_fails_harms_nobody(alice: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    to_rest([in_account(alice)])
    credit_elsewhere(alice)
    send, really = in_account(alice), EventLog.read_anew
    again = carry_out(send)

    def read_anew(log: EventLog, streams: Any) -> Any:
        if len(streams) > 1:
            raise OperationalError("the server closed the connection")
        return really(log, streams)

    monkeypatch.setattr(EventLog, "read_anew", read_anew)
    assert carry_out(*again) == []
    assert not result(send).repeated


def test_whoever_is_always_overtaken_is_told_so(alice: UUID) -> None:
    overtaken = a_send(alice)
    really = overtaken.decision

    def decision(view: View) -> Any:
        decided = really(view)
        credit_elsewhere(alice)
        return decided

    overtaken.decision = decision
    carry_out_here(SharedWriter(), overtaken)
    assert isinstance(refusal(overtaken), Raced)
    assert overtaken.tries == CONFLICTS_MAX + 1
    assert of_kind("TokensDebited") == []


@pytest.mark.parametrize("conversation", ["default", "another"])
def test_a_deletion_by_another_process_keeps_sends_out_that_were_decided_before(
    alice: UUID, monkeypatch: pytest.MonkeyPatch, conversation: str
) -> None:
    to_rest([a_send(alice)])
    talk = (
        event_log().load(Account, alice).default_conversation_id
        if conversation == "default"
        else start_conversation(StartConversation(alice, "Jokes"), CAUSE).id
    )
    sends = [a_send(alice, conversation_id=talk) for _ in range(2)]
    before_the_commit(
        monkeypatch, lambda: delete_conversation(DeleteConversation(alice, talk), CAUSE)
    )
    to_rest(carry_out(*sends))
    assert all(isinstance(refusal(each), ConversationNotFound) for each in sends)
    assert not [each for each in of_kind("MessageSent") if each.data["message"] is None]
    spent = 0 if conversation == "default" else PRICE
    assert tokens(alice) == 4000 - spent


def test_an_erasure_by_another_process_keeps_sends_out_that_were_decided_before(
    alice: UUID, bob: UUID, monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Any
) -> None:
    settings.ERASURES_FILE = tmp_path / "erasures.jsonl"
    sends, other = [a_send(alice) for _ in range(2)], a_send(bob)
    before_the_commit(monkeypatch, lambda: erase_user(EraseUser(alice), CAUSE))
    to_rest(carry_out(sends[0], other, sends[1]))
    assert all(isinstance(refusal(each), AccountDeactivated) for each in sends)
    assert not result(other).repeated
    assert len(of_kind("MessageSent")) == 1


# Lost connections


@around_the_commit
def test_a_connection_that_is_lost_at_the_commit_costs_everybody_once(
    alice: UUID, bob: UUID, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    sends = [a_send(alice), a_send(bob, key="k"), a_send(alice, key="k")]
    cuts = cut_off(monkeypatch, stored=when == "after")
    again = carry_out(*sends)
    assert again == sends
    assert cuts.left == 0
    to_rest(again)
    for each in sends:
        accepted = result(each)
        assert len(read_stream(accepted.message_id)) == 1
        # Nobody else has handed it on.
        assert not accepted.repeated
    assert (tokens(alice), tokens(bob)) == (3800, 3900)
    assert len(of_kind("TokensDebited")) == len(of_kind("MessageSent")) == 3
    assert_contiguous()


@around_the_commit
def test_an_end_whose_commit_is_lost_is_one_end(
    alice: UUID, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    message_id = decide_together(a_send(alice).decision).message_id
    monkeypatch.setattr(SharedWriter, "submit", carry_out_here)
    cut_off(monkeypatch, stored=when == "after")
    ended = commands.fail_message(message_id, "deadline", CAUSE)
    assert ended is not None
    assert (ended.status, ended.refunded) == ("failed", PRICE)
    assert ended.position == read_stream(message_id)[1].position
    assert len(of_kind("TokensRefunded")) == 1
    assert tokens(alice) == 4000


def test_a_database_that_stays_away_is_said_to_be(
    alice: UUID, bob: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("the server is away")

    sends = [a_send(alice), a_send(bob)]
    with monkeypatch.context() as outage:
        outage.setattr(EventLog, "load", away)
        outage.setattr(EventLog, "find", away)
        to_rest(sends)
    assert all(isinstance(refusal(each), StoreUnavailable) for each in sends)
    assert of_kind("MessageSent") == []
    to_rest(after := [a_send(alice), a_send(bob)])
    assert all(not result(each).repeated for each in after)
