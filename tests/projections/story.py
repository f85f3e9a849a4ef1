"""Given / when / then for read models: facts go into the log, the runner follows, rows come out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from django.db import models
from eventsourcing.persistence import StoredEvent

from eventstore import keys
from eventstore.cause import Cause
from eventstore.clock import to_datetime
from eventstore.database import writing
from eventstore.encrypted import encrypt
from eventstore.models import DataKey, EventRecord
from eventstore.reading import read_events
from eventstore.recorder import LogRecorder
from projections.models import Pointer
from projections.runner import ProjectionRunner

ALICE = UUID("a11ce000-0000-4000-8000-000000000001")
CAROL = UUID("ca401000-0000-4000-8000-000000000005")
NOBODY = UUID("0b0d1000-0000-4000-8000-000000000006")
BOB = UUID("b0b00000-0000-4000-8000-000000000002")
HELLO = UUID("4e110000-0000-4000-8000-000000000003")
TALK = UUID("7a1c0000-0000-4000-8000-000000000004")
CHAT = UUID("c4a70000-0000-4000-8000-000000000007")
STEPS_MAX = 1_000


@dataclass(frozen=True)
class Personal:
    """Text that is stored encrypted under a key."""

    text: str
    key_id: UUID


@dataclass(frozen=True)
class Fact:
    """An event as a story tells it: its stream, its kind, and what it says."""

    stream_id: UUID
    topic: str
    said: dict[str, Any]


def registered(user: UUID, username: str = "alice") -> Fact:
    name = Personal(username, user)
    said = {"username": name, "default_conversation_id": str(TALK)}
    return Fact(user, "chatledger.accounts.UserRegistered", said)


def granted(user: UUID, amount: Any) -> Fact:
    said = {"amount": amount, "reason": Personal("signup", user), "grant_id": None}
    return Fact(user, "chatledger.accounts.TokensGranted", said)


def debited(user: UUID, amount: Any, message: UUID = HELLO) -> Fact:
    said = {"amount": amount, "message_id": str(message)}
    return Fact(user, "chatledger.accounts.TokensDebited", said)


def refunded(user: UUID, amount: int, message: UUID = HELLO) -> Fact:
    said = {"amount": amount, "message_id": str(message), "reason": "deadline"}
    return Fact(user, "chatledger.accounts.TokensRefunded", said)


def started(conversation: UUID = TALK, title: str | None = None, user: UUID = ALICE) -> Fact:
    said = {"user_id": str(user), "title": _personal(title, conversation)}
    return Fact(conversation, "chatledger.conversations.ConversationStarted", said)


def renamed(conversation: UUID = TALK, title: str = "weather", user: UUID = ALICE) -> Fact:
    said = {"user_id": str(user), "title": Personal(title, conversation)}
    return Fact(conversation, "chatledger.conversations.ConversationRenamed", said)


def deleted(conversation: UUID = TALK, user: UUID = ALICE) -> Fact:
    said = {"user_id": str(user)}
    return Fact(conversation, "chatledger.conversations.ConversationDeleted", said)


def sent(
    message: UUID = HELLO,
    text: str = "hello",
    user: UUID = ALICE,
    conversation: UUID = TALK,
    **said: Any,
) -> Fact:
    what = _of(user, conversation) | {
        "message": Personal(text, conversation),
        "price": 100,
        "usage_prices": None,
        "deadline_seconds": 90,
    }
    return Fact(message, "chatledger.conversations.MessageSent", what | said)


def generated(
    message: UUID = HELLO,
    response: str | None = "hi",
    user: UUID = ALICE,
    conversation: UUID = TALK,
    **said: Any,
) -> Fact:
    what = _of(user, conversation) | {
        "response": _personal(response, conversation),
        "cost": 100,
        "usage": None,
        "attempt": 1,
        "model": "dummy",
    }
    return Fact(message, "chatledger.conversations.ResponseGenerated", what | said)


def cancelled(
    message: UUID = HELLO,
    response: str | None = "so fa",
    user: UUID = ALICE,
    conversation: UUID = TALK,
    **said: Any,
) -> Fact:
    what = _of(user, conversation) | {
        "response": _personal(response, conversation),
        "cost": 0 if response is None else 100,
        "usage": None,
        "attempt": 1,
    }
    return Fact(message, "chatledger.conversations.ResponseCancelled", what | said)


def failed(
    message: UUID = HELLO,
    reason: str = "deadline",
    user: UUID = ALICE,
    conversation: UUID = TALK,
) -> Fact:
    said = _of(user, conversation) | {"reason": reason, "cost": 0}
    return Fact(message, "chatledger.conversations.ResponseFailed", said)


def messages(count: int, *, first: int = 1) -> Iterator[UUID]:
    """Ids of messages, always the same ones."""
    return (UUID(int=(0x3E55A6E << 96) + number) for number in range(first, first + count))


def conversations(count: int) -> Iterator[UUID]:
    """Ids of conversations, always the same ones."""
    return (UUID(int=(0x7A1C << 96) + number) for number in range(1, count + 1))


def happened(*facts: Fact) -> int:
    """Append facts to the log in one append; the position of the last."""
    versions: dict[UUID, int] = {}
    stored = []
    for fact in facts:
        if fact.stream_id not in versions:
            of_stream = EventRecord.objects.filter(stream_id=fact.stream_id)
            versions[fact.stream_id] = of_stream.count()
        versions[fact.stream_id] += 1
        stored.append(_stored(fact, versions[fact.stream_id]))
    with writing():  # not through the shared writer: its thread would outlive the test
        return LogRecorder().insert_events(stored, cause=Cause("shell"))[-1]


def projected(*facts: Fact) -> None:
    """Append facts and let the runner catch up with them, each fact in a batch of its own."""
    runner = ProjectionRunner()
    for fact in facts:
        happened(fact)
        drain(runner)


def told(*facts: Fact, together: bool) -> None:
    """Append facts and let the runner catch up with them, in one batch or in one each."""
    if together:
        happened(*facts)
        drain(ProjectionRunner())
    else:
        projected(*facts)


def broken(fact: Fact) -> Fact:
    """A fact without what it should say."""
    return Fact(fact.stream_id, fact.topic, {})


def drain(runner: ProjectionRunner) -> int:
    """Step until there is nothing to do; how many steps there were."""
    for step in range(STEPS_MAX):
        if not runner.step():
            return step
    raise AssertionError("the runner never came to rest")


def moment(position: int) -> datetime:
    """When an event happened."""
    (event,) = read_events(position - 1, upto=position)
    return to_datetime(event.at)


def rows(model: type[models.Model], name: str, *columns: str) -> list[Any]:
    """Columns of a live read model, sorted."""
    generation = Pointer.objects.get(name=name).generation
    found = model._default_manager.filter(generation=generation).values_list(
        *columns, flat=len(columns) == 1
    )
    return sorted(found, key=str)


def read(texts: Sequence[bytes | None]) -> list[str | None]:
    """Texts of a read model, decrypted."""
    return keys.read_texts(texts)


def _of(user: UUID, conversation: UUID) -> dict[str, Any]:
    return {"user_id": str(user), "conversation_id": str(conversation)}


def _personal(text: str | None, key_id: UUID) -> Personal | None:
    return None if text is None else Personal(text, key_id)


def _stored(fact: Fact, version: int) -> StoredEvent:
    said = {}
    for name, value in fact.said.items():
        if isinstance(value, Personal):
            if not DataKey.objects.filter(id=value.key_id).exists():
                keys.create_key(value.key_id)
            said[name] = encrypt(
                value.text,
                keys.cipher(value.key_id),
                key_id=value.key_id,
                stream_id=fact.stream_id,
                version=version,
                topic=fact.topic,
                field=name,
            )
        else:
            said[name] = value
    return StoredEvent(fact.stream_id, version, fact.topic, msgspec.json.encode(said))
