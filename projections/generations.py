"""Generations beside the live one: begun, given up, and their rows removed in bounded batches."""

import time
from collections.abc import Mapping, Sequence

from django.db import connection

from eventstore.database import writing
from projections import positions
from projections.positions import Place
from projections.projection import Projection

#: Old rows that one transaction removes at most.
REMOVED_ROWS_MAX = 1_000

Projections = Mapping[str, type[Projection]]


def begin(projections: Projections) -> list[Place]:
    """New, empty generations at the log's start."""
    positions.create_missing({name: each.version for name, each in projections.items()})
    with writing():
        return [
            positions.begin_generation(name, projections[name].version)
            for name in sorted(projections)
        ]


def discard(places: Sequence[Place]) -> None:
    """Give up generations, unless they are read by now."""
    with writing(), connection.cursor() as cursor:
        for place in places:
            cursor.execute(_DISCARD, [place.name, place.generation, place.name, place.generation])


def remove_dead_rows(projections: Projections) -> None:
    """Remove the rows of generations that nobody can read or fill any more."""
    for name, projection in projections.items():
        table = projection.table
        _remove_dead(name, table.name, table.key, "generation")
        parked_of = f"projection = '{name}' AND generation"
        _remove_dead(name, "projections_parked", "position", parked_of)


def yield_to_writers(seconds_busy: float) -> None:
    """Leave SQLite's one write lock free for as long as it was held: whoever sends goes first."""
    if connection.vendor == "sqlite":
        time.sleep(seconds_busy)


def _remove_dead(name: str, table: str, key: str, generation: str) -> None:
    rows = f"FROM {table} WHERE {generation}"
    delete = f"DELETE {rows} = %s AND {key} IN (SELECT {key} {rows} = %s LIMIT %s)"
    for dead in _dead_generations(name, f"SELECT min(generation) {rows} > %s"):
        removed = REMOVED_ROWS_MAX
        while removed >= REMOVED_ROWS_MAX:
            began = time.monotonic()
            with writing(), connection.cursor() as cursor:
                cursor.execute(delete, [dead, dead, REMOVED_ROWS_MAX])
                removed = cursor.rowcount
            yield_to_writers(time.monotonic() - began)


def _dead_generations(name: str, next_generation: str) -> list[int]:
    """Generations that have rows but no position, found by one step along the key for each."""
    found: list[int] = []
    with connection.cursor() as cursor:
        cursor.execute(next_generation, [0])
        while (generation := cursor.fetchone()[0]) is not None:
            # A number is given out once, its position before its rows: without one it is dead.
            cursor.execute(
                "SELECT 1 FROM projections_position WHERE name = %s AND generation = %s",
                [name, generation],
            )
            if cursor.fetchone() is None:
                found.append(generation)
            cursor.execute(next_generation, [generation])
    return found


_DISCARD = """
DELETE FROM projections_position WHERE name = %s AND generation = %s
AND NOT EXISTS (SELECT 1 FROM projections_pointer WHERE name = %s AND generation = %s)"""
