"""The one place where events enter the log.

Positions are numbered under a lock that is held until the commit, so that commit order and position
order are the same and a follower never passes a position that appears later. `at` is stamped there
too: the later of the last event's and the database's clock.
"""

import functools
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, transaction
from eventsourcing.persistence import IntegrityError as VersionConflict
from eventsourcing.persistence import StoredEvent

from eventstore.cause import Cause
from eventstore.clock import database_clock
from eventstore.direct import array, execute

#: The key of PostgreSQL's advisory lock around every append ("chatledg" in ASCII).
APPEND_LOCK = 0x63686174_6C656467

#: Where the log announces its last position.
APPENDED_CHANNEL = "chatledger_appended"


@dataclass(frozen=True, slots=True)
class Job:
    """Events that are stored together or not at all.

    `announced` wakes the followers at once. Where nobody is owed a look at the effect yet, the
    next announcement, or the followers' own look once a second, is soon enough. `event_ids` tell
    these events from any others that may ever stand at the same versions.
    """

    events: Sequence[StoredEvent]
    cause: Cause
    announced: bool = True
    event_ids: Sequence[UUID] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "event_ids", [uuid4() for _ in self.events])


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another writer has stored one of a job's versions: nothing of the job is in the log."""

    stream_id: UUID
    version: int


#: An event, its id and its cause.
Row = tuple[StoredEvent, UUID, Cause]
#: Rows that one statement inserts at most, on SQLite.
ROWS_MAX = 500

#: What became of a job: the position of its last event, or a conflict.
Outcome = int | Conflict


def take_append_lock() -> None:
    """Make other writers wait until this transaction ends, as SQLite's transaction does itself."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [APPEND_LOCK])


def append(jobs: Sequence[Job]) -> list[Outcome]:
    """Store the jobs in their order, each wholly or not at all, and say what became of each.

    Jobs that write to one stream build on each other: they are stored together or not at all. On
    PostgreSQL this is one round trip; on SQLite the caller holds the transaction.
    """
    groups = _groups(jobs)
    store = _append_postgres if connection.vendor == "postgresql" else _append_sqlite
    outcomes: dict[int, Outcome] = {}
    rows = [[row for number in group for row in _rows(jobs[number])] for group in groups]
    positions = store(rows, announced=any(job.announced for job in jobs))
    for group, last in zip(groups, positions, strict=True):
        behind = 0
        for number in reversed(group):
            job = jobs[number]
            outcomes[number] = _conflict(job) if last is None else last - behind
            behind += len(job.events)
    return [outcomes[number] for number in range(len(jobs))]


def _groups(jobs: Sequence[Job]) -> list[list[int]]:
    """The jobs by number, those together that write to one stream, directly or by way of others."""
    first_of: dict[Any, int] = {}
    root = list(range(len(jobs)))

    def root_of(number: int) -> int:
        while root[number] != number:
            number = root[number]
        return number

    for number, job in enumerate(jobs):
        for event in job.events:
            one, other = root_of(first_of.setdefault(event.originator_id, number)), root_of(number)
            root[max(one, other)] = min(one, other)
    groups: dict[int, list[int]] = {}
    for number in range(len(jobs)):
        groups.setdefault(root_of(number), []).append(number)
    return list(groups.values())


def _rows(job: Job) -> list[Row]:
    return [(*each, job.cause) for each in zip(job.events, job.event_ids, strict=True)]


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


def _append_postgres(groups: Sequence[Sequence[Row]], *, announced: bool) -> Sequence[int | None]:
    rows = [(number, *row) for number, group in enumerate(groups, 1) for row in group]
    ((positions,),) = execute(
        "SELECT chatledger_append(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            array("int", [number for number, _, _, _ in rows]),
            array("uuid", [event.originator_id for _, event, _, _ in rows]),
            array("int", [event.originator_version for _, event, _, _ in rows]),
            array("text", [event.topic for _, event, _, _ in rows]),
            array("bytea", [event.state for _, event, _, _ in rows]),
            array("uuid", [event_id for _, _, event_id, _ in rows]),
            array("text", [cause.actor for _, _, _, cause in rows]),
            array("text", [cause.request_id for _, _, _, cause in rows]),
            array("uuid", [cause.causation_id for _, _, _, cause in rows]),
            announced,
        ],
    )
    return list(positions)


def _append_sqlite(groups: Sequence[Sequence[Row]], *, announced: bool) -> Sequence[int | None]:
    # The statements go to the driver as they are: Django's cursor would cost as much as they do.
    raw: Any = connection.connection
    with connection.wrap_database_errors:
        newest = "SELECT position, at FROM eventstore_event ORDER BY position DESC LIMIT 1"
        last, last_at = raw.execute(newest).fetchone() or (0, 0)
        at = max(last_at, database_clock(raw))
        if _insert_sqlite(raw, last, at, [row for group in groups for row in group]):
            return [last := last + len(group) for group in groups]
        # One of the groups has lost a race: each alone, so that it takes nobody along.
        positions: list[int | None] = []
        for group in groups:
            stored = _insert_sqlite(raw, last, at, group)
            last += len(group) if stored else 0
            positions.append(last if stored else None)
        return positions


def _insert_sqlite(raw: Any, last: int, at: int, rows: Sequence[Row]) -> bool:
    """Insert the rows behind position `last`; False, and nothing is done, if a version is taken."""
    raw.execute("SAVEPOINT rows")
    try:
        for start in range(0, len(rows), ROWS_MAX):
            some = enumerate(rows[start : start + ROWS_MAX], last + start + 1)
            values = [_sqlite_row(position, at, *row) for position, row in some]
            # One statement: the driver lets other threads run, and waits for its turn, at each.
            raw.execute(_inserting(len(values)), [each for row in values for each in row])
    except sqlite3.IntegrityError as error:
        raw.execute("ROLLBACK TO rows")
        if "stream_id" not in str(error):
            raise
        return False
    finally:
        raw.execute("RELEASE rows")
    return True


@functools.lru_cache(ROWS_MAX)
def _inserting(rows: int) -> str:
    columns = (
        "position, stream_id, version, topic, data, at, event_id, actor, request_id, causation_id"
    )
    one = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    values = ", ".join([one] * rows)
    return f"INSERT INTO eventstore_event ({columns}) VALUES {values}"  # noqa: S608 (constants)


def _sqlite_row(
    position: int, at: int, event: StoredEvent, event_id: UUID, cause: Cause
) -> tuple[Any, ...]:
    stream_id = event.originator_id
    return (
        position,
        stream_id.hex if isinstance(stream_id, UUID) else stream_id,
        event.originator_version,
        event.topic,
        event.state,
        at,
        event_id.hex,
        cause.actor,
        cause.request_id,
        cause.causation_id.hex if cause.causation_id else None,
    )


def _conflict(job: Job) -> Conflict:
    first = job.events[0]
    return Conflict(first.originator_id, first.originator_version)  # type: ignore[arg-type]  # UUIDs here
