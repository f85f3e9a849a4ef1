"""The library's recorders on Django's own connection, on SQLite and PostgreSQL alike.

What the library itself stores is a transaction of its own, or part of the caller's.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from django.db import DatabaseError, connection, transaction
from django.db import IntegrityError as DjangoIntegrityError
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    IntegrityError,
    Notification,
    OperationalError,
    StoredEvent,
    Subscription,
)

from eventstore.append import Job, append_here, take_append_lock
from eventstore.cause import Cause
from eventstore.database import writing
from eventstore.marker import appended
from eventstore.models import EventRecord, SnapshotRecord
from eventstore.reading import as_uuid, id_parameter

#: The cause of events that are appended without one.
NO_CAUSE = Cause(actor="")


class StreamReader(AggregateRecorder):
    """Reads one stream of a table that is laid out as the log is."""

    table: str

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        clauses = ["stream_id = %s"]
        parameters: list[Any] = [id_parameter(originator_id)]
        if gt is not None:
            clauses.append("version > %s")
            parameters.append(gt)
        if lte is not None:
            clauses.append("version <= %s")
            parameters.append(lte)
        end = " ORDER BY version DESC" if desc else " ORDER BY version"
        if limit is not None:
            end += " LIMIT %s"
            parameters.append(limit)
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT stream_id, version, topic, data FROM {self.table}"  # noqa: S608 (constants)
                f" WHERE {' AND '.join(clauses)}{end}",
                parameters,
            )
            return [
                StoredEvent(as_uuid(stream), version, topic, bytes(data))
                for stream, version, topic, data in cursor.fetchall()
            ]


class LogRecorder(StreamReader, ApplicationRecorder):
    """The log as the library sees it."""

    table = "eventstore_event"

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        cause: Cause = NO_CAUSE,
        announced: bool = True,
        **_: Any,
    ) -> Sequence[int]:
        """Store the events together or not at all; returns their positions.

        Raises the library's `IntegrityError` when a version is taken.
        """
        if not stored_events:
            return []
        job = Job(stored_events, cause, announced)
        with writing():
            take_append_lock()
            last = append_here(job)
        transaction.on_commit(partial(appended.advance, last))
        return list(range(last - len(stored_events) + 1, last + 1))

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        rows = EventRecord.objects.order_by("position")
        if start is not None:
            bound = "gte" if inclusive_of_start else "gt"
            rows = rows.filter(**{f"position__{bound}": start})
        if stop is not None:
            rows = rows.filter(position__lte=stop)
        if topics:
            rows = rows.filter(topic__in=topics)
        return [
            Notification(stream_id, version, topic, bytes(data), position)
            for stream_id, version, topic, data, position in rows.values_list(
                "stream_id", "version", "topic", "data", "position"
            )[:limit]
        ]

    def max_notification_id(self) -> int | None:
        return EventRecord.objects.order_by("-position").values_list("position", flat=True).first()

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        return LogSubscription(self, gt, topics)


class LogSubscription(Subscription[ApplicationRecorder]):
    """The log as an iterator that waits for what comes; it looks at least once a second."""

    POLL_SECONDS = 1.0

    def __next__(self) -> Notification:
        while not self._has_been_stopped:
            position = self._last_notification_id or 0
            found = self._recorder.select_notifications(
                start=position, limit=1, topics=self._topics, inclusive_of_start=False
            )
            if found:
                self._last_notification_id = found[0].id
                return found[0]
            appended.wait(max(appended.value, position) + 1, self.POLL_SECONDS)
        raise StopIteration


class SnapshotRecorder(StreamReader):
    """Snapshots, one row a stream and version."""

    table = "eventstore_snapshot"

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> None:
        rows = [
            SnapshotRecord(
                stream_id=event.originator_id,
                version=event.originator_version,
                topic=event.topic,
                data=event.state,
            )
            for event in stored_events
        ]
        try:
            with writing():
                SnapshotRecord.objects.bulk_create(rows)
        except DjangoIntegrityError as error:
            raise IntegrityError(str(error)) from error
        except DatabaseError as error:
            raise OperationalError(str(error)) from error
