"""Commands for the shared writer, and what became of them; most are carried out in this thread."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError

from accounts.domain import Account
from conversations import commands
from conversations.commands import Accepted, SendMessage, message_id_for
from conversations.domain import Conversation, ConversationStarted
from eventstore import writer
from eventstore.append import Job, Outcome
from eventstore.cause import Cause
from eventstore.decisions import Append, Decision, View
from eventstore.domain import Refused
from eventstore.log import EventLog
from eventstore.reading import read_events, read_stream
from eventstore.writer import Command, SharedWriter
from tests.eventstore.making import CAUSE

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
