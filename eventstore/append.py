"""The one place where events enter the log.

Positions are numbered under a lock that is held until the commit, so that commit order and position
order are the same and a follower never passes a position that appears later. `at` is stamped there
too: the later of the last event's and the database's clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from django.db import IntegrityError, connection, transaction
from eventsourcing.persistence import IntegrityError as VersionConflict
from eventsourcing.persistence import StoredEvent

from eventstore.cause import Cause
from eventstore.clock import database_clock

#: The key of PostgreSQL's advisory lock around every append ("chatledg" in ASCII).
APPEND_LOCK = 0x63686174_6C656467

#: Where the log announces its last position.
APPENDED_CHANNEL = "chatledger_appended"


@dataclass(frozen=True, slots=True)
class Job:
    """Events that are stored together or not at all.

    `announced` wakes the followers at once. Where nobody is owed a look at the effect yet, the
    next announcement, or the followers' own look once a second, is soon enough.
    """

    events: Sequence[StoredEvent]
    cause: Cause
    announced: bool = True


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another writer has stored one of a job's versions: nothing of the job is in the log."""

    stream_id: UUID
    version: int


#: What became of a job: the position of its last event, or a conflict.
Outcome = int | Conflict


def take_append_lock() -> None:
    """Make other writers wait until this transaction ends, as SQLite's transaction does itself."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [APPEND_LOCK])


def append(jobs: Sequence[Job]) -> list[Outcome]:
    """Store the jobs in their order, each wholly or not at all, and say what became of each.

    On PostgreSQL this is one round trip; on SQLite the caller holds the transaction.
    """
    if connection.vendor == "postgresql":
        return _append_postgres(jobs)
    return _append_sqlite(jobs)


def append_here(job: Job) -> int:
    """Store one job in the caller's transaction, or raise `VersionConflict` with nothing stored."""
    with transaction.atomic():  # a savepoint: SQLite would keep half of a job that failed
        (outcome,) = append([job])
        if isinstance(outcome, Conflict):
            raise conflict_error(outcome)
    return outcome


def conflict_error(conflict: Conflict) -> VersionConflict:
    """The library's error for a version that another writer has stored."""
    return VersionConflict(f"stream {conflict.stream_id} has moved past version {conflict.version}")


def _append_postgres(jobs: Sequence[Job]) -> list[Outcome]:
    rows = [
        (number, event, job.cause) for number, job in enumerate(jobs, 1) for event in job.events
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT chatledger_append(%s::int[], %s::uuid[], %s::int[], %s::text[], %s::bytea[],"
            " %s::uuid[], %s::text[], %s::text[], %s::uuid[], %s)",
            [
                [number for number, _, _ in rows],
                [event.originator_id for _, event, _ in rows],
                [event.originator_version for _, event, _ in rows],
                [event.topic for _, event, _ in rows],
                [event.state for _, event, _ in rows],
                [uuid4() for _ in rows],
                [cause.actor for _, _, cause in rows],
                [cause.request_id for _, _, cause in rows],
                [cause.causation_id for _, _, cause in rows],
                any(job.announced for job in jobs),
            ],
        )
        (positions,) = cursor.fetchone()
    return [
        position if position is not None else _conflict(job)
        for job, position in zip(jobs, positions, strict=True)
    ]


_INSERT_SQLITE = (
    "INSERT INTO eventstore_event (position, stream_id, version, topic, data, at, event_id, actor,"
    " request_id, causation_id) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
)


def _append_sqlite(jobs: Sequence[Job]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with connection.cursor() as cursor:
        cursor.execute("SELECT position, at FROM eventstore_event ORDER BY position DESC LIMIT 1")
        last, last_at = cursor.fetchone() or (0, 0)
        at = max(last_at, database_clock(cursor))
        for job in jobs:
            cursor.execute("SAVEPOINT job")
            try:
                cursor.executemany(
                    _INSERT_SQLITE,
                    [
                        _sqlite_row(last + offset, at, event, job.cause)
                        for offset, event in enumerate(job.events, 1)
                    ],
                )
            except IntegrityError as error:
                cursor.execute("ROLLBACK TO job")
                if "stream_id" not in str(error):
                    raise
                outcomes.append(_conflict(job))
            else:
                last += len(job.events)
                outcomes.append(last)
            cursor.execute("RELEASE job")
    return outcomes


def _sqlite_row(position: int, at: int, event: StoredEvent, cause: Cause) -> tuple[Any, ...]:
    stream_id = event.originator_id
    return (
        position,
        stream_id.hex if isinstance(stream_id, UUID) else stream_id,
        event.originator_version,
        event.topic,
        event.state,
        at,
        uuid4().hex,
        cause.actor,
        cause.request_id,
        cause.causation_id.hex if cause.causation_id else None,
    )


def _conflict(job: Job) -> Conflict:
    first = job.events[0]
    return Conflict(first.originator_id, first.originator_version)  # type: ignore[arg-type]  # UUIDs here
