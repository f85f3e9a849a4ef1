"""Loading a dump into an empty log: all of it or nothing, proved before it is committed."""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Any, BinaryIO
from uuid import UUID

import msgspec
from django.db import DataError, IntegrityError, connection

from audit.dumps.dumping import Report, head, require_migrated
from audit.dumps.errors import DumpDamaged, DumpRefused, LogNotEmpty
from audit.dumps.lines import TABLES, Counts, DataKeyRow, EventRow, Header, Row, Table
from audit.dumps.reading import DumpReader
from audit.dumps.wrapping import Rewrap, unwrapping
from eventstore.append import take_append_lock
from eventstore.database import writing
from eventstore.keys import NAMES_KEY_ID
from eventstore.reading import id_parameter, max_position
from eventstore.seals.verification import verify_seals
from projections import positions
from projections.runner import ProjectionRunner

#: Rows that are sent to the database at a time.
BATCH_ROWS = 500

_TABLE_OF = {table.row: table for table in TABLES}


def load(file: BinaryIO, *, passphrase: bytes | None, report: Report) -> Counts:
    """Load a dump into the empty log here, or change nothing and raise `DumpRefused`.

    The read models stay as they are: `fill_read_models` comes next. No process may serve meanwhile;
    one that does waits.
    """
    require_migrated()
    reader = DumpReader(file)
    with _damage_named_first(reader), writing():
        header = reader.header()
        rewrap = unwrapping(header.wrapped_for, passphrase)
        _begin()
        _store(reader.rows(), rewrap, header.counts.events, report)
        _check(header)
    return header.counts


def fill_read_models(report: Report) -> None:
    """Show the whole log, so that whoever serves next has nothing to catch up with."""
    runner, end = ProjectionRunner(), max_position()
    while runner.step():
        report(min(place.position for place in positions.live().values()), end)
    report(end, end)


@contextlib.contextmanager
def _damage_named_first(reader: DumpReader) -> Iterator[None]:
    """Call a damaged dump damaged, whatever else the damage has led to."""
    try:
        yield
    except (DumpDamaged, LogNotEmpty):
        raise
    except (DumpRefused, DataError, IntegrityError) as error:
        reader.look_for_damage()
        if isinstance(error, DumpRefused):
            raise
        reason = " ".join(str(error).split())
        raise DumpRefused(f"the dump is whole, and this database refuses it: {reason}") from error


def _begin() -> None:
    """Make sure that there is nothing here, and that nothing comes before the commit."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            # A load takes as long as it takes, and so may whoever sends the lines.
            cursor.execute("SET LOCAL statement_timeout = 0")
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    take_append_lock()
    names_key = id_parameter(NAMES_KEY_ID)
    with connection.cursor() as cursor:
        for table in TABLES:
            # A login attempt makes the names' key, which says nothing as long as there is no name.
            but, parameters = ("", [])
            if table.row is DataKeyRow:
                but, parameters = (" WHERE id <> %s", [names_key])
            cursor.execute(f"SELECT 1 FROM {table.name}{but} LIMIT 1", parameters)  # noqa: S608 (constants)
            if cursor.fetchone():
                raise LogNotEmpty(
                    f"this log is not empty: it has {table.counted_as.replace('_', ' ')}; "
                    "a dump is loaded into a new database only"
                )
        cursor.execute("DELETE FROM eventstore_datakey WHERE id = %s", [names_key])


def _store(rows: Iterator[Row], rewrap: Rewrap, events: int, report: Report) -> None:
    last = 0
    while batch := list(islice(rows, BATCH_ROWS)):
        for kind, of_kind in groupby(batch, type):
            stored: list[Any] = list(of_kind)
            if kind is EventRow:
                last = _require_contiguous(stored, last)
                report(last, events)
            elif kind is DataKeyRow:
                stored = list(map(rewrap, stored))
            _insert(_TABLE_OF[kind], stored)


def _require_contiguous(events: Sequence[Any], last: int) -> int:
    for event in events:
        last += 1
        if event.position != last:
            raise DumpRefused(f"position {last} is missing: {event.position} stands in its place")
    return last


def _insert(table: Table, rows: Sequence[Row]) -> None:
    columns = ", ".join(table.columns)
    values = map(msgspec.structs.astuple, rows)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            into = f"COPY {table.name} ({columns}) FROM STDIN (FORMAT BINARY)"
            with connection.wrap_database_errors, cursor.copy(into) as copy:
                copy.set_types(table.types)
                for row in values:
                    copy.write_row(row)
            return
        marks = ", ".join(["%s"] * len(table.columns))
        cursor.executemany(
            f"INSERT INTO {table.name} ({columns}) VALUES ({marks})",  # noqa: S608 (constants)
            list(map(_for_sqlite, values)),
        )


def _for_sqlite(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.hex if isinstance(value, UUID) else value for value in row)


def _check(header: Header) -> None:
    """What a whole dump can still be wrong in: the log that was dumped."""
    if max_position() != header.last_position or head() != header.head:
        raise DumpDamaged("the dump does not end where its first line says")
    if differences := verify_seals().differences:
        more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
        raise DumpRefused(f"the dump is whole, and its log does not verify: {differences[0]}{more}")
