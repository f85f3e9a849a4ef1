"""Making a dump: every row at one instant, in order, while the service goes on."""

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from audit.dumps.errors import DumpRefused
from audit.dumps.lines import (
    FORMAT,
    TABLES,
    VERSION,
    Counts,
    DataKeyRow,
    End,
    EventRow,
    Header,
    Row,
    Table,
    encode_line,
)
from audit.dumps.wrapping import Wrapping
from audit.one_instant import one_instant
from eventstore.reading import as_uuid, id_parameter, max_position
from eventstore.seals.checkpoints import latest

#: Rows that one query reads.
PAGE_ROWS = 500

#: Told how many of how many events are done.
Report = Callable[[int, int], None]


def dump(write: Callable[[bytes], object], *, wrapping: Wrapping, report: Report) -> Counts:
    """Write the log, line by line, as `audit.dumps` says. Raises `DumpRefused`."""
    require_migrated()
    digest = hashlib.sha256()

    def put(line: Any) -> None:
        encoded = encode_line(line)
        digest.update(encoded)
        write(encoded)

    with one_instant():
        header = _header(wrapping)
        put(header)
        for table in TABLES:
            for row in _rows(table):
                put(wrapping.rewrap(row) if isinstance(row, DataKeyRow) else row)
                if isinstance(row, EventRow) and row.position % PAGE_ROWS == 0:
                    report(row.position, header.last_position)
    report(header.last_position, header.last_position)
    write(encode_line(End(header.counts, digest.hexdigest())))
    return header.counts


def require_migrated() -> None:
    """Refuse a database that has not got all the tables and columns of this program."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise DumpRefused("this database lacks migrations; run: python manage.py migrate")


def _header(wrapping: Wrapping) -> Header:
    with connection.cursor() as cursor:
        counts = {}
        for table in TABLES:
            cursor.execute(f"SELECT count(*) FROM {table.name}")  # noqa: S608 (constants)
            (counts[table.counted_as],) = cursor.fetchone()
    return Header(FORMAT, VERSION, wrapping.wrapped_for, Counts(**counts), max_position(), head())


def head() -> dict[str, Any] | None:
    """The last checkpoint of the log here, as the API and head files show it."""
    checkpoint = latest()
    try:
        return checkpoint.as_json() if checkpoint else None
    except (struct.error, ValueError, OverflowError) as error:
        raise DumpRefused(f"the last checkpoint is none: {error}; run verify --seals") from error


def _rows(table: Table) -> Iterator[Row]:
    """The rows of a table by its key, a page a query."""
    key = table.columns[0]
    page = f"SELECT {', '.join(table.columns)} FROM {table.name}"  # noqa: S608 (constants)
    order = f" ORDER BY {key} LIMIT {PAGE_ROWS}"
    ids = [place for place, kind in enumerate(table.types) if kind == "uuid"]
    with connection.cursor() as cursor:
        cursor.execute(page + order)
        while found := cursor.fetchall():
            for values in found:
                yield table.row(*_with_ids(values, ids))
            last = id_parameter(_with_ids(found[-1][:1], [0] if 0 in ids else [])[0])
            cursor.execute(f"{page} WHERE {key} > %s{order}", [last])


def _with_ids(values: tuple[Any, ...], ids: list[int]) -> tuple[Any, ...]:
    """SQLite has ids as text, PostgreSQL as what they are."""
    if not ids or isinstance(values[ids[0]], UUID):
        return values
    made = list(values)
    for place in ids:
        if made[place] is not None:
            made[place] = as_uuid(made[place])
    return tuple(made)
