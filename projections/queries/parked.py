"""Parked streams, as far as queries have to know: what would be shown from one is not shown."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from eventstore.direct import Row
from eventstore.reading import as_uuid, read_events, read_stream
from projections.queries.errors import ReadModelParked
from projections.queries.statements import one

#: Parked events that one page looks up in the log; behind more of them it is refused unseen.
LOOKED_UP_MAX = 100

# The error of a stream that is parked; every query of one stream asks for it too.
ERROR = """
(SELECT error FROM projections_parked parked
 WHERE parked.projection = pointer.name AND parked.generation = pointer.generation
   AND parked.stream_id = %s
 ORDER BY parked.position LIMIT 1)"""

# Whether anything at all is parked, which a page asks before it looks any further.
ANY = """
EXISTS (SELECT 1 FROM projections_parked parked
 WHERE parked.projection = pointer.name AND parked.generation = pointer.generation)"""


def is_own(
    user_id: UUID, owner: Any, error: str | None, *, projection: str, stream_id: UUID
) -> bool:
    """Whether what a read model shows of a stream is the user's own; `owner` is as its row says.

    Raises `ReadModelParked` when it is, and is parked.
    """
    if owner is not None:
        owner = as_uuid(owner)
    elif error is not None:
        owner = owner_by_the_log(stream_id)
    if owner != user_id:
        return False
    if error is not None:
        raise ReadModelParked(projection, stream_id, error)
    return True


def owner_by_the_log(stream_id: UUID) -> UUID | None:
    """Whose stream it is that never reached the read model."""
    owners = [event.data.get("user_id") for event in read_stream(stream_id)]
    return next((UUID(owner) for owner in owners if isinstance(owner, str)), None)


def refuse(projection: str, row: Row | None) -> None:
    """Raise `ReadModelParked` for a row of (stream_id, position, error), if there is one."""
    if row is not None:
        raise ReadModelParked(projection, as_uuid(row[0]), row[2])


def refuse_if_of(projection: str, rows: Iterable[Row], field: str, owner_id: UUID) -> None:
    """Raise `ReadModelParked` if one of these parked events belongs to somebody, by the log.

    The rows are as in `refuse`, one more than may be looked up.
    """
    for number, row in enumerate(rows):
        (event,) = read_events(row[1] - 1, upto=row[1])
        if number >= LOOKED_UP_MAX or event.data.get(field) == str(owner_id):
            refuse(projection, row)


def parked_count() -> int:
    """Events that wait for `retry_parked`, over all read models."""
    row = one(_COUNT)
    return int(row[0]) if row else 0


_COUNT = """
SELECT count(*) FROM projections_parked parked JOIN projections_pointer pointer
  ON pointer.name = parked.projection AND pointer.generation = parked.generation"""
