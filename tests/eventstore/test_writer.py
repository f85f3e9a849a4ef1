"""The shared writer: what it decides and commits, several commands at a time.

Most batches here are carried out in the test's own thread, so that who shares a commit is known.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import DatabaseError, OperationalError, connection
from eventsourcing.persistence import IntegrityError
from prometheus_client import REGISTRY
from pytest_django import Settings

import eventstore.log
from accounts.commands import RegisterUser, register_user
from accounts.domain import Account, AccountDeactivated, InsufficientTokens
from conversations import commands
from conversations.commands import Accepted, ConversationNotFound, SendMessage, message_id_for
from conversations.conversation_commands import (
    DeleteConversation,
    StartConversation,
    delete_conversation,
    start_conversation,
)
from conversations.domain import Conversation, ConversationStarted, Exchange
from conversations.ends import Ended
from eventstore import reading, writer
from eventstore.append import Job, Outcome
from eventstore.cause import Cause
from eventstore.database import StoreUnavailable
from eventstore.decisions import CONFLICTS_MAX, Append, Decision, Raced, View
from eventstore.domain import Refused
from eventstore.gathering import Gathering, gathered
from eventstore.log import READS_AHEAD, EventLog, event_log
from eventstore.marker import appended
from eventstore.reading import max_position, read_events, read_stream
from eventstore.writer import Command, SharedWriter, decide_together, deciding_together
from privacy.erasure import EraseUser, erase_user
from tests.eventstore.making import CAUSE
from tests.isolation import carry_out_here

pytestmark = pytest.mark.django_db(transaction=True)

PRICE = 100
WAIT_SECONDS_MAX = 20
#: Rounds after which a batch must be at rest.
ROUNDS_MAX = 10

#: When a connection is lost.
around_the_commit = pytest.mark.parametrize("when", ["before", "after"])


class Taken(Refused):
    """Somebody else has started it."""


# What is decided here: conversations of nobody, which need no key, and sends of two users.


def starting(*stream_ids: UUID) -> Decision[int]:
    """Start conversations, one event each; the result is the position of the last."""

    def decision(view: View) -> int | Append[int]:
        if view.fresh and any(view.find(Conversation, each) for each in stream_ids):
            raise Taken
        started = [Conversation.start(each, user_id=uuid4()) for each in stream_ids]
        return Append(tuple(started), CAUSE, int)

    return decision


def store(shared: SharedWriter, *stream_ids: UUID) -> int:
    """Have a writer start conversations, a new one if none is named, and wait for it."""
    done: Future[int] = Future()
    shared.submit(Command(starting(*(stream_ids or (uuid4(),))), done))
    return done.result(WAIT_SECONDS_MAX)


@dataclass(frozen=True, kw_only=True)
class Unstorable(ConversationStarted):
    """An event that no database takes."""

    TOPIC = None  # type: ignore[assignment]  # that is what is wrong with it


def beginning(event_class: type[ConversationStarted], **said: Any) -> Decision[int]:
    def decision(_: View) -> Append[int]:
        told = {"user_id": uuid4(), "title": None, **said}
        return Append((Conversation.begin(event_class, uuid4(), **told),), CAUSE, int)

    return decision


@pytest.fixture
def alice(settings: Settings) -> UUID:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return register_user(RegisterUser("alice", "correct horse battery"), CAUSE).user_id


@pytest.fixture
def bob(settings: Settings) -> UUID:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return register_user(RegisterUser("bob", "correct horse battery"), CAUSE).user_id


def a_send(
    user_id: UUID,
    *,
    key: str | None = None,
    text: str = "hello",
    conversation_id: UUID | None = None,
    then: Callable[[Accepted], object] | None = None,
) -> Command[Accepted]:
    message_id = message_id_for(user_id, key)
    order = SendMessage(user_id, conversation_id, message_id, text)
    return Command(commands.sending(order, Cause("user:test", uuid4().hex)), Future(), then)


def asked(decision: Decision[Any], then: Callable[[Any], object] | None = None) -> Command[Any]:
    return Command(decision, Future(), then)


def carry_out(*batch: Command[Any]) -> list[Command[Any]]:
    return SharedWriter().carry_out(batch)


def to_rest(batch: Sequence[Command[Any]]) -> None:
    """Carry out what is to be decided again, until nothing is."""
    for _ in range(ROUNDS_MAX):
        if not batch:
            return
        batch = carry_out(*batch)
    raise AssertionError(f"{len(batch)} commands come to no rest")


def result(command: Command[Any]) -> Any:
    done: Any = command.done
    return done.result(0)


def refusal(command: Command[Any]) -> BaseException | None:
    done: Any = command.done
    error: BaseException | None = done.exception(0)
    return error


def tokens(user_id: UUID) -> int:
    return EventLog().load(Account, user_id).tokens


def of_kind(kind: str, stream_id: UUID | None = None) -> list[Any]:
    events = read_events(0) if stream_id is None else read_stream(stream_id)
    return [event for event in events if event.topic.endswith(kind)]


def assert_contiguous() -> None:
    """Positions and the versions of each stream have no gaps."""
    events = read_events(0)
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    versions: dict[UUID, int] = {}
    for event in events:
        assert event.version == versions.get(event.stream_id, 0) + 1
        versions[event.stream_id] = event.version


def credit_elsewhere(user_id: UUID, amount: int = PRICE) -> None:
    """Another process appends to an account, of which this one hears nothing."""
    other = EventLog()
    account = other.load(Account, user_id)
    account.refund(amount, message_id=uuid4(), reason="unused")
    other.append(account, cause=CAUSE)


@dataclass
class Cuts:
    """The commits that lose their connection: the next ones, before or after they are done."""

    stored: bool
    left: int = 1


def cut_off(patch: pytest.MonkeyPatch, *, stored: bool, times: int = 1) -> Cuts:
    cuts, really = Cuts(stored, times), writer._append_and_commit

    def commit(jobs: Sequence[Job]) -> list[Outcome]:
        if not cuts.left:
            return really(jobs)
        cuts.left -= 1
        if cuts.stored:
            really(jobs)
        raise OperationalError("the server closed the connection")

    patch.setattr(writer, "_append_and_commit", commit)
    return cuts


def before_the_commit(patch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen once between the decisions of a batch and its commit."""
    really = writer._append_and_commit

    def commit(jobs: Sequence[Job]) -> list[Outcome]:
        patch.setattr(writer, "_append_and_commit", really)
        with another_process():
            act()
        return really(jobs)

    patch.setattr(writer, "_append_and_commit", commit)


def another_process() -> Any:
    """What commands do in the block is remembered by nobody here."""
    from tests.conversations.test_conversations import another_process

    return another_process()


# The thread and its queue


def test_callers_share_commits_and_each_gets_its_own_position() -> None:
    shared = SharedWriter()
    with ThreadPoolExecutor(16) as callers:
        positions = list(callers.map(lambda _: store(shared, uuid4(), uuid4()), range(64)))
    assert sorted(positions) == list(range(2, 130, 2))
    assert [event.position for event in read_events(0)] == list(range(1, 129))
    assert appended.value >= 128


def test_of_callers_that_race_for_a_version_one_wins_and_the_others_hear_of_it() -> None:
    shared = SharedWriter()
    stream = uuid4()
    start = threading.Barrier(16)

    def race(_: int) -> bool:
        start.wait()
        try:
            store(shared, stream)
        except Taken:
            return False
        return True

    with ThreadPoolExecutor(16) as callers:
        assert sum(callers.map(race, range(16))) == 1
    assert max_position() == 1


def test_the_writer_outlives_a_connection_that_was_killed() -> None:
    shared = SharedWriter()
    store(shared)
    kill_writers_connection(shared)
    store(shared)
    assert max_position() == 2


def test_a_job_that_cannot_be_stored_takes_nobody_along() -> None:
    shared = SharedWriter()
    broken: Future[int] = Future()
    with ThreadPoolExecutor(6) as callers:
        shared.submit(Command(beginning(Unstorable), broken))
        positions = list(callers.map(lambda _: store(shared), range(5)))
    assert isinstance(broken.exception(WAIT_SECONDS_MAX), DatabaseError)
    assert sorted(positions) == [1, 2, 3, 4, 5]


def test_commits_their_jobs_and_failures_are_counted() -> None:
    names = (
        "commit_seconds_count",
        "commit_jobs_count",
        "commit_jobs_sum",
        "commit_failures_total",
    )

    def counted() -> dict[str, float]:
        return {name: REGISTRY.get_sample_value(f"chatledger_{name}") or 0 for name in names}

    shared, before = SharedWriter(), counted()
    for _ in range(3):
        store(shared)
    broken: Future[int] = Future()
    shared.submit(Command(beginning(Unstorable), broken))
    with pytest.raises(DatabaseError):
        broken.result(WAIT_SECONDS_MAX)
    after = counted()
    assert [after[name] - before[name] for name in names] == [4, 4, 4, 1]


def kill_writers_connection(shared: SharedWriter) -> None:
    """Break the connection under the writer's thread, from outside where the database allows it."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
    else:
        done: Future[int] = Future()

        class Closing:
            request_id, causation_id = "request-1", None

            @property
            def actor(self) -> str:
                connection.connection.close()
                return "user:alice"

        def closing(_: View) -> Append[int]:
            cause: Any = Closing()
            return Append((Conversation.start(uuid4(), user_id=uuid4()),), cause, int)

        shared.submit(Command(closing, done))
        with pytest.raises(Exception):  # noqa: B017, PT011 (whatever it is, it must not be the last word)
            done.result(WAIT_SECONDS_MAX)


def test_writers_of_several_processes_never_let_a_position_appear_behind_a_reader() -> None:
    # Each shared writer has a connection of its own, as each process has.
    writers = [SharedWriter() for _ in range(4)]
    jobs = 50

    def write(shared: SharedWriter) -> None:
        for _ in range(jobs):
            store(shared, uuid4(), uuid4())

    seen: list[int] = []
    with ThreadPoolExecutor(len(writers)) as processes:
        writing = [processes.submit(write, shared) for shared in writers]
        while not all(each.done() for each in writing):
            seen += [event.position for event in read_events(seen[-1] if seen else 0)]
        for each in writing:
            each.result()
    seen += [event.position for event in read_events(seen[-1])]
    assert seen == list(range(1, len(writers) * jobs * 2 + 1))


def test_a_queue_that_is_full_says_so_and_takes_no_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "QUEUED_MAX", 2)
    monkeypatch.setattr(SharedWriter, "_ensure_thread", lambda _: None)
    shared = SharedWriter()
    for _ in range(2):
        shared.submit(asked(starting(uuid4())))
    with pytest.raises(StoreUnavailable):
        shared.submit(asked(starting(uuid4())))
    assert shared.queued == 2


def test_nobody_waits_for_ever_for_a_writer_that_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedWriter, "_ensure_thread", lambda _: None)
    monkeypatch.setattr(writer, "shared_writer", SharedWriter())
    monkeypatch.setattr(writer, "COMMIT_TIMEOUT_SECONDS", 0.05)

    async def on_a_loop() -> int:
        return await deciding_together(starting(uuid4()))

    with pytest.raises(StoreUnavailable):
        decide_together(starting(uuid4()))
    with pytest.raises(StoreUnavailable):
        asyncio.run(asyncio.wait_for(on_a_loop(), WAIT_SECONDS_MAX))


def test_who_has_its_commands_carried_out_here_takes_along_what_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SharedWriter, "_ensure_thread", lambda _: None)
    shared, batches = SharedWriter(), batches_of(monkeypatch)
    waiting, mine = asked(starting(uuid4())), [asked(starting(uuid4())) for _ in range(2)]
    shared.submit(waiting)
    shared.carry_out_here(mine)
    assert [result(each) for each in (*mine, waiting)] == [1, 2, 3]
    assert batches == [(threading.get_ident(), 3)]


def test_who_has_it_carried_out_here_hears_a_refusal_of_fresh_state() -> None:
    stream, shared = uuid4(), SharedWriter()
    first, second = asked(starting(stream)), asked(starting(stream))
    shared.carry_out_here([first])
    shared.carry_out_here([second])
    assert isinstance(refusal(second), Taken)


def test_two_threads_never_commit_at_once_and_neither_waits_for_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, batches = SharedWriter(), batches_of(monkeypatch)
    begun, may_end, really = threading.Event(), threading.Event(), writer._append_and_commit

    def slowly(jobs: Sequence[Job]) -> list[Outcome]:
        begun.set()
        assert may_end.wait(WAIT_SECONDS_MAX)
        return really(jobs)

    monkeypatch.setattr(writer, "_append_and_commit", slowly)
    first, second = asked(starting(uuid4())), asked(starting(uuid4()))
    here = threading.Thread(target=shared.carry_out_here, args=([first],))
    here.start()
    assert begun.wait(WAIT_SECONDS_MAX)
    shared.carry_out_here([second])  # does not wait
    third: Future[int] = Future()
    shared.submit(Command(starting(uuid4()), third))
    assert not third.done()
    assert len(batches) == 1
    may_end.set()
    here.join(WAIT_SECONDS_MAX)
    assert third.result(WAIT_SECONDS_MAX) == 3
    assert [result(each) for each in (first, second)] == [1, 2]
    assert batches[0][0] == here.ident
    assert {thread for thread, _ in batches[1:]}.isdisjoint({here.ident, threading.get_ident()})


def test_what_finds_no_room_fails_and_takes_nobody_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedWriter, "_ensure_thread", lambda _: None)
    monkeypatch.setattr(writer, "QUEUED_MAX", 1)
    shared = SharedWriter()
    fits, does_not = asked(starting(uuid4())), asked(starting(uuid4()))
    with shared._turn:
        shared.carry_out_here([fits, does_not])
    assert isinstance(refusal(does_not), StoreUnavailable)
    assert not fits.done.done()


def batches_of(patch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The thread and the size of each batch that is carried out from now on."""
    batches: list[tuple[int, int]] = []
    really = SharedWriter.carry_out

    def carry_out(self: SharedWriter, batch: Sequence[Command[Any]]) -> list[Command[Any]]:
        batches.append((threading.get_ident(), len(batch)))
        return really(self, batch)

    patch.setattr(SharedWriter, "carry_out", carry_out)
    return batches


# Several commands in one batch


@pytest.mark.parametrize("here", [False, True])
def test_what_follows_a_batch_is_handed_over_together(*, here: bool) -> None:
    told: list[tuple[bool, list[int]]] = []
    me = threading.get_ident()

    def deliver(positions: Sequence[int]) -> None:
        told.append((threading.get_ident() == me, sorted(positions)))

    positions = Gathering[int]("positions", deliver, "positions are lost")
    with gathered(here=True) if here else nullcontext():
        assert carry_out(*(asked(starting(uuid4()), positions.add) for _ in range(3))) == []
    assert positions.flush(5)
    assert told == [(here, [1, 2, 3])]


def test_two_sends_of_one_account_share_a_commit(alice: UUID) -> None:
    before = max_position()
    first, second = a_send(alice), a_send(alice)
    assert carry_out(first, second) == []
    one, other = result(first), result(second)
    assert [event.topic.rsplit(".", 1)[1] for event in read_events(before)] == [
        "TokensDebited",
        "ConversationStarted",
        "MessageSent",
        "TokensDebited",
        "MessageSent",
    ]
    assert (one.position, other.position) == (before + 3, before + 5)
    for accepted in (one, other):
        (sent,) = read_stream(accepted.message_id)
        assert sent.position == accepted.position
        assert not accepted.repeated
    assert len({event.at for event in read_events(before)}) == 1
    assert_contiguous()
    assert tokens(alice) == 3800
    assert vars(event_log().load(Account, alice)) == vars(EventLog().load(Account, alice))


def test_a_send_that_those_before_it_leave_nothing_for_is_decided_again_and_then_refused(
    alice: UUID, settings: Settings
) -> None:
    settings.MESSAGE_PRICE = 2000
    sends = [a_send(alice) for _ in range(3)]
    assert carry_out(*sends) == [sends[2]]
    assert all(not result(each).repeated for each in sends[:2])
    assert not sends[2].done.done()
    assert carry_out(sends[2]) == []
    assert isinstance(refusal(sends[2]), InsufficientTokens)
    assert tokens(alice) == 0
    assert len(of_kind("TokensDebited")) == 2


def test_credit_that_comes_from_elsewhere_meanwhile_pays_for_it(
    alice: UUID, settings: Settings
) -> None:
    settings.MESSAGE_PRICE = 2000
    sends = [a_send(alice) for _ in range(3)]
    again = carry_out(*sends)
    credit_elsewhere(alice, 2000)
    to_rest(again)
    assert not result(sends[2]).repeated
    assert tokens(alice) == 0
    assert_contiguous()


def test_a_refusal_because_of_what_is_not_stored_in_the_end_is_none(
    alice: UUID, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MESSAGE_PRICE = 4000
    first, second = a_send(alice), a_send(alice)
    first.fresh = second.fresh = True
    # The second is refused because of the first, whose commit fails for good.
    cut_off(monkeypatch, stored=False)
    assert carry_out(first, second) == [second]
    assert isinstance(refusal(first), StoreUnavailable)
    to_rest([second])
    assert not result(second).repeated


def test_the_same_key_twice_in_one_batch_is_one_message(alice: UUID) -> None:
    first, second, other = a_send(alice, key="k"), a_send(alice, key="k"), a_send(alice)
    # It is no conflict, which would take the third along.
    assert carry_out(first, second, other) == [second]
    to_rest([second])
    assert (result(first).repeated, result(second).repeated) == (False, True)
    assert result(first).message_id == result(second).message_id
    assert tokens(alice) == 3800
    assert len(of_kind("TokensDebited")) == 2


@pytest.mark.parametrize("times", range(1, 5))
def test_nobody_is_told_of_a_message_that_is_not_stored(
    alice: UUID, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    sends = [a_send(alice, key="k") for _ in range(3)]
    cut_off(monkeypatch, stored=False, times=times)
    batch: list[Command[Any]] = list(sends)
    for _ in range(ROUNDS_MAX):
        batch = carry_out(*batch)
        told = [result(each) for each in sends if each.done.done() and not refusal(each)]
        assert not told or len(of_kind("MessageSent")) == 1
    assert batch == []
    assert len(of_kind("TokensDebited")) == len(of_kind("MessageSent")) <= 1
    refused = [refusal(each) for each in sends if refusal(each)]
    assert all(isinstance(each, StoreUnavailable) for each in refused)


@around_the_commit
def test_of_two_with_one_key_one_is_the_sender_also_when_a_commit_is_lost(
    alice: UUID, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    sends = [a_send(alice, key="k") for _ in range(2)]
    cut_off(monkeypatch, stored=when == "after")
    to_rest(sends)
    assert sorted(result(each).repeated for each in sends) == [False, True]


def test_a_repeat_whose_commit_is_lost_is_a_repeat(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_rest([a_send(alice, key="k")])
    again = a_send(alice, key="k")
    cut_off(monkeypatch, stored=False)
    to_rest([again])
    assert result(again).repeated


def test_an_answer_that_rests_on_what_is_not_stored_yet_is_given_when_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = uuid4()
    start, look = asked(starting(stream)), asked(lambda view: bool(view.find(Conversation, stream)))
    start.fresh = True
    cut_off(monkeypatch, stored=False)
    assert carry_out(start, look) == [look]
    assert isinstance(refusal(start), StoreUnavailable)
    to_rest([look])
    assert result(look) is False


def test_two_ends_of_one_message_in_one_batch_are_one(alice: UUID) -> None:
    message_id = decide_together(a_send(alice).decision).message_id
    exchange = event_log().load(Exchange, message_id)

    def fail(current: Exchange, view: View) -> Any:
        current.fail("responder")
        end = Ended(0, "failed", 0, current.price, reason="responder")
        return commands._append_end(view, current, end, reason="responder", cause=CAUSE)

    respond = asked(
        commands.responding(
            exchange, "Hi there!", usage=None, attempt=1, model="dummy", cause=CAUSE
        )
    )
    failing, other = asked(commands._ending(exchange, fail)), a_send(alice)
    to_rest([failing, respond, other])
    assert result(failing) == result(respond)
    assert len(read_stream(message_id)) == 2
    assert len(of_kind("TokensRefunded")) == (result(failing).status == "failed")
    assert tokens(alice) == 4000 - result(failing).cost - PRICE
    assert_contiguous()


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


# One that cannot be carried out


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda: beginning(Unstorable), id="stored"),
        pytest.param(lambda: beginning(ConversationStarted, user_id=object()), id="encoded"),
        pytest.param(lambda: beginning(ConversationStarted, title="no key"), id="encrypted"),
        pytest.param(lambda: _raising(ZeroDivisionError), id="decided"),
        pytest.param(lambda: _raising(IntegrityError), id="decided without a conflict"),
    ],
)
def test_a_command_that_cannot_be_carried_out_fails_alone(
    alice: UUID, bob: UUID, broken: Callable[[], Decision[int]]
) -> None:
    poisoned = asked(broken(), then=lambda _: pytest.fail("it was carried out"))
    sends = [a_send(alice), a_send(bob), a_send(alice)]
    to_rest(carry_out(sends[0], poisoned, *sends[1:]))
    assert refusal(poisoned) is not None
    assert not isinstance(refusal(poisoned), StoreUnavailable | Refused)
    for each in sends:
        (sent,) = read_stream(result(each).message_id)
        assert sent.position == result(each).position
        assert not result(each).repeated
    assert (tokens(alice), tokens(bob)) == (3800, 3900)
    assert_contiguous()


def _raising(error: type[Exception]) -> Decision[int]:
    def decision(_: View) -> int:
        raise error

    return decision


def test_what_cannot_be_stored_alone_takes_nothing_of_its_stream_along(
    alice: UUID, settings: Settings
) -> None:
    """The sends after a poisoned one of the same account are decided without it."""
    settings.MESSAGE_PRICE = 2000

    def decision(view: View) -> Append[int]:
        account = view.load(Account, alice)
        account.debit(2000, message_id=uuid4())
        broken = Conversation.begin(Unstorable, uuid4(), user_id=alice, title=None)
        return Append((account, broken), CAUSE, int)

    poisoned, sends = asked(decision), [a_send(alice) for _ in range(3)]
    to_rest(carry_out(poisoned, *sends))
    assert isinstance(refusal(poisoned), DatabaseError)
    assert [type(refusal(each)) for each in sends] == [type(None), type(None), InsufficientTokens]
    assert tokens(alice) == 0
    assert_contiguous()


# Who hears of it


def test_what_follows_is_done_once_for_each_success_before_anybody_hears(
    alice: UUID, bob: UUID, settings: Settings
) -> None:
    to_rest([a_send(alice)])
    settings.MESSAGE_PRICE = 2000
    credit_elsewhere(alice, 50)
    followed: list[tuple[int, bool]] = []
    sends: list[Command[Accepted]] = []

    def then(number: int) -> Callable[[Accepted], None]:
        def note(accepted: Accepted) -> None:
            followed.append((number, sends[number].done.done()))
            assert len(read_stream(accepted.message_id)) == 1

        return note

    # The second is a repeat, the third is not covered, and all of hers conflict at first.
    keys = ((alice, "k"), (alice, "k"), (alice, None), (bob, None))
    sends += [a_send(user, key=key, then=then(at)) for at, (user, key) in enumerate(keys)]
    to_rest(sends)
    assert sorted(followed) == [(0, False), (1, False), (3, False)]
    assert isinstance(refusal(sends[2]), InsufficientTokens)


def test_what_follows_and_fails_harms_nobody(
    alice: UUID, bob: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    followed: list[Accepted] = []

    def fail(_: Accepted) -> None:
        raise ZeroDivisionError("nobody foresaw it")

    sends = [a_send(alice, then=fail), a_send(bob, then=followed.append)]
    assert carry_out(*sends) == []
    assert [result(sends[1])] == followed
    assert not result(sends[0]).repeated
    assert "what follows a commit failed" in caplog.text


def test_callers_on_two_loops_and_in_threads_all_hear(alice: UUID, bob: UUID) -> None:
    loops = [asyncio.new_event_loop() for _ in range(2)]
    runs = [threading.Thread(target=loop.run_forever, daemon=True) for loop in loops]
    for run in runs:
        run.start()

    async def future() -> "asyncio.Future[Accepted]":
        return asyncio.get_running_loop().create_future()

    async def heard(done: "asyncio.Future[Accepted]") -> object:
        try:
            return await done
        except Refused as error:
            return error

    try:
        batch: list[Command[Any]] = []
        for loop in loops * 2:
            done = asyncio.run_coroutine_threadsafe(future(), loop).result(WAIT_SECONDS_MAX)
            order = SendMessage(bob, None, uuid4(), "hello")
            batch.append(Command(commands.sending(order, CAUSE), done))
        nowhere = SendMessage(bob, uuid4(), uuid4(), "hello")
        done = asyncio.run_coroutine_threadsafe(future(), loops[0]).result(WAIT_SECONDS_MAX)
        batch.append(Command(commands.sending(nowhere, CAUSE), done))
        batch += [a_send(alice), a_send(alice)]
        to_rest(batch)
        answers: list[Any] = []
        for command in batch:
            waiting: Any = command.done
            if isinstance(waiting, Future):
                answers.append(waiting.result(0))
            else:
                hearing = asyncio.run_coroutine_threadsafe(heard(waiting), waiting.get_loop())
                answers.append(hearing.result(WAIT_SECONDS_MAX))
    finally:
        for loop, run in zip(loops, runs, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            run.join(WAIT_SECONDS_MAX)
            loop.close()
    assert isinstance(answers.pop(4), ConversationNotFound)
    for accepted in answers:
        assert read_stream(accepted.message_id)[0].position == accepted.position
    assert len({accepted.message_id for accepted in answers}) == 6


def test_callers_on_a_loop_that_is_gone_keep_nobody_from_hearing(alice: UUID) -> None:
    loop = asyncio.new_event_loop()
    orphan = Command(a_send(alice).decision, loop.create_future())
    loop.close()
    other = a_send(alice)
    assert carry_out(orphan, other) == []
    assert not result(other).repeated
    assert len(of_kind("MessageSent")) == 2


def test_a_command_whose_caller_went_away_is_carried_out_all_the_same(alice: UUID) -> None:
    followed: list[Accepted] = []

    async def hang_up() -> Accepted:
        decision = a_send(alice, key="k").decision
        gone, other = deciding_together(decision, followed.append), a_send(alice)
        gone.cancel()
        return await deciding_together(other.decision)

    assert not asyncio.run(asyncio.wait_for(hang_up(), WAIT_SECONDS_MAX)).repeated
    assert len(followed) == 1
    assert len(read_stream(message_id_for(alice, "k"))) == 1
    assert tokens(alice) == 3800


@pytest.mark.parametrize("error", [ZeroDivisionError, StopIteration])
def test_a_decision_that_raises_what_nobody_foresaw_fails_alone_on_a_loop_too(
    alice: UUID, error: type[Exception]
) -> None:
    async def ask() -> list[Any]:
        loop = asyncio.get_running_loop()
        broken = Command(_raising(error), loop.create_future())
        other = Command(a_send(alice).decision, loop.create_future())
        await asyncio.to_thread(_apart, broken, other)
        return list(await asyncio.gather(broken.done, other.done, return_exceptions=True))  # type: ignore[arg-type]  # asyncio's

    failed, accepted = asyncio.run(asyncio.wait_for(ask(), WAIT_SECONDS_MAX))
    assert isinstance(failed, error | RuntimeError)
    assert not accepted.repeated


def _apart(*batch: Command[Any]) -> None:
    try:
        to_rest(batch)
    finally:
        connection.close()
