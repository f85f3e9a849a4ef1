"""Whether the read models are what the log says: a fresh replay, compared row for row."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from django.db import connection

from eventstore.database import writing
from eventstore.reading import as_uuid
from projections import positions
from projections.generations import Projections, begin_scratch, discard, remove_dead_rows
from projections.parked_events import parked_streams
from projections.positions import Overtaken, Place
from projections.projection import Projection
from projections.rebuild import EventRefused, RebuildStopped, Report, catch_up, finish_to
from projections.registry import PROJECTIONS

#: Rows of one read model that are named at most.
DIFFERENCES_MAX = 1_000
#: How often a comparison tries to catch the moment in which its rows are as far as the live ones;
#: in the second half of its tries it has the runner wait for as long as the last batch takes.
TRIES_MAX = 40

#: Told when the rows of a read model are about to be compared.
Comparing = Callable[[str], None]


def compare_with_fresh_replay(
    projections: Projections = PROJECTIONS,
    *,
    report: Report | None = None,
    comparing: Comparing | None = None,
) -> list[str]:
    """Replay into a generation that nobody reads, and name each row that differs from the live one.

    The comparison is made at the position of the live rows, wherever the log has got to, and on a
    snapshot, so that nobody waits for it. One at a time: raises `RebuildStopped` when another
    comparison or the swap of a rebuild has taken its rows away.
    """
    scratch = begin_scratch(projections)
    try:
        # The log is read once for all; what the slowest has not shown yet, for each by itself.
        live = positions.live()
        lowest = min(live[name].position for name in projections)
        scratch = catch_up(projections, scratch, upto=lowest, report=report)
        return [
            line
            for place in scratch
            for line in _compare(projections[place.name], place, comparing or _nobody)
        ]
    except EventRefused as refused:
        return [str(refused)]
    except Overtaken:
        raise RebuildStopped(
            "another comparison was begun, or a rebuild swapped in: compare again"
        ) from None
    finally:
        discard(scratch)
        remove_dead_rows(projections)


def _compare(projection: type[Projection], place: Place, comparing: Comparing) -> list[str]:
    with _second_connection() as second:
        for tried in range(TRIES_MAX):
            place = _as_far_as_the_live(projection, place, hold=tried >= TRIES_MAX // 2)
            with _snapshot(second):
                live = _live_in(second, place)
                if live is not None:
                    comparing(projection.name)
                    return _parked(projection.name) + _differences(second, projection, live, place)
    raise RebuildStopped(f"the rows of {projection.name} never stood still: compare again")


def _as_far_as_the_live(projection: type[Projection], place: Place, *, hold: bool) -> Place:
    """Bring our rows to where the live ones are; with `hold` they do not move meanwhile."""
    only = {projection.name: projection}
    (place,) = catch_up(only, [place], upto=positions.live()[projection.name].position)
    if hold:
        with writing():
            live = positions.lock_live(only)[projection.name]
            for finished in finish_to(only, [place], live.position) or []:
                place = finished
    return place


@contextlib.contextmanager
def _second_connection() -> Iterator[Any]:
    """A connection for a snapshot beside the one that writes.

    In a transaction of the caller's nobody else could see its rows: that is the snapshot then.
    """
    if connection.in_atomic_block:
        yield connection
        return
    second = connection.copy()
    try:
        second.ensure_connection()
        yield second
    finally:
        second.close()


@contextlib.contextmanager
def _snapshot(second: Any) -> Iterator[None]:
    """Let the connection see the database as it is now, whatever is written meanwhile."""
    if second is connection:
        yield
        return
    with second.cursor() as cursor:
        if second.vendor == "postgresql":
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute("SET LOCAL statement_timeout = 0")  # a large table takes its time
        else:
            cursor.execute("BEGIN DEFERRED")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


def _live_in(second: Any, fresh: Place) -> int | None:
    """The live generation in the snapshot, if it is exactly as far as the fresh one is there."""
    with second.cursor() as cursor:
        cursor.execute(_AS_FAR, [fresh.generation, fresh.name])
        row = cursor.fetchone()
        if row is None:
            raise Overtaken("the generation to compare with was given up")
    live, live_position, fresh_position = row
    return int(live) if live_position == fresh_position else None


def _parked(name: str) -> list[str]:
    return [f"{name}: stream {stream_id} is parked" for stream_id in parked_streams(name)]


def _differences(second: Any, projection: type[Projection], live: int, fresh: Place) -> list[str]:
    live_only = _rows_but_for(second, projection, live, fresh.generation)
    fresh_only = _rows_but_for(second, projection, fresh.generation, live)
    key, *columns = projection.table.types
    lines = []
    row_ids = sorted(live_only.keys() | fresh_only.keys())
    for row_id in row_ids[:DIFFERENCES_MAX]:
        row = f"{projection.name}: {key} {row_id}"
        if row_id not in fresh_only:
            lines.append(f"{row} is not in the log")
        elif row_id not in live_only:
            lines.append(f"{row} is missing")
        else:
            pairs = zip(columns, live_only[row_id], fresh_only[row_id], strict=True)
            differing = [
                f"{column} is {_shown(is_now)}, by the log {_shown(by_the_log)}"
                for column, is_now, by_the_log in pairs
                if is_now != by_the_log
            ]
            lines.append(f"{row}: {'; '.join(differing)}")
    if len(row_ids) > DIFFERENCES_MAX:
        lines.append(f"{projection.name}: and more")
    return lines


def _rows_but_for(
    second: Any, projection: type[Projection], generation: int, other: int
) -> dict[UUID | int, tuple[Any, ...]]:
    """Rows of one generation that the other has not got, by key, the lowest keys first."""
    table = projection.table
    key, *columns = table.types
    differ = "IS NOT" if second.vendor == "sqlite" else "IS DISTINCT FROM"
    selected = ", ".join(f"here.{name}" for name in table.types)
    differing = " OR ".join(f"here.{name} {differ} there.{name}" for name in columns)
    with second.cursor() as cursor:
        cursor.execute(
            f"SELECT {selected} FROM {table.name} here LEFT JOIN {table.name} there"  # noqa: S608 (constants)
            f" ON there.generation = %s AND there.{key} = here.{key}"
            f" WHERE here.generation = %s AND (there.{key} IS NULL OR {differing})"
            f" ORDER BY here.{key} LIMIT %s",
            [other, generation, DIFFERENCES_MAX + 1],
        )
        return {_key(row[0]): row[1:] for row in cursor.fetchall()}


def _key(value: Any) -> Any:
    return value if isinstance(value, int) else as_uuid(value)


def _shown(value: object) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes | memoryview) else repr(value)


def _nobody(name: str) -> None:
    """Nobody wants to be told."""


_AS_FAR = """
SELECT live.generation, live.position, fresh.position
FROM projections_pointer pointer
JOIN projections_position live
  ON live.name = pointer.name AND live.generation = pointer.generation
JOIN projections_position fresh ON fresh.name = pointer.name AND fresh.generation = %s
WHERE pointer.name = %s"""
