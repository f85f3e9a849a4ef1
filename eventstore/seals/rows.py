"""Events as they are stored, read for their seals: in bounded pages, no object a row, no trust.

SQLite keeps whatever it is given in any column, and a page of a file may be damaged: so texts are
read as bytes, and a row that is not in the one form that this service writes has no leaf.
"""

from binascii import Error as NotHexadecimal
from binascii import hexlify, unhexlify
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from django.db import connection

from eventstore.clock import LATEST
from eventstore.seals import leaf
from eventstore.seals.merkle import leaf_hash

#: Events that one read returns at most.
ROWS_MAX = 5_000

#: Position, version, at, stream id, event id, causation id, topic, data, actor, request id, as they
#: are stored; then their form: 1 for ids that are digits, 2 for ids that are bytes, 0 where a value
#: has another type than its column.
Row = tuple[int, int, int, bytes, bytes, bytes | None, bytes, bytes, bytes, bytes, int]

POSITION: Final = 0
AT: Final = 2

#: What stands before the first row.
NO_ROW: Row = (0, 0, 0, b"", b"", None, b"", b"", b"", b"", 0)

_SQLITE = """
SELECT position, CAST(version AS INTEGER), CAST(at AS INTEGER), CAST(stream_id AS BLOB),
       CAST(event_id AS BLOB), CAST(causation_id AS BLOB), CAST(topic AS BLOB), CAST(data AS BLOB),
       CAST(actor AS BLOB), CAST(request_id AS BLOB),
       typeof(version) = 'integer' AND typeof(at) = 'integer' AND typeof(stream_id) = 'text'
       AND typeof(event_id) = 'text' AND typeof(causation_id) IN ('null', 'text')
       AND typeof(topic) = 'text' AND typeof(data) = 'blob' AND typeof(actor) = 'text'
       AND typeof(request_id) = 'text'
FROM eventstore_event
WHERE position >= %s AND position <= %s AND typeof(position) = 'integer'
ORDER BY position LIMIT %s
"""
_POSTGRES = """
SELECT position, version, at, uuid_send(stream_id), uuid_send(event_id), uuid_send(causation_id),
       textsend(topic), data, textsend(actor), textsend(request_id),
       CASE WHEN num_nulls(version, at, stream_id, event_id, topic, data, actor, request_id) = 0
       THEN 2 ELSE 0 END
FROM eventstore_event WHERE position >= %s AND position <= %s ORDER BY position LIMIT %s
"""
#: The lowest and the highest position that there can be, and what is below all of them.
LOWEST, HIGHEST = -(2**63), 2**63 - 1
BEFORE_ALL = LOWEST - 1
_IDS_AS_DIGITS = 1
_NEVER_NULL = ("version", "at", "stream_id", "event_id", "topic", "data", "actor", "request_id")
_DIGITS = 32


def read_rows(after: int, upto: int = HIGHEST, limit: int = ROWS_MAX) -> list[Row]:
    """The rows behind position `after` up to `upto`, in order, at most `limit`."""
    if after >= HIGHEST:
        return []
    # Behind `BEFORE_ALL` the lowest position is included, which no "greater than" does.
    parameters = [after + 1, upto, limit]
    if connection.vendor == "postgresql":
        return read_binary(_POSTGRES, parameters)
    with connection.cursor() as cursor:
        cursor.execute(_SQLITE, parameters)
        rows: list[Row] = cursor.fetchall()
        return rows


class RowReader:
    """Rows in the order of their positions, a bounded page at a time."""

    def __init__(self, after: int) -> None:
        self.position = after
        self._read = after
        self._page: list[Row] = []
        self._index = 0

    def upto(self, last: int) -> Iterator[list[Row]]:
        """The rows that have not been read yet, up to a position."""
        while self.position < last:
            if self._index == len(self._page):
                self._page, self._index = _page(self._read), 0
                if not self._page:
                    return
                self._read = self._page[-1][POSITION]
            end = len(self._page)
            if self._read > last:
                end = bisect_right(self._page, last, self._index, key=itemgetter(POSITION))
            rows = self._page[self._index : end]
            self._index = end
            if not rows:
                return
            self.position = rows[-1][POSITION]
            yield rows


def _page(after: int) -> list[Row]:
    """A page of rows; a row that stands in the last one's place as well is on the same page."""
    rows = read_rows(after, limit=ROWS_MAX + 1)
    if len(rows) > ROWS_MAX and rows[-1][POSITION] != rows[-2][POSITION]:
        rows.pop()
    return rows


def unplaced() -> int:
    """How many rows have no position; none, while the table has its primary key."""
    is_none = (
        "position IS NULL"
        if connection.vendor == "postgresql"
        # Any text and any blob is greater than every number.
        else f"position IS NULL OR position > {HIGHEST} OR typeof(position) = 'real'"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM eventstore_event WHERE {is_none}")  # noqa: S608 (constants)
        (rows,) = cursor.fetchone()
    return int(rows)


def read_binary(statement: str, parameters: Sequence[Any]) -> list[Any]:
    """Rows of PostgreSQL in its binary form, where bytes need not be written out as digits."""
    connection.ensure_connection()
    with (
        connection.wrap_database_errors,
        connection.connection.cursor(binary=True) as cursor,
    ):
        cursor.execute(statement, parameters)
        rows: list[Any] = cursor.fetchall()
        return rows


def leaf_hashes(rows: Sequence[Row]) -> list[bytes | None]:
    """The leaf hash of each row, None for one that is not in the form that is stored."""
    return [hash_at(row, row[POSITION]) for row in rows]


def hash_at(row: Row, position: int) -> bytes | None:
    """The leaf hash that the row would have at a position, None where it can have none."""
    _, version, at, stream_id, event_id, causation_id, topic, data, actor, request_id, form = row
    if not form:
        return None
    if form == _IDS_AS_DIGITS:
        if (ids := _ids(stream_id, event_id, causation_id)) is None:
            return None
        stream_id, event_id, causation_id = ids
    return leaf_hash(
        leaf.encode(
            position=position,
            stream_id=stream_id,
            version=version,
            topic=topic,
            data=data,
            at=at,
            event_id=event_id,
            actor=actor,
            request_id=request_id,
            causation_id=causation_id,
        )
    )


def _ids(
    stream_id: bytes, event_id: bytes, causation_id: bytes | None
) -> tuple[bytes, bytes, bytes | None] | None:
    """Ids as SQLite has them, in 16 bytes each; None if one is not 32 lower-case digits."""
    given = stream_id + event_id + (causation_id or b"")
    try:
        ids = unhexlify(given)
    except NotHexadecimal:
        return None
    if (
        len(stream_id) != _DIGITS
        or len(event_id) != _DIGITS
        or (causation_id is not None and len(causation_id) != _DIGITS)
        or hexlify(ids) != given
    ):
        return None
    return ids[:16], ids[16:32], None if causation_id is None else ids[32:]


def has_time(row: Row) -> bool:
    """Whether the time of a row can be written as a date; sealed, it could never be shown."""
    return 0 <= row[AT] <= LATEST


def malformed_column(row: Row) -> str | None:
    """The first column that is not in the form that is stored; "row" where types alone differ."""
    if hash_at(row, row[POSITION]) is not None:
        return None if has_time(row) else "at"
    for name, given in zip(_NEVER_NULL, itemgetter(1, 2, 3, 4, 6, 7, 8, 9)(row), strict=True):
        if given is None:
            return name
    _, _, _, stream_id, event_id, causation_id, *_, form = row
    if form:
        for name, value in (("stream_id", stream_id), ("event_id", event_id)):
            if _ids(value, b"0" * _DIGITS, None) is None:
                return name
        if causation_id is not None:
            return "causation_id"
    return "row"
