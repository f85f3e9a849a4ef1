"""A log of realistic mix, stored in bulk: what a million events of a busy service look like.

For every hundred sends a few registrations, conversations and grants; nearly every send is debited,
sent and answered, some fail and are refunded. Ends come a little later than what they end, as they
do where several people write. Texts have real sizes; their bytes are random, since nothing that is
measured on this log decrypts any.
"""

import os
import random
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from eventstore.encrypted import NONCE_BYTES

#: AES-GCM's tag, behind each ciphertext.
TAG_BYTES = 16
USERNAME_BYTES, TITLE_BYTES, REASON_BYTES = 8, 20, 12
MESSAGE_BYTES, RESPONSE_BYTES = 60, 200
#: Of a hundred sends.
REGISTRATIONS, CONVERSATIONS, GRANTS, FAILURES = 3, 5, 2, 4
#: Users to start with, and messages that are in flight together.
FIRST_USERS, IN_FLIGHT = 100, 8
STORED_EVENTS = 20_000
STARTED_AT = 1_780_000_000_000_000

Row = tuple[Any, ...]


def fill(events: int) -> int:
    """Store so many events in the database of this process's settings; the last position."""
    return store(islice(Story().rows(), events))


def store(rows: Iterator[Row]) -> int:
    """Store rows of a story, in order; the last position."""
    from django.db import connection

    while batch := list(islice(rows, STORED_EVENTS)):
        if connection.vendor == "sqlite":
            _insert(batch)
        else:
            _copy(batch)
        last = batch[-1][0]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return int(last)


class Story:
    """The rows of the log's table, in order, without an end; ids as hex digits."""

    def __init__(self) -> None:
        self.dice = random.Random(4)
        self.position = 0
        self.versions: dict[str, int] = {}
        self.users: list[tuple[str, list[str]]] = []
        self.in_flight: deque[tuple[str, str, str]] = deque()

    def rows(self) -> Iterator[Row]:
        for _ in range(FIRST_USERS):
            yield from self.register()
        while True:
            yield from self.send()
            if self.in_a_hundred(REGISTRATIONS):
                yield from self.register()
            if self.in_a_hundred(CONVERSATIONS):
                yield from self.start(*self.dice.choice(self.users))
            if self.in_a_hundred(GRANTS):
                yield from self.grant()
            while len(self.in_flight) > self.dice.randrange(IN_FLIGHT + 1):
                yield from self.end()

    def rest(self) -> Iterator[Row]:
        """What is left to be said, so that nothing of the story is pending, wherever it was cut."""
        while self.in_flight:
            yield from self.end()

    def in_a_hundred(self, times: int) -> bool:
        return self.dice.randrange(100) < times

    def register(self) -> Iterator[Row]:
        user, default, anybody = self.id(), self.id(), "anonymous"
        name = mark(user, USERNAME_BYTES)
        said = {"username": name, "default_conversation_id": dashed(default)}
        yield self.row(user, "accounts.UserRegistered", said, anybody)
        granted = {"amount": 1_000_000_000, "reason": mark(user, REASON_BYTES), "grant_id": None}
        yield self.row(user, "accounts.TokensGranted", granted, anybody)
        claimed = {"user_id": dashed(user)}
        yield self.row(self.id(), "accounts.UsernameClaimed", claimed, anybody)
        self.users.append((user, []))

    def start(self, user: str, conversations: list[str]) -> Iterator[Row]:
        conversation = self.id()
        said = {"user_id": dashed(user), "title": mark(conversation, TITLE_BYTES)}
        actor = f"user:{dashed(user)}"
        yield self.row(conversation, "conversations.ConversationStarted", said, actor)
        conversations.append(conversation)

    def grant(self) -> Iterator[Row]:
        user, _ = self.dice.choice(self.users)
        grant = dashed(self.id())
        said = {"amount": 500, "reason": mark(user, REASON_BYTES), "grant_id": grant}
        yield self.row(user, "accounts.TokensGranted", said, f"staff:{grant}")

    def send(self) -> Iterator[Row]:
        user, conversations = self.dice.choice(self.users)
        if not conversations:
            yield from self.start(user, conversations)
        message, conversation = self.id(), self.dice.choice(conversations)
        actor = f"user:{dashed(user)}"
        debited = {"amount": 100, "message_id": dashed(message)}
        yield self.row(user, "accounts.TokensDebited", debited, actor)
        said = {
            "user_id": dashed(user),
            "conversation_id": dashed(conversation),
            "message": mark(conversation, MESSAGE_BYTES),
            "price": 100,
            "usage_prices": None,
            "deadline_seconds": 90,
        }
        self.in_flight.append((user, conversation, message))
        yield self.row(message, "conversations.MessageSent", said, actor)

    def end(self) -> Iterator[Row]:
        user, conversation, message = self.in_flight.popleft()
        said: dict[str, Any]
        said = {"user_id": dashed(user), "conversation_id": dashed(conversation)}
        if self.in_a_hundred(FAILURES):
            said |= {"reason": "responder", "cost": 0}
            yield self.row(message, "conversations.ResponseFailed", said, "worker")
            refunded = {"amount": 100, "message_id": dashed(message), "reason": "responder"}
            yield self.row(user, "accounts.TokensRefunded", refunded, "worker")
        else:
            response = mark(conversation, RESPONSE_BYTES)
            said |= {"response": response, "cost": 100, "usage": None, "attempt": 1}
            said |= {"model": "dummy"}
            yield self.row(message, "conversations.ResponseGenerated", said, "worker")

    def row(self, stream: str, topic: str, said: dict[str, Any], actor: str) -> Row:
        self.position += 1
        self.versions[stream] = version = self.versions.get(stream, 0) + 1
        at = STARTED_AT + self.position * 900
        causation = self.id() if actor == "worker" else None
        ids = (self.id(), actor, self.id(), causation)
        topic = f"chatledger.{topic}"
        return (self.position, stream, version, topic, _encode(said), at, *ids)

    def id(self) -> str:
        return f"{self.dice.getrandbits(128):032x}"


def dashed(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def mark(key: str, text_bytes: int) -> dict[str, str]:
    """What stands for an encrypted text in an event's data."""
    box = os.urandom(NONCE_BYTES + text_bytes + TAG_BYTES)
    return {"key": dashed(key), "box": b64encode(box).decode()}


_encode = msgspec.json.Encoder().encode
_COLUMNS = (
    "position", "stream_id", "version", "topic", "data", "at", "event_id", "actor", "request_id",
    "causation_id",
)  # fmt: skip


def _insert(rows: list[Row]) -> None:
    from django.db import connection, transaction

    marks = ", ".join(["%s"] * len(_COLUMNS))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO eventstore_event ({', '.join(_COLUMNS)}) VALUES ({marks})", rows
        )


def _copy(rows: list[Row]) -> None:
    from django.db import connection

    connection.ensure_connection()
    raw: Any = connection.connection
    copy_in = f"COPY eventstore_event ({', '.join(_COLUMNS)}) FROM STDIN"
    with raw.cursor() as cursor, cursor.copy(copy_in) as copy:
        for row in rows:
            copy.write_row(row)
