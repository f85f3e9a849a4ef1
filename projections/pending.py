"""Pending: messages that have not ended, for the sweeper."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection

from eventstore.reading import RecordedEvent, as_uuid
from projections.models import PendingMessage
from projections.projection import Projection, on
from projections.table import Table, Write


class Pending(Projection):
    """A row a message from its sending to its end."""

    name = "pending"
    version = 1
    table = Table(PendingMessage)

    add = table.insert("user_id", "sent_at", "deadline_at")
    remove = table.delete()

    def __init__(self) -> None:
        self.sent_now: dict[UUID, tuple[Any, ...]] = {}
        self.ended: list[tuple[UUID]] = []

    @on("chatledger.conversations.MessageSent")
    def sent(self, event: RecordedEvent) -> None:
        deadline_at = event.at + event.data["deadline_seconds"] * 1_000_000
        self.sent_now[event.stream_id] = (
            event.stream_id,
            event.data["user_id"],
            event.at,
            deadline_at,
        )

    @on("chatledger.conversations.ResponseGenerated", "chatledger.conversations.ResponseFailed")
    def has_ended(self, event: RecordedEvent) -> None:
        if self.sent_now.pop(event.stream_id, None) is None:
            self.ended.append((event.stream_id,))

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


def due(now: int, limit: int) -> list[PendingRow]:
    """At most `limit` pending messages that were sent at `now` or before, oldest first.

    What is past its deadline is among them: `deadline_at` says so.
    """
    with connection.cursor() as cursor:
        cursor.execute(_DUE, [now, limit])
        return [
            PendingRow(as_uuid(message_id), as_uuid(user_id), sent_at, deadline_at)
            for message_id, user_id, sent_at, deadline_at in cursor.fetchall()
        ]


_DUE = """
SELECT message_id, user_id, sent_at, deadline_at FROM projections_pending
WHERE generation = (SELECT generation FROM projections_pointer WHERE name = 'pending')
  AND sent_at <= %s
ORDER BY sent_at LIMIT %s
"""
