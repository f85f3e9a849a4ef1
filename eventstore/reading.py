"""Reading the log in order, as followers do: raw facts, personal text still encrypted."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection

from eventstore.clock import POSTGRES_NOW, database_clock
from eventstore.direct import Value, array, execute
from eventstore.encrypted import with_encrypted_texts

#: Events that one read returns at most.
READ_MAX = 500
#: Beyond every position that there can be.
POSITION_MAX = 2**63 - 1


class UnreadableEvent(ValueError):
    """What is stored as an event's data says nothing: no JSON, no object, or a broken mark."""


class RecordedEvent:
    """An event as followers see it: where it stands, who caused it, what it says.

    `at` counts microseconds since the epoch (UTC). In `data`, ids are strings and personal fields
    are `EncryptedText`, or None where the text was left out. What is stored is decoded when it is
    first asked for: so an event that cannot be read stops whoever needs it, not whoever passes it,
    and nobody pays for what he does not look at. `data` then raises `UnreadableEvent`.
    """

    __slots__ = (
        *("position", "_stream", "version", "topic", "at", "_event", "actor", "request_id"),
        *("_causation", "_data"),
    )

    def __init__(
        self,
        position: int,
        stream_id: UUID | str,
        version: int,
        topic: str,
        at: int,
        event_id: UUID | str,
        actor: str,
        request_id: str,
        causation_id: UUID | str | None,
        data: dict[str, Any] | bytes | memoryview,
    ) -> None:
        self.position = position
        self._stream = stream_id
        self.version = version
        self.topic = topic
        self.at = at
        self._event = event_id
        self.actor = actor
        self.request_id = request_id
        self._causation = causation_id
        self._data = data

    @property
    def stream_id(self) -> UUID:
        stream = self._stream
        if type(stream) is str:
            self._stream = stream = UUID(hex=stream)
        return stream  # type: ignore[return-value]  # a UUID by now

    @property
    def stream_digits(self) -> str:
        """The stream's id as 32 hex digits: where many ids are only passed on."""
        stream = self._stream
        return stream if type(stream) is str else stream.hex  # type: ignore[union-attr]  # or a UUID

    @property
    def event_id(self) -> UUID:
        return as_uuid(self._event)

    @property
    def causation_id(self) -> UUID | None:
        return None if self._causation is None else as_uuid(self._causation)

    @property
    def data(self) -> dict[str, Any]:
        data = self._data
        if type(data) is not dict:
            self._data = data = self._decoded(data)  # type: ignore[arg-type]  # bytes as long as it is no dict
        return data

    def _decoded(self, stored: bytes) -> dict[str, Any]:
        try:
            return with_encrypted_texts(
                _decode(stored), stream_id=self._stream, version=self.version, topic=self.topic
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnreadableEvent(
                f"the data of event {self.position} cannot be read ({error})"
            ) from error

    def __repr__(self) -> str:
        return f"<event {self.position}: {self.topic} of stream {self.stream_id}>"


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that is no event: nothing here writes one, so it was changed behind our back."""

    position: int


_COLUMNS = (
    "position, stream_id, version, topic, at, event_id, actor, request_id, causation_id, data"
)
_COLUMN_COUNT = len(_COLUMNS.split())
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def read_events(after: int, limit: int = READ_MAX, upto: int | None = None) -> list[RecordedEvent]:
    """The events behind position `after`, in order, at most `limit`, none beyond `upto`."""
    bound = "" if upto is None else " AND position <= %s"
    parameters = [after, limit] if upto is None else [after, upto, limit]
    rows = execute(
        f"SELECT {_COLUMNS} FROM eventstore_event WHERE position > %s{bound}"  # noqa: S608 (constants)
        " ORDER BY position LIMIT %s",
        parameters,
    )
    return [RecordedEvent(*row) for row in rows]


def read_each(
    after: int,
    limit: int = READ_MAX,
    upto: int | None = None,
    *,
    topic: str | None = None,
    stream_id: UUID | None = None,
) -> list[RecordedEvent | UnreadableRow]:
    """As `read_events`, for who looks at the log instead of following it.

    A row that is no event stands in its place as `UnreadableRow`, and stops nothing. With `topic`
    and `stream_id` only what fits; `upto` then bounds how much is looked through.
    """
    bounds: dict[str, Any] = {"position > %s": after}
    if upto is not None:
        bounds["position <= %s"] = upto
    if topic is not None:
        bounds["topic = %s"] = topic
    if stream_id is not None:
        bounds["stream_id = %s"] = stream_id
    rows = execute(
        f"SELECT {_COLUMNS} FROM eventstore_event WHERE {' AND '.join(bounds)}"  # noqa: S608 (constants)
        " ORDER BY position LIMIT %s",
        [*bounds.values(), limit],
    )
    return [_readable(row) for row in rows]


def read_stream(stream_id: UUID) -> list[RecordedEvent]:
    """All events of one stream, in order."""
    rows = execute(
        f"SELECT {_COLUMNS} FROM eventstore_event WHERE stream_id = %s ORDER BY version",  # noqa: S608 (constants)
        [stream_id],
    )
    return [RecordedEvent(*row) for row in rows]


def read_stream_after(
    stream_id: UUID, version: int, limit: int = READ_MAX, upto: int = POSITION_MAX
) -> list[RecordedEvent]:
    """The events of one stream behind a version, in order, at most `limit`.

    None stands beyond position `upto`.
    """
    rows = execute(
        f"SELECT {_COLUMNS} FROM eventstore_event"  # noqa: S608 (constants)
        " WHERE stream_id = %s AND version > %s AND position <= %s ORDER BY version LIMIT %s",
        [stream_id, version, upto, limit],
    )
    return [RecordedEvent(*row) for row in rows]


def read_streams(stream_ids: Collection[UUID], upto: int = POSITION_MAX) -> list[RecordedEvent]:
    """All events of some streams up to a position, in the order of the log.

    At most `READ_MAX` streams.
    """
    if not stream_ids:
        return []
    condition, values = any_of(stream_ids)
    rows = execute(
        f"SELECT {_COLUMNS} FROM eventstore_event WHERE stream_id {condition}"  # noqa: S608 (constants, marks)
        " AND position <= %s ORDER BY position",
        [*values, upto],
    )
    return [RecordedEvent(*row) for row in rows]


def read_each_from(versions: Mapping[UUID, int], *, limit: int) -> dict[UUID, list[RecordedEvent]]:
    """The events of some streams, each from a version on, in order and at most `limit` of each.

    One statement on PostgreSQL; on SQLite there is no round trip that it could save.
    """
    if connection.vendor == "sqlite":
        return {
            each: read_stream_after(each, version - 1, limit) for each, version in versions.items()
        }
    streams: dict[UUID, list[RecordedEvent]] = {each: [] for each in versions}
    rows = execute(
        # The limit keeps the planner at one short look into the index a stream.
        f"SELECT found.* FROM unnest(%s::uuid[], %s::int[]) AS wanted(id, least),"  # noqa: S608 (constants)
        f" LATERAL (SELECT {_COLUMNS} FROM eventstore_event"
        " WHERE stream_id = wanted.id AND version >= wanted.least"
        " ORDER BY version LIMIT %s) AS found",
        [array("uuid", list(versions.keys())), array("int", list(versions.values())), limit],
    )
    for row in rows:
        event = RecordedEvent(*row)
        streams[event.stream_id].append(event)
    return streams


def each_of_stream(stream_id: UUID, after: int = 0) -> Iterator[RecordedEvent]:
    """The events of one stream behind a version, in order, read a page at a time."""
    page = read_stream_after(stream_id, after)
    yield from page
    while len(page) == READ_MAX:
        page = read_stream_after(stream_id, page[-1].version)
        yield from page


def each_of_topics(topics: Collection[str]) -> Iterator[RecordedEvent]:
    """All events of some kinds, in the order of the log, in one pass and a page at a time."""
    marks = ", ".join(["%s"] * len(topics))
    with connection.chunked_cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM eventstore_event WHERE topic IN ({marks})"  # noqa: S608 (marks)
            " ORDER BY position",
            list(topics),
        )
        while page := cursor.fetchmany(READ_MAX):
            yield from (RecordedEvent(*row) for row in page)


def read_stream_now(stream_id: UUID) -> tuple[list[RecordedEvent], int]:
    """All events of one stream, and the time by the clock that stamps them, in one statement."""
    streams, now = read_streams_now([stream_id])
    return streams[stream_id], now


def read_streams_now(
    stream_ids: Collection[UUID],
) -> tuple[dict[UUID, list[RecordedEvent]], int]:
    """As `read_stream_now` for some streams, in one statement: `READ_MAX` at most."""
    clock = "" if connection.vendor == "sqlite" else f", {POSTGRES_NOW}"
    condition, values = any_of(stream_ids)
    streams: dict[UUID, list[RecordedEvent]] = {each: [] for each in stream_ids}
    rows = execute(
        f"SELECT {_COLUMNS}{clock} FROM eventstore_event"  # noqa: S608 (constants)
        f" WHERE stream_id {condition} ORDER BY position",
        values,
    )
    now = rows[-1][-1] if clock and rows else clock_now()
    for row in rows:
        event = RecordedEvent(*row[:_COLUMN_COUNT])
        streams[event.stream_id].append(event)
    return streams, now


def has_event(stream_id: UUID, topic: str) -> bool:
    """Whether something of this kind has happened in a stream."""
    one = "SELECT 1 FROM eventstore_event WHERE stream_id = %s AND topic = %s LIMIT 1"
    return bool(execute(one, [stream_id, topic]))


def max_position() -> int:
    """The position of the last event, 0 in an empty log."""
    ((position,),) = execute("SELECT max(position) FROM eventstore_event")
    return position or 0


def clock_now() -> int:
    """Microseconds since the epoch by the clock that stamps the events."""
    with connection.cursor() as cursor:
        return database_clock(cursor)


def as_uuid(value: Any) -> UUID:
    """A UUID as either database returns it in plain SQL."""
    return value if isinstance(value, UUID) else UUID(hex=value)


def id_parameter(value: UUID | str) -> UUID | str:
    """An id as a parameter of plain SQL, in the form that either database stores."""
    if isinstance(value, UUID) and connection.vendor == "sqlite":
        return value.hex
    return value


def any_of(ids: Collection[UUID]) -> tuple[str, list[Value]]:
    """The end of a condition, "is one of these", and its values, for `direct.execute`."""
    if len(ids) == 1:
        # Of an array PostgreSQL would plan each one anew, which takes longer than the rest.
        return "= %s", [*ids]
    if connection.vendor == "postgresql":
        # One statement for any number of them.
        return "= ANY(%s)", [array("uuid", ids)]
    return f"IN ({', '.join(['%s'] * len(ids))})", [*ids]


def _readable(row: tuple[Any, ...]) -> RecordedEvent | UnreadableRow:
    event = RecordedEvent(*row)
    try:
        # All that is decoded later otherwise.
        _ = event.data, event.stream_id, event.event_id, event.causation_id
    except (UnreadableEvent, AttributeError, TypeError, ValueError):
        return UnreadableRow(event.position)
    return event
