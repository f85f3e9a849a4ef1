"""Erasure: what goes, what stays, and what may come meanwhile."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from accounts.commands import (
    LogIn,
    RegisterUser,
    UsernameTaken,
    UserNotFound,
    WrongCredentials,
    WrongPassword,
    log_in,
    register_user,
)
from accounts.domain import AccountDeactivated, AccountErased, InsufficientTokens
from accounts.models import Credential
from conversations import cancel_first, commands, conversation_commands
from conversations.domain import Exchange
from conversations.ends import end_of
from conversations.reply_streams import Delta, Forgotten, reply_streams
from eventstore import keys
from eventstore.log import EventLog
from eventstore.models import DataKey, Destruction
from eventstore.reading import max_position, read_stream
from privacy import erasure
from privacy.erasure import EraseUser, erase_user
from projections import queries
from projections.comparison import compare_with_fresh_replay
from tests.conversations.conftest import CAUSE, Send, project
from tests.privacy.story import account_of, all_events, respond, start, wrapped_keys

PASSWORD = "correct horse battery"


def erase(user_id: UUID, password: str | None = None) -> int:
    return erase_user(EraseUser(user_id, password), CAUSE)


def kinds(user_id: UUID) -> list[str]:
    return [event.topic.rsplit(".", 1)[1] for event in read_stream(user_id)]


def test_an_erased_user_has_no_key_no_credential_and_no_row(alice: UUID, send: Send) -> None:
    talk = start(alice)
    respond(send(alice, "my secret", conversation_id=talk).message_id)
    respond(send(alice, "another").message_id)
    project()
    position = erase(alice)
    project()
    (erased,) = [event for event in all_events() if event.topic.endswith("UserErased")]
    assert (erased.position, erased.actor) == (position, CAUSE.actor)
    assert str(talk) in erased.data["conversation_ids"]
    assert wrapped_keys(alice) == {}
    assert not Credential.objects.filter(user_id=alice).exists()
    assert queries.user(alice) is None
    assert queries.balance(alice) is None
    assert queries.list_conversations(alice, None, 10) == []
    assert compare_with_fresh_replay() == []


def test_no_text_of_theirs_can_be_read_and_that_of_others_can(
    alice: UUID, bob: UUID, send: Send
) -> None:
    of_alice, of_bob = send(alice, "mine").message_id, send(bob, "his").message_id
    respond(of_alice, "yours")
    respond(of_bob, "his too")
    erase(alice)
    keys.forget()
    texts = [
        keys.decrypt_all([event.data[name]])[0]
        for message_id in (of_alice, of_bob)
        for event, name in zip(read_stream(message_id), ("message", "response"), strict=True)
    ]
    assert texts == [keys.ERASED, keys.ERASED, "his", "his too"]


def test_no_amount_changes(alice: UUID, send: Send) -> None:
    respond(send(alice).message_id)
    before = account_of(alice).tokens
    rows = [(e.position, e.event_id, e.data) for e in all_events()]
    erase(alice)
    assert account_of(alice).tokens == before == 3900
    after = all_events()[: len(rows)]
    assert [(e.position, e.event_id, e.data) for e in after] == rows


def test_what_is_pending_is_cancelled_and_refunded_in_the_same_append(
    alice: UUID, send: Send
) -> None:
    first, second = send(alice).message_id, send(alice, "again").message_id
    erase(alice)
    assert kinds(alice)[-3:] == ["TokensRefunded", "TokensRefunded", "UserErased"]
    assert account_of(alice).tokens == 4000
    for message_id in (first, second):
        ended = end_of(message_id)
        assert ended is not None
        assert (ended.status, ended.cost, ended.refunded) == ("cancelled", 0, 100)


def test_the_text_so_far_is_paid_for_and_gone(alice: UUID, send: Send) -> None:
    message_id = send(alice).message_id
    streams = reply_streams()
    streams.publish(message_id, Delta(attempt=1, at=0, text="Once upon"))
    streams.forget([])
    erase(alice)
    ended = end_of(message_id)
    assert ended is not None
    assert (ended.status, ended.cost, ended.response) == ("cancelled", 100, None)
    assert account_of(alice).tokens == 3900


def test_reply_streams_are_forgotten_those_that_have_ended_too(alice: UUID, send: Send) -> None:
    done, pending = send(alice).message_id, send(alice, "again").message_id
    streams = reply_streams()
    for message_id in (done, pending):
        streams.publish(message_id, Delta(attempt=1, at=0, text="a secret"))
    streams.forget([])
    respond(done, "a secret")
    erase(alice)
    for message_id in (done, pending):
        said = list(streams.close(message_id))
        assert not any(isinstance(item, Delta) for item in said)
        assert any(isinstance(item, Forgotten) for item in said) or not said


def test_their_password_is_asked_for(alice: UUID) -> None:
    before = max_position()
    with pytest.raises(WrongPassword):
        erase(alice, "correct horse batteri")
    assert max_position() == before
    erase(alice, PASSWORD)
    assert account_of(alice).erased


def test_nobody_is_erased_twice(alice: UUID) -> None:
    erase(alice)
    for again, refusal in ((None, UserNotFound), (PASSWORD, AccountErased)):
        with pytest.raises(refusal):
            erase(alice, again)
    assert kinds(alice).count("UserErased") == 1


def test_an_unknown_user_is_not_found() -> None:
    with pytest.raises(UserNotFound):
        erase(uuid4())


def test_their_name_is_never_given_out_again(alice: UUID) -> None:
    erase(alice)
    for name in ("alice", "ALICE"):
        with pytest.raises(UsernameTaken):
            register_user(RegisterUser(name, PASSWORD), CAUSE)
        with pytest.raises(WrongCredentials):
            log_in(LogIn(name, PASSWORD))


def test_an_erased_user_sends_nothing(alice: UUID, send: Send) -> None:
    erase(alice)
    with pytest.raises(AccountDeactivated):
        send(alice)
    with pytest.raises(AccountDeactivated):
        start(alice)


def test_a_process_that_has_not_heard_of_it_accepts_nothing(alice: UUID, send: Send) -> None:
    talk = start(alice)
    send(alice, conversation_id=talk)
    with another_process():
        erase(alice)
    with pytest.raises(AccountDeactivated):
        send(alice, conversation_id=talk)
    with pytest.raises(AccountDeactivated):
        send(alice)


def test_a_response_that_comes_late_changes_nothing(alice: UUID, send: Send) -> None:
    message_id = send(alice).message_id
    exchange = EventLog().load(Exchange, message_id)
    erase(alice)
    ended = commands.respond_to_message(
        exchange, "late", usage=None, attempt=1, model="dummy", cause=CAUSE
    )
    assert ended is not None
    assert ended.status == "cancelled"
    assert len(read_stream(message_id)) == 2


def test_sends_that_meet_an_erasure_are_ended_by_it_or_refused(alice: UUID, send: Send) -> None:
    accepted: list[UUID] = []
    under_way = threading.Event()

    def keep_sending() -> None:
        while True:
            try:
                accepted.append(send(alice, f"message {len(accepted)}").message_id)
            except (AccountDeactivated, InsufficientTokens):
                return
            finally:
                under_way.set()

    with ThreadPoolExecutor(3) as threads:
        sending = [threads.submit(keep_sending) for _ in range(2)]
        assert under_way.wait(20)
        with another_process():
            threads.submit(erase, alice).result(20)
        for each in sending:
            each.result(20)
    assert account_of(alice).tokens == 4000
    assert all(len(read_stream(message_id)) == 2 for message_id in accepted)


def test_another_erasure_that_was_first_shows_as_not_found(alice: UUID) -> None:
    with another_process():
        erase(alice)
    with pytest.raises(UserNotFound):
        erase(alice)


def test_deleted_conversations_are_not_named_again(alice: UUID) -> None:
    talk = start(alice)
    command = conversation_commands.DeleteConversation(alice, talk)
    conversation_commands.delete_conversation(command, CAUSE)
    erase(alice)
    erased = read_stream(alice)[-1]
    assert str(talk) not in erased.data["conversation_ids"]


def test_the_destruction_is_noted_once_for_the_user(alice: UUID) -> None:
    start(alice)
    erase(alice)
    assert [(row.key_id, row.user_id) for row in Destruction.objects.all()] == [(alice, alice)]
    assert DataKey.objects.filter(wrapped_by=alice).count() == 2


class another_process:  # noqa: N801 (read as a phrase)
    """What is erased here is erased by a process that remembers other things."""

    def __enter__(self) -> None:
        self.patched = pytest.MonkeyPatch()
        other = EventLog()
        # Sends are those of this process, also those that other threads make meanwhile.
        for module in (conversation_commands, cancel_first, erasure):
            self.patched.setattr(module, "event_log", lambda: other)
        for module in (conversation_commands, cancel_first):
            self.patched.setattr(module, "one_at_a_time", lambda user_id: threading.Lock())

    def __exit__(self, *_: object) -> None:
        self.patched.undo()
