"""Whether the read models are what the log says: a fresh replay, compared row for row."""

from typing import Any
from uuid import UUID

from django.db import connection

from eventstore.database import writing
from eventstore.reading import as_uuid
from projections import positions
from projections.generations import Projections, begin, discard, remove_dead_rows
from projections.parked_events import parked_streams
from projections.positions import Overtaken, Place
from projections.projection import Projection
from projections.rebuild import EventRefused, RebuildStopped, catch_up, finish_to
from projections.registry import PROJECTIONS

#: Rows of one read model that are named at most.
DIFFERENCES_MAX = 1_000


def compare_with_fresh_replay(projections: Projections = PROJECTIONS) -> list[str]:
    """Replay into a generation that nobody reads, and name each row that differs from the live one.

    The comparison is made at the position of the live rows, wherever the log has got to. While the
    rows of one read model are compared, its runner waits.
    """
    scratch = begin(projections)
    try:
        # The log is read once for all; what the slowest has not shown yet, for each by itself.
        live = positions.live()
        lowest = min(live[name].position for name in projections)
        scratch = catch_up(projections, scratch, upto=lowest)
        return [line for place in scratch for line in _compare(projections[place.name], place)]
    except EventRefused as refused:
        return [str(refused)]
    except Overtaken:
        raise RebuildStopped("a rebuild was swapped in meanwhile: compare again") from None
    finally:
        discard(scratch)
        remove_dead_rows(projections)


def _compare(projection: type[Projection], place: Place) -> list[str]:
    only = {projection.name: projection}
    while True:
        with writing():
            live = positions.lock_live(only)[projection.name]
            if finished := finish_to(only, [place], live.position):
                return _parked(projection.name) + _differences(projection, live, finished[0])
        (place,) = catch_up(only, [place], upto=live.position)


def _parked(name: str) -> list[str]:
    return [f"{name}: stream {stream_id} is parked" for stream_id in parked_streams(name)]


def _differences(projection: type[Projection], live: Place, fresh: Place) -> list[str]:
    live_only = _rows_but_for(projection, live.generation, fresh.generation)
    fresh_only = _rows_but_for(projection, fresh.generation, live.generation)
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
    projection: type[Projection], generation: int, other: int
) -> dict[UUID | int, tuple[Any, ...]]:
    """Rows of one generation that the other has not got, by key, the lowest keys first."""
    table = projection.table
    columns = ", ".join(table.types)
    rows = f"SELECT {columns} FROM {table.name} WHERE generation = %s"  # noqa: S608 (constants)
    with connection.cursor() as cursor:
        cursor.execute(
            f"{rows} EXCEPT {rows} ORDER BY 1 LIMIT %s",
            [generation, other, DIFFERENCES_MAX + 1],
        )
        return {_key(row[0]): row[1:] for row in cursor.fetchall()}


def _key(value: Any) -> Any:
    return value if isinstance(value, int) else as_uuid(value)


def _shown(value: object) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes | memoryview) else repr(value)
