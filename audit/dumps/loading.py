"""Loading a dump into an empty log: all of it or nothing, proved before it is committed."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import msgspec
from django.db import DataError, IntegrityError, connection

from audit.credentials import compare_credentials
from audit.dumps.alone import writing_alone
from audit.dumps.dumping import Report, head, require_migrated
from audit.dumps.errors import DatabaseInUse, DumpDamaged, DumpRefused, LogNotEmpty
from audit.dumps.lines import TABLES, Counts, DataKeyRow, EventRow, Header, Row, Table
from audit.dumps.reading import DumpReader
from audit.dumps.wrapping import Rewrap, unwrapping
from eventstore.keys import NAMES_KEY_ID
from eventstore.reading import id_parameter, max_position
from eventstore.seals.chain import Head
from eventstore.seals.verification import Findings, verify_seals
from privacy.restore import destroy_listed
from projections import positions
from projections.registry import PROJECTIONS
from projections.runner import ProjectionRunner

#: Rows that are sent to the database at a time; fewer when their lines are as long as this.
BATCH_ROWS = 500
BATCH_BYTES = 16 * 1024 * 1024

_TABLE_OF = {table.row: table for table in TABLES}
#: What follows from a log. A fresh service makes positions at 0 and nothing else of it.
_FOLLOWING = {
    "snapshots": "eventstore_snapshot",
    "destructions that are not finished": "eventstore_destruction",
    "parked events": "projections_parked",
    "read models that follow it": "projections_position WHERE position <> 0",
    **{f"rows of {name}": each.table.name for name, each in PROJECTIONS.items()},
}


@dataclass(frozen=True)
class Loaded:
    """What was loaded, and by which keys its seals verified."""

    counts: Counts
    seals: Findings


def load(
    file: BinaryIO,
    *,
    passphrase: bytes | None,
    report: Report,
    kept: Head | None = None,
    erasures: Path | None = None,
) -> Loaded:
    """Load a dump into the empty log here, or change nothing and raise `DumpRefused`.

    With `kept`, a head that was kept elsewhere, its log must hold that very checkpoint. What
    `erasures` names can never be read here; `privacy.restore.apply_erasures` then ends it.

    The read models stay as they are: `fill_read_models` comes next. No other process may be in the
    database; one that is makes this refuse.
    """
    require_migrated()
    reader = DumpReader(file)
    with _damage_named_first(reader):
        # Before the transaction, which must not be idle before its time limit is lifted: whoever
        # sends the first line may take as long as whoever sends the rest.
        header = reader.header()
        rewrap = unwrapping(header.wrapped_for, passphrase)
        with writing_alone():
            _begin()
            _store(reader, rewrap, header.counts.events, report)
            seals = _checked(header, kept)
            if erasures:
                destroy_listed(erasures)
    return Loaded(header.counts, seals)


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
    except (DatabaseInUse, DumpDamaged, LogNotEmpty):
        raise
    except (DumpRefused, DataError, IntegrityError) as error:
        reader.look_for_damage()
        if isinstance(error, DumpRefused):
            raise
        reason = " ".join(str(error).split())
        raise DumpRefused(f"the dump is whole, and this database refuses it: {reason}") from error


def _begin() -> None:
    """Make sure that there is nothing here."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            # A load takes as long as it takes, and so may whoever sends the lines.
            cursor.execute("SET LOCAL statement_timeout = 0")
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    _require_nothing_shown()
    names_key = id_parameter(NAMES_KEY_ID)
    with connection.cursor() as cursor:
        for table in TABLES:
            # A login attempt makes the names' key, which says nothing as long as there is no name.
            but, parameters = ("", [])
            if table.row is DataKeyRow:
                but, parameters = (" WHERE id <> %s", [names_key])
            cursor.execute(f"SELECT 1 FROM {table.name}{but} LIMIT 1", parameters)  # noqa: S608 (constants)
            if cursor.fetchone():
                raise _not_empty(table.counted_as.replace("_", " "))
        cursor.execute("DELETE FROM eventstore_datakey WHERE id = %s", [names_key])


def _require_nothing_shown() -> None:
    """Refuse what follows from another log: it would pass for what follows from this one."""
    with connection.cursor() as cursor:
        for name, rows in _FOLLOWING.items():
            cursor.execute(f"SELECT 1 FROM {rows} LIMIT 1")  # noqa: S608 (constants)
            if cursor.fetchone():
                raise _not_empty(name)


def _not_empty(what: str) -> LogNotEmpty:
    return LogNotEmpty(
        f"this log is not empty: it has {what}; a dump is loaded into a new database only"
    )


def _store(reader: DumpReader, rewrap: Rewrap, events: int, report: Report) -> None:
    last = 0
    for batch in _batches(reader):
        for kind, of_kind in groupby(batch, type):
            stored: list[Any] = list(of_kind)
            if kind is EventRow:
                last = _require_contiguous(stored, last)
                report(last, events)
            elif kind is DataKeyRow:
                stored = list(map(rewrap, stored))
            _insert(_TABLE_OF[kind], stored)


def _batches(reader: DumpReader) -> Iterator[list[Row]]:
    batch: list[Row] = []
    begun = reader.bytes_read
    for row in reader.rows():
        batch.append(row)
        if len(batch) >= BATCH_ROWS or reader.bytes_read - begun >= BATCH_BYTES:
            yield batch
            batch, begun = [], reader.bytes_read
    if batch:
        yield batch


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


def _checked(header: Header, kept: Head | None) -> Findings:
    """What a whole dump can still be wrong in: its log, and the credentials beside it."""
    if max_position() != header.last_position or head() != header.head:
        raise DumpDamaged("the dump does not end where its first line says")
    seals = verify_seals(head=kept)
    if differences := seals.differences or compare_credentials():
        more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
        raise DumpRefused(f"the dump is whole, and its log does not verify: {differences[0]}{more}")
    return seals
