"""Commands on conversations."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection
from eventsourcing.persistence import IntegrityError
from pytest_django import Settings

from accounts.domain import Account, AccountDeactivated, AccountErased
from conversations import cancel_first, cancelling, commands, conversation_commands
from conversations.commands import ConversationNotFound, cancel_message, respond_to_message
from conversations.conversation_commands import (
    DeleteConversation,
    RenameConversation,
    StartConversation,
    delete_conversation,
    rename_conversation,
    start_conversation,
)
from conversations.domain import Exchange
from conversations.ends import end_of
from conversations.reply_streams import (
    Delta,
    End,
    Forgotten,
    Item,
    ReplyStreamsUnavailable,
    reply_streams,
)
from eventstore import keys, writer
from eventstore.clock import to_datetime
from eventstore.database import StoreUnavailable
from eventstore.log import EventLog, Remembered, event_log, transaction_with_log
from eventstore.models import DataKey
from eventstore.reading import RecordedEvent, max_position, read_events, read_stream
from eventstore.writer import SharedWriter
from privacy.erasure import EraseUser, erase_user
from projections.pending import InFlight, in_flight_of_conversation
from tests.conversations.conftest import CAUSE, Send, project
from tests.isolation import carry_out_here

SENDERS = 6
WAIT_SECONDS_MAX = 20


def start(user_id: UUID, title: str | None = "Jokes") -> UUID:
    return start_conversation(StartConversation(user_id, title), CAUSE).id


def rename(user_id: UUID, conversation_id: UUID, title: str = "Good jokes") -> int:
    return rename_conversation(RenameConversation(user_id, conversation_id, title), CAUSE).position


def delete(user_id: UUID, conversation_id: UUID) -> int:
    return delete_conversation(DeleteConversation(user_id, conversation_id), CAUSE)


def respond(message_id: UUID, response: str = "Hi there!") -> None:
    exchange = event_log().load(Exchange, message_id)
    respond_to_message(exchange, response, usage=None, attempt=1, model="dummy", cause=CAUSE)


def say(message_id: UUID, text: str) -> None:
    """Publish a piece of a response, and be sure that it is there."""
    streams = reply_streams()
    streams.publish(message_id, Delta(attempt=1, at=0, text=text))
    streams.forget([])


def tokens(user_id: UUID) -> int:
    return EventLog().load(Account, user_id).tokens


def default_of(user_id: UUID) -> UUID:
    return EventLog().load(Account, user_id).default_conversation_id


def named(events: list[RecordedEvent]) -> list[str]:
    return [event.topic.rsplit(".", 1)[1] for event in events]


def events_of(name: str) -> list[RecordedEvent]:
    """All events of one kind."""
    found: list[RecordedEvent] = []
    position = 0
    while events := read_events(position):
        found += [event for event in events if event.topic.endswith(f".{name}")]
        position = events[-1].position
    return found


def read_titles(conversation_id: UUID) -> list[str | None]:
    events = read_stream(conversation_id)
    return keys.decrypt_all([event.data["title"] for event in events if "title" in event.data])


# Start


def test_a_conversation_starts_with_a_key_of_its_own(alice: UUID) -> None:
    before = max_position()
    written = start_conversation(StartConversation(alice, "Jokes"), CAUSE)
    (event,) = read_events(before)
    assert (event.topic, event.stream_id) == (
        "chatledger.conversations.ConversationStarted",
        written.id,
    )
    assert (written.position, written.created_at) == (event.position, to_datetime(event.at))
    assert (event.actor, event.request_id) == (CAUSE.actor, CAUSE.request_id)
    assert DataKey.objects.get(id=written.id).wrapped_by == alice
    keys.forget()
    assert read_titles(written.id) == ["Jokes"]


def test_a_conversation_needs_no_title(alice: UUID, send: Send) -> None:
    conversation_id = start(alice, None)
    assert read_titles(conversation_id) == [None]
    accepted = send(alice, conversation_id=conversation_id)
    assert read_stream(accepted.message_id)[0].data["conversation_id"] == str(conversation_id)


def test_a_deactivated_account_starts_no_conversation(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_load = EventLog.load

    def load_deactivated(
        log: EventLog, kind: type[Account], stream_id: UUID, **how: bool
    ) -> Account:
        account = really_load(log, kind, stream_id, **how)
        account.active = False
        return account

    monkeypatch.setattr(EventLog, "load", load_deactivated)
    before, keys_before = max_position(), DataKey.objects.count()
    with pytest.raises(AccountDeactivated):
        start(alice)
    assert (max_position(), DataKey.objects.count()) == (before, keys_before)


# Rename


def test_a_conversation_gets_another_title(alice: UUID) -> None:
    conversation_id = start(alice)
    position = rename(alice, conversation_id, "Good jokes")
    assert position == max_position()
    assert read_titles(conversation_id) == ["Jokes", "Good jokes"]


def test_a_rename_says_when_the_conversation_began(alice: UUID) -> None:
    started = start_conversation(StartConversation(alice, "Jokes"), CAUSE)
    renamed = rename_conversation(RenameConversation(alice, started.id, "x"), CAUSE)
    assert (renamed.id, renamed.title) == (started.id, "x")
    assert renamed.created_at == started.created_at


def test_a_rename_that_another_process_was_ahead_of_is_decided_again(alice: UUID) -> None:
    conversation_id = start(alice)
    with another_process():
        rename(alice, conversation_id, "theirs")
    rename(alice, conversation_id, "ours")
    assert read_titles(conversation_id) == ["Jokes", "theirs", "ours"]


@pytest.mark.parametrize("command", [rename, delete])
def test_only_an_own_conversation_that_is_there_can_be_changed(
    alice: UUID, bob: UUID, command: Callable[[UUID, UUID], int]
) -> None:
    deleted, bobs = start(alice), start(bob)
    delete(alice, deleted)
    before = max_position()
    for conversation_id in (deleted, bobs, uuid4(), default_of(alice), alice):
        with pytest.raises(ConversationNotFound):
            command(alice, conversation_id)
    assert max_position() == before
    assert DataKey.objects.get(id=bobs).wrapped is not None


# Delete


def test_a_deletion_destroys_the_key_and_all_text_reads_erased(alice: UUID, send: Send) -> None:
    conversation_id, other = start(alice), start(alice, "Others")
    message_id = send(alice, "tell me a joke", conversation_id=conversation_id).message_id
    respond(message_id)
    before = max_position()
    assert delete(alice, conversation_id) == max_position()
    assert named(read_events(before)) == ["ConversationClosed", "ConversationDeleted"]
    assert read_titles(conversation_id) == [keys.ERASED]
    assert event_log().load(Exchange, message_id).message == keys.ERASED
    assert end_of(message_id).response is None  # type: ignore[union-attr]
    assert read_titles(other) == ["Others"]
    assert tokens(alice) == 3900


def test_what_is_pending_is_cancelled_and_refunded_in_the_same_append(
    alice: UUID, send: Send
) -> None:
    conversation_id = start(alice)
    silent, speaking = (send(alice, conversation_id=conversation_id).message_id for _ in range(2))
    elsewhere = send(alice).message_id
    say(speaking, "Why don't")
    before = max_position()
    delete(alice, conversation_id)
    events = read_events(before)
    assert len({event.at for event in events}) == 1
    assert named(events)[-2:] == ["ConversationClosed", "ConversationDeleted"]
    ends = {e.stream_id: e for e in events if e.topic.endswith("ResponseCancelled")}
    assert {id_: end.data["cost"] for id_, end in ends.items()} == {silent: 0, speaking: 100}
    assert ends[silent].data["response"] is None
    assert keys.decrypt_all([ends[speaking].data["response"]]) == [keys.ERASED]
    refund = events[events.index(ends[silent]) - 1]
    assert refund.topic == "chatledger.accounts.TokensRefunded"
    assert refund.data == {"amount": 100, "message_id": str(silent), "reason": "cancelled"}
    assert len(events) == 5
    assert tokens(alice) == 3800
    assert in_flight_of_conversation(conversation_id).pending == set()
    assert len(read_stream(elsewhere)) == 1


def test_each_end_has_its_refund_right_before_it(alice: UUID, send: Send) -> None:
    conversation_id = start(alice)
    for _ in range(3):
        send(alice, conversation_id=conversation_id)
    before = max_position()
    delete(alice, conversation_id)
    events = read_events(before)
    assert named(events) == [
        *["TokensRefunded", "ResponseCancelled"] * 3,
        "ConversationClosed",
        "ConversationDeleted",
    ]
    for refund, end in zip(events[:6:2], events[1:6:2], strict=True):
        assert refund.data["message_id"] == str(end.stream_id)
    # What the process remembers is the state at the end, not one in between.
    assert vars(event_log().load(Account, alice)) == vars(EventLog().load(Account, alice))


def test_whoever_follows_is_told_and_what_ended_lately_is_forgotten(
    alice: UUID, send: Send
) -> None:
    conversation_id = start(alice)
    ended, pending = (send(alice, conversation_id=conversation_id).message_id for _ in range(2))
    say(ended, "Hi there!")
    respond(ended)
    say(pending, "Hi")
    project()
    position, item = told_of(pending, lambda: delete(alice, conversation_id))
    assert isinstance(item, End)
    # What is deleted is not told again.
    assert (item.ended.status, item.ended.response) == ("cancelled", None)
    assert (item.ended.cost, item.ended.refunded, item.ended.attempt) == (100, 0, 1)
    assert item.ended.position == position
    assert reply_streams().close(ended) == reply_streams().close(pending) == [Forgotten()]


def told_of(message_id: UUID, command: Callable[[], int]) -> tuple[int, Item]:
    """What a command returns, and the last item that whoever follows the message hears of it."""

    def run() -> int:
        try:
            return command()
        finally:
            connection.close()

    async def story() -> tuple[int, Item]:
        async with asyncio.timeout(10), reply_streams().follow(message_id) as said:
            done = await asyncio.to_thread(run)
            while not isinstance(item := await said.get(), End):
                continue
            return done, item

    return asyncio.run(story())


def test_a_message_whose_reply_stream_is_lost_costs_nothing(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = start(alice)
    send(alice, conversation_id=conversation_id)
    monkeypatch.setattr(cancelling, "reply_streams", _NoStreams)
    delete(alice, conversation_id)
    assert tokens(alice) == 4000


def test_a_deleted_default_conversation_is_replaced(alice: UUID, send: Send) -> None:
    message_id = send(alice).message_id
    first = default_of(alice)
    before = max_position()
    delete(alice, first)
    second = default_of(alice)
    assert named(read_events(before)) == [
        "TokensRefunded",
        "ResponseCancelled",
        "ConversationClosed",
        "DefaultConversationReplaced",
        "ConversationDeleted",
    ]
    assert second != first
    assert DataKey.objects.get(id=second).wrapped_by == alice
    again = read_stream(send(alice, "again").message_id)[0]
    assert again.data["conversation_id"] == str(second)
    assert keys.decrypt_all([again.data["message"]]) == ["again"]
    assert event_log().load(Exchange, message_id).message == keys.ERASED


def test_a_process_that_remembers_an_erased_account_deletes_nothing_of_it(
    alice: UUID, send: Send
) -> None:
    send(alice)
    remembered = event_log().load(Account, alice)
    erase_user(EraseUser(alice), CAUSE)
    event_log()._memory.put(alice, Remembered(remembered, None))
    keys.forget()
    with pytest.raises(AccountErased):
        delete(alice, remembered.default_conversation_id)


def test_deleting_twice_is_deleting_what_is_not_there(alice: UUID) -> None:
    conversation_id = start(alice)
    delete(alice, conversation_id)
    before = max_position()
    with pytest.raises(ConversationNotFound):
        delete(alice, conversation_id)
    assert max_position() == before


def test_nothing_is_sent_into_a_deleted_conversation(alice: UUID, send: Send) -> None:
    conversation_id = start(alice)
    delete(alice, conversation_id)
    with pytest.raises(ConversationNotFound):
        send(alice, conversation_id=conversation_id)
    assert tokens(alice) == 4000


# Races


def test_a_message_that_ends_meanwhile_keeps_its_end(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = start(alice)
    message_id = send(alice, conversation_id=conversation_id).message_id
    really = cancelling.text_so_far

    def end_it_first(exchange: Exchange) -> cancelling.SoFar:
        respond(exchange.id)
        return really(exchange)

    monkeypatch.setattr(cancel_first, "text_so_far", end_it_first)
    delete(alice, conversation_id)
    assert named(read_stream(message_id)) == ["MessageSent", "ResponseGenerated"]
    assert tokens(alice) == 3900


def test_a_message_that_another_process_accepts_meanwhile_is_cancelled_too(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = start(alice)
    send(alice, conversation_id=conversation_id)
    late: list[UUID] = []

    def accept_one_after(conversation_id: UUID) -> InFlight:
        in_flight = in_flight_of_conversation(conversation_id)
        if not late:
            with another_process():
                late.append(send(alice, conversation_id=conversation_id).message_id)
        return in_flight

    monkeypatch.setattr(conversation_commands, "in_flight_of_conversation", accept_one_after)
    delete(alice, conversation_id)
    assert named(read_stream(late[0])) == ["MessageSent", "ResponseCancelled"]
    assert tokens(alice) == 4000


def test_another_process_that_remembers_the_conversation_sends_nothing_into_it(
    alice: UUID, send: Send
) -> None:
    conversation_id = start(alice)
    send(alice, conversation_id=conversation_id)
    with another_process():
        delete(alice, conversation_id)
    with pytest.raises(ConversationNotFound):
        send(alice, conversation_id=conversation_id)
    assert in_flight_of_conversation(conversation_id).pending == set()


def test_a_process_that_has_read_the_account_since_sends_nothing_into_it_either(
    alice: UUID, send: Send
) -> None:
    conversation_id = start(alice)
    send(alice, conversation_id=conversation_id)
    with another_process():
        delete(alice, conversation_id)
    # This reads the account anew, but not the conversation that is remembered.
    send(alice)
    with pytest.raises(ConversationNotFound):
        send(alice, conversation_id=conversation_id)
    assert in_flight_of_conversation(conversation_id).pending == set()


def test_a_process_that_has_read_the_account_since_renames_nothing_either(alice: UUID) -> None:
    conversation_id = start(alice)
    with another_process():
        delete(alice, conversation_id)
    event_log().load(Account, alice, fresh=True)
    with pytest.raises(ConversationNotFound):
        rename(alice, conversation_id)


@pytest.mark.parametrize("processes", ["one process", "many processes"])
def test_no_message_is_accepted_or_pending_after_a_deletion(
    alice: UUID,
    send: Send,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    processes: str,
) -> None:
    settings.MESSAGE_PRICE = 1
    conversation_id = start(alice)
    if processes == "many processes":
        each_thread_is_a_process(monkeypatch)
    under_way = threading.Event()
    accepted: list[UUID] = []
    refused: list[object] = []

    def send_some(_: int) -> None:
        try:
            while True:
                # Otherwise the others were ahead of it too often.
                with contextlib.suppress(StoreUnavailable):
                    accepted.append(send(alice, conversation_id=conversation_id).message_id)
                if len(accepted) >= SENDERS:
                    under_way.set()
        except ConversationNotFound as error:
            refused.append(error)
        finally:
            connection.close()

    def delete_it() -> int:
        assert under_way.wait(WAIT_SECONDS_MAX)
        try:
            return delete(alice, conversation_id)
        finally:
            connection.close()

    with ThreadPoolExecutor(SENDERS + 1) as clients:
        deleting = clients.submit(delete_it)
        list(clients.map(send_some, range(SENDERS)))
        position = deleting.result()
    assert len(refused) == SENDERS
    messages = {event.stream_id for event in events_of("MessageSent")}
    assert set(accepted) <= messages
    sent = [read_stream(message_id) for message_id in messages]
    assert all(named(events) == ["MessageSent", "ResponseCancelled"] for events in sent)
    assert all(event.position < position for events in sent for event in events)
    assert tokens(alice) == 4000


def test_a_deletion_that_is_overtaken_again_and_again_makes_the_others_wait(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = start(alice)
    tries: list[bool] = []

    def overtaken(conversation_id: UUID) -> InFlight:
        in_flight = in_flight_of_conversation(conversation_id)
        tries.append(connection.in_atomic_block)
        if not connection.in_atomic_block:
            with another_process():
                send(alice, conversation_id=conversation_id)
        return in_flight

    monkeypatch.setattr(conversation_commands, "in_flight_of_conversation", overtaken)
    delete(alice, conversation_id)
    # Three tries, a last look at what can be closed beforehand, and one that nobody overtakes.
    assert tries == [False, False, False, False, True]
    assert in_flight_of_conversation(conversation_id).pending == set()
    assert tokens(alice) == 4000


def test_a_response_and_a_deletion_at_once_leave_one_end_each(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = start(alice)
    messages = [send(alice, conversation_id=conversation_id).message_id for _ in range(12)]
    each_thread_is_a_process(monkeypatch)
    ready = threading.Barrier(4)

    def end_some(number: int) -> None:
        ready.wait()
        for message_id in messages[number::3]:
            if number:
                respond(message_id)
            else:
                cancel_message(message_id, CAUSE)
        connection.close()

    def delete_it() -> None:
        ready.wait()
        delete(alice, conversation_id)
        connection.close()

    with ThreadPoolExecutor(4) as clients:
        deleting = clients.submit(delete_it)
        list(clients.map(end_some, range(3)))
        deleting.result()
    ends = [read_stream(message_id) for message_id in messages]
    assert all(len(events) == 2 for events in ends)
    cost = sum(end.data["cost"] for _, end in ends)
    assert tokens(alice) == 4000 - cost


def test_of_several_deletions_at_once_one_finds_the_conversation(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = start(alice)
    send(alice, conversation_id=conversation_id)
    each_thread_is_a_process(monkeypatch)
    ready = threading.Barrier(4)

    def delete_it(_: int) -> bool:
        ready.wait()
        try:
            delete(alice, conversation_id)
        except ConversationNotFound:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(4) as clients:
        assert sorted(clients.map(delete_it, range(4))) == [False, False, False, True]
    assert named(read_stream(conversation_id)).count("ConversationDeleted") == 1
    assert tokens(alice) == 4000


# Lost connections


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
def test_a_deletion_that_is_cut_off_is_done_once(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    message_id = send(alice).message_id
    conversation_id = default_of(alice)
    say(message_id, "Hi")
    cut = cut_off_once(monkeypatch, when)
    before = max_position()
    position, told = told_of(message_id, lambda: delete(alice, conversation_id))
    assert isinstance(told, End)
    assert cut == [when]
    assert named(read_events(before)) == [
        "ResponseCancelled",
        "ConversationClosed",
        "DefaultConversationReplaced",
        "ConversationDeleted",
    ]
    assert position == max_position()
    assert DataKey.objects.get(id=conversation_id).wrapped is None
    assert DataKey.objects.filter(wrapped_by=alice, wrapped__isnull=False).count() == 1
    assert event_log().load(Exchange, message_id).message == keys.ERASED
    assert vars(event_log().load(Account, alice)) == vars(EventLog().load(Account, alice))


def test_what_was_deleted_before_is_not_found_over_a_bad_connection_either(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = start(alice)
    delete(alice, conversation_id)
    really = EventLog.load
    cut: list[type[Account]] = []

    def load(log: EventLog, kind: type[Account], stream_id: UUID, **how: bool) -> Account:
        if not cut:
            cut.append(kind)
            raise OperationalError("the server closed the connection")
        return really(log, kind, stream_id, **how)

    monkeypatch.setattr(EventLog, "load", load)
    with pytest.raises(ConversationNotFound):
        delete(alice, conversation_id)
    assert cut == [Account]


def test_a_conflict_is_no_lost_connection(alice: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation_id = start(alice)
    really = EventLog.append

    def be_overtaken(log: EventLog, *aggregates: object, **how: object) -> int:
        monkeypatch.setattr(EventLog, "append", really)
        with another_process():
            delete(alice, conversation_id)
        raise IntegrityError

    monkeypatch.setattr(conversation_commands, "transaction_with_log", _no_transaction)
    monkeypatch.setattr(EventLog, "append", be_overtaken)
    with pytest.raises(ConversationNotFound):
        delete(alice, conversation_id)


def test_a_deletion_without_a_database_is_refused_and_changes_nothing(
    alice: UUID, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = start(alice)
    send(alice, conversation_id=conversation_id)
    before = max_position()

    def no_database() -> AbstractContextManager[None]:
        raise OperationalError("the server closed the connection")

    with monkeypatch.context() as patched:
        patched.setattr(conversation_commands, "transaction_with_log", no_database)
        with pytest.raises(StoreUnavailable):
            delete(alice, conversation_id)
    assert max_position() == before
    delete(alice, conversation_id)
    assert tokens(alice) == 4000


# Helpers


@contextmanager
def another_process() -> Iterator[None]:
    """What is done here is done by a process that remembers other things."""
    other = EventLog()
    with pytest.MonkeyPatch.context() as patched:
        _remembering(patched, lambda: other)
        yield


def each_thread_is_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread sees what another remembers, or waits for its turn: the versions decide."""
    memory = threading.local()

    def own_log() -> EventLog:
        if not hasattr(memory, "log"):
            memory.log = EventLog()
        log: EventLog = memory.log
        return log

    _remembering(monkeypatch, own_log)


def _remembering(patched: pytest.MonkeyPatch, log: Callable[[], EventLog]) -> None:
    """Let all commands use this log, and each thread be a writer of its own."""
    locks = threading.Lock
    for module in (commands, conversation_commands, cancel_first, writer):
        patched.setattr(module, "event_log", log)
    for module in (conversation_commands, cancel_first):
        patched.setattr(module, "one_at_a_time", lambda user_id: locks())
    patched.setattr(SharedWriter, "submit", carry_out_here)


def cut_off_once(monkeypatch: pytest.MonkeyPatch, when: str) -> list[str]:
    """Lose the connection once, around the commit of the next transaction."""
    cut: list[str] = []

    @contextmanager
    def transaction() -> Iterator[None]:
        with transaction_with_log():
            yield
            if not cut and when == "before the commit":
                cut.append(when)
                raise OperationalError("the server closed the connection")
        if not cut:
            cut.append(when)
            raise OperationalError("the server closed the connection")

    monkeypatch.setattr(conversation_commands, "transaction_with_log", transaction)
    return cut


@contextmanager
def _no_transaction() -> Iterator[None]:
    yield


class _NoStreams:
    def close(self, message_id: UUID) -> None:
        raise ReplyStreamsUnavailable("gone")

    def forget(self, message_ids: object) -> None:
        raise ReplyStreamsUnavailable("gone")

    def publish(self, message_id: UUID, *items: object) -> None:
        pass
