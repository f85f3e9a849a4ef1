"""Pending: messages that have not ended, for the sweeper and for whoever has to end them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from eventstore.reading import (
    READ_MAX,
    RecordedEvent,
    as_uuid,
    id_parameter,
    max_position,
    read_events,
    read_stream,
)
from projections.models import PendingMessage
from projections.projection import Projection, on
from projections.table import Table, Write

SENT = "chatledger.conversations.MessageSent"
ENDS = (
    "chatledger.conversations.ResponseGenerated",
    "chatledger.conversations.ResponseCancelled",
    "chatledger.conversations.ResponseFailed",
)


class Pending(Projection):
    """A row a message from its sending to its end."""

    name = "pending"
    version = 1
    table = Table(PendingMessage)

    add = table.insert("user_id", "conversation_id", "sent_at", "deadline_at")
    remove = table.delete()

    def __init__(self) -> None:
        self.sent_now: dict[str, tuple[Any, ...]] = {}
        self.ended: list[tuple[str]] = []

    @on(SENT)
    def sent(self, event: RecordedEvent) -> None:
        data, message_id, at = event.data, event.stream_digits, event.at
        deadline_at = at + data["deadline_seconds"] * 1_000_000
        row = (message_id, data["user_id"], data["conversation_id"], at, deadline_at)
        self.sent_now[message_id] = row

    @on(*ENDS)
    def has_ended(self, event: RecordedEvent) -> None:
        message_id = event.stream_digits
        if self.sent_now.pop(message_id, None) is None:
            self.ended.append((message_id,))

    def writes(self) -> Iterator[Write]:
        yield Write(self.add, list(self.sent_now.values()))
        yield Write(self.remove, self.ended)


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A message that has not ended; times in microseconds since the epoch, UTC."""

    message_id: UUID
    user_id: UUID
    sent_at: int
    deadline_at: int


#: Beyond any time that an event can carry.
EVER = 2**62


def due(now: int, limit: int, after: PendingRow | None = None) -> list[PendingRow]:
    """At most `limit` messages that have not ended at their deadline, oldest first.

    With `EVER` as `now` all that are pending; `after` goes on behind a row of an earlier page.
    """
    behind = (
        (after.sent_at, id_parameter(after.message_id)) if after else (-1, id_parameter(_FIRST))
    )
    with connection.cursor() as cursor:
        cursor.execute(_DUE, [*behind, now, limit])
        return [
            PendingRow(as_uuid(message_id), as_uuid(user_id), sent_at, deadline_at)
            for message_id, user_id, sent_at, deadline_at in cursor.fetchall()
        ]


@dataclass(frozen=True, slots=True)
class InFlight:
    """Messages that have not ended, and those that have without the read models showing it yet."""

    pending: set[UUID]
    just_ended: set[UUID]


def in_flight_of_conversation(conversation_id: UUID) -> InFlight:
    """The messages of a conversation that are in flight by the log, however far the rows are.

    Exact for the log as it is at the call: a caller that decides by it holds the append lock, or
    appends to a stream to which sends append too.
    """
    return _in_flight_of("conversation_id", conversation_id)


def in_flight_of_user(user_id: UUID) -> InFlight:
    """The same for all messages of a user."""
    return _in_flight_of("user_id", user_id)


def _in_flight_of(owner: str, owner_id: UUID) -> InFlight:
    just_ended: set[UUID] = set()
    position, pending, doubtful = _as_projected(owner, owner_id)
    pending |= {message_id for message_id in doubtful if _is_pending(message_id, owner, owner_id)}
    last = max_position()
    while position < last and (events := read_events(position, READ_MAX, last)):
        for event in events:
            if event.topic == SENT and event.data.get(owner) == str(owner_id):
                pending.add(event.stream_id)
            elif event.topic in ENDS and event.stream_id in pending:
                pending.remove(event.stream_id)
                just_ended.add(event.stream_id)
        position = events[-1].position
    return InFlight(pending, just_ended)


def _as_projected(owner: str, owner_id: UUID) -> tuple[int, set[UUID], set[UUID]]:
    """How far the rows are, which messages they name, and which only the log can tell about.

    One statement, so that the rows are those of the position.
    """
    with connection.cursor() as cursor:
        cursor.execute(_AS_PROJECTED.format(owner=owner), [id_parameter(owner_id)])
        rows = cursor.fetchall()
    named: dict[bool, set[UUID]] = {False: set(), True: set()}
    for _, message_id, is_doubtful in rows:
        if message_id is not None:
            named[bool(is_doubtful)].add(as_uuid(message_id))
    position = rows[0][0] if rows else 0
    return position, named[False] - named[True], named[True]


def _is_pending(message_id: UUID, owner: str, owner_id: UUID) -> bool:
    events = read_stream(message_id)
    return [event.topic for event in events] == [SENT] and (
        events[0].data.get(owner) == str(owner_id)
    )


_DUE = """
SELECT message_id, user_id, sent_at, deadline_at FROM projections_pending
WHERE generation = (SELECT generation FROM projections_pointer WHERE name = 'pending')
  AND (sent_at, message_id) > (%s, %s) AND deadline_at <= %s
ORDER BY sent_at, message_id LIMIT %s
"""
_FIRST = UUID(int=0)

# No index by conversation or user: each send and each end would pay for it, and the table holds
# only what is in flight. Doubtful are parked messages, and rows without a conversation.
_LIVE = """
FROM projections_pointer pointer JOIN projections_position place
  ON place.name = pointer.name AND place.generation = pointer.generation"""
_AS_PROJECTED = f"""
SELECT place.position, pending.message_id, pending.{{owner}} IS NULL {_LIVE}
LEFT JOIN projections_pending pending
  ON pending.generation = pointer.generation
 AND (pending.{{owner}} = %s OR pending.{{owner}} IS NULL)
WHERE pointer.name = 'pending'
UNION ALL
SELECT place.position, parked.stream_id, TRUE {_LIVE}
JOIN projections_parked parked
  ON parked.projection = pointer.name AND parked.generation = pointer.generation
WHERE pointer.name = 'pending'"""
