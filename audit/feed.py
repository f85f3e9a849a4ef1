"""The log a page at a time, as a batch of CloudEvents; what a request costs is bounded."""

from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from audit.cloudevents import encode, encode_unreadable
from eventstore.reading import read_each

#: Events that one request looks through for those that it asks for.
LOOKED_THROUGH_MAX = 10_000
#: No position is greater: the databases count in 64 bits.
POSITION_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Page:
    """A JSON array of events; `next_after` is where to go on, None at the end of the log."""

    body: bytes
    next_after: int | None


def read_page(
    after: int, limit: int, *, topic: str | None = None, stream_id: UUID | None = None
) -> Page:
    """At most `limit` events behind position `after`, only those of the topic and the stream.

    Looks through `LOOKED_THROUGH_MAX` events and no more, so that a page may be empty although the
    log goes on.
    """
    upto = None
    if topic is not None or stream_id is not None:
        upto = _end_of_window(after)
    # One more than asked for tells whether there is a next page.
    events = read_each(after, limit + 1, upto, topic=topic, stream_id=stream_id)
    page = events[:limit]
    next_after = page[-1].position if len(events) > limit else upto
    lines = [encode(event) or encode_unreadable(event.position) for event in page]
    return Page(b"[" + b",".join(lines) + b"]", next_after)


def _end_of_window(after: int) -> int | None:
    """The position up to which one request looks, None when that is beyond the end of the log."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT position FROM eventstore_event WHERE position > %s"
            " ORDER BY position LIMIT 1 OFFSET %s",
            [after, LOOKED_THROUGH_MAX - 1],
        )
        row = cursor.fetchone()
    return None if row is None else int(row[0])
