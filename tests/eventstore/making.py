"""Stored events for tests of the log itself."""

from uuid import UUID, uuid4

from django.db import connection
from eventsourcing.persistence import StoredEvent

from eventstore.append import Job, Outcome, append
from eventstore.cause import Cause
from eventstore.database import writing

CAUSE = Cause("user:alice", "request-1")


def events(stream_id: UUID | None = None, *, first: int = 1, count: int = 1) -> list[StoredEvent]:
    """Consecutive events of one stream."""
    stream = stream_id or uuid4()
    return [
        StoredEvent(stream, version, "chatledger.tests.Happened", b'{"n":%d}' % version)
        for version in range(first, first + count)
    ]


def append_jobs(*jobs: list[StoredEvent]) -> list[Outcome]:
    """Append jobs the way the shared writer does."""
    prepared = [Job(job, CAUSE) for job in jobs]
    if connection.vendor == "sqlite":
        with writing():
            return append(prepared)
    return append(prepared)
