"""The rows of parked events: which streams wait, since when, and why."""

from collections.abc import Iterable
from uuid import UUID

from django.db import connection

from eventstore.reading import RecordedEvent, as_uuid, id_parameter
from projections.positions import Place


def parked_streams(projection: str) -> list[UUID]:
    """The streams of a live read model that wait for a retry, in the order of their failing."""
    with connection.cursor() as cursor:
        cursor.execute(f"{_LIVE} GROUP BY stream_id ORDER BY min(parked.position)", [projection])
        return [as_uuid(stream_id) for (stream_id,) in cursor.fetchall()]


def is_any_parked(projection: str) -> bool:
    """Whether a live read model has parked events."""
    with connection.cursor() as cursor:
        cursor.execute(f"{_LIVE} LIMIT 1", [projection])
        return cursor.fetchone() is not None


def parked_among(place: Place, stream_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Those of the streams that are parked, with the position of the event that failed."""
    wanted = [id_parameter(stream_id) for stream_id in stream_ids]
    if not wanted:
        return {}
    marks = ", ".join(["%s"] * len(wanted))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT stream_id, min(position) FROM projections_parked"  # noqa: S608 (marks)
            f" WHERE projection = %s AND generation = %s AND stream_id IN ({marks})"
            " GROUP BY stream_id",
            [place.name, place.generation, *wanted],
        )
        return {as_uuid(stream_id): position for stream_id, position in cursor.fetchall()}


def positions_of(place: Place, stream_id: UUID, limit: int) -> list[int]:
    """Where the parked events of a stream stand in the log, at most `limit`, in order."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT position FROM projections_parked WHERE {_OF_STREAM}"  # noqa: S608 (constant)
            " ORDER BY position LIMIT %s",
            [place.name, place.generation, id_parameter(stream_id), limit],
        )
        return [position for (position,) in cursor.fetchall()]


def count_of(place: Place, stream_id: UUID) -> int:
    """How many events of a stream are parked."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM projections_parked WHERE {_OF_STREAM}",  # noqa: S608 (constant)
            [place.name, place.generation, id_parameter(stream_id)],
        )
        (count,) = cursor.fetchone()
    return int(count)


def park(place: Place, event: RecordedEvent, error: str) -> None:
    """Set an event aside."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO projections_parked"
            " (projection, generation, stream_id, position, topic, error)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [place.name, place.generation, *_id(event), event.topic, error],
        )


def note_error(place: Place, event: RecordedEvent, error: str) -> None:
    """Note why a parked event cannot be applied now."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE projections_parked SET error = %s WHERE {_OF_STREAM}"  # noqa: S608 (constant)
            " AND position = %s",
            [error, place.name, place.generation, *_id(event)],
        )


def unpark(place: Place, event: RecordedEvent) -> None:
    """Forget a parked event that has been applied."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"DELETE FROM projections_parked WHERE {_OF_STREAM}"  # noqa: S608 (constant)
            " AND position = %s",
            [place.name, place.generation, *_id(event)],
        )


_LIVE = """
SELECT parked.stream_id FROM projections_parked parked
JOIN projections_pointer pointer
  ON pointer.name = parked.projection AND pointer.generation = parked.generation
WHERE parked.projection = %s"""

_OF_STREAM = "projection = %s AND generation = %s AND stream_id = %s"


def _id(event: RecordedEvent) -> tuple[UUID | str, int]:
    return id_parameter(event.stream_id), event.position
