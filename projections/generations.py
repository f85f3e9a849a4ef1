"""Generations beside the live one: begun or taken up, given up, and their rows removed in batches.

A generation says which version of the code fills it. That is how an interrupted rebuild is found
again: a generation of this version beside the live one is gone on with, by whoever comes next.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import connection

from eventstore.database import writing
from eventstore.reading import id_parameter
from projections import positions
from projections.positions import Overtaken, Place
from projections.projection import Projection
from projections.sql import Command

#: Old rows that one transaction removes at most.
REMOVED_ROWS_MAX = 2_000
#: On SQLite, where senders wait for the one write lock.
SQLITE_REMOVED_ROWS_MAX = 200
#: The version of a generation that is only compared with: no code has it, so nobody takes it up,
#: and nobody swaps it in.
SCRATCH_VERSION = 0

#: Whoever has not written for so long is not expected to write in the next moment.
ALONE_SECONDS = 2.0
#: SQLite's memory for pages, in a rebuild and by default.
CACHE_KIBIBYTES = 32 * 1024
USUAL_CACHE_KIBIBYTES = 2_000

Projections = Mapping[str, type[Projection]]


def take_up(projections: Projections) -> list[Place]:
    """The generations to fill: those that an interrupted rebuild has left, or else new ones.

    One that other code has begun is gone on with by nobody: an older version's is given up here,
    and a newer program's is left to it.
    """
    _create_missing(projections)
    with writing():
        _lock(projections)
        return [_taken_up(name, projections[name].version) for name in sorted(projections)]


def begin_scratch(projections: Projections) -> list[Place]:
    """New generations to compare with; what comparisons before have left is given up."""
    _create_missing(projections)
    with writing():
        _lock(projections)
        for name in projections:
            discard([each for each in positions.beside_the_live(name) if _is_scratch(each)])
        return [positions.begin_generation(name, SCRATCH_VERSION) for name in sorted(projections)]


def discard(places: Sequence[Place]) -> None:
    """Give up generations, unless they are read by now."""
    with writing(), connection.cursor() as cursor:
        for place in places:
            cursor.execute(_DISCARD, [place.name, place.generation, place.name, place.generation])


def remove_dead_rows(projections: Projections) -> None:
    """Remove the rows of generations that nobody can read or fill any more."""
    for _ in removing_dead_rows(projections):
        pass


def removing_dead_rows(projections: Projections) -> Iterator[int]:
    """The same a bounded batch at a time: what each has removed."""
    for name, projection in projections.items():
        table = projection.table
        yield from _removing(name, table.name, table.key, "generation")
        parked_of = f"projection = '{name}' AND generation"
        yield from _removing(name, "projections_parked", "position", parked_of)


class Courtesy:
    """Leaves SQLite's one write lock free for as long as it was used, while others write too.

    Their busy handlers look at the lock at intervals of up to 100 ms, and are not fair: without
    gaps in which they find it free, a send would wait for many batches.
    """

    def __init__(self) -> None:
        self._seen = _foreign_commits()
        self._seen_at = time.monotonic()

    @property
    def is_alone(self) -> bool:
        """Whether nobody else has written for a while."""
        return time.monotonic() - self._seen_at > ALONE_SECONDS

    def pause(self, seconds_busy: float) -> None:
        """Pause if another connection has written since the last time."""
        before, self._seen = self._seen, _foreign_commits()
        if self._seen != before:
            self._seen_at = time.monotonic()
            time.sleep(seconds_busy)


@contextlib.contextmanager
def without_waiting_for_the_disk() -> Iterator[Sequence[Command]]:
    """Let transactions be committed that a power cut may undo, together with all after them.

    For rows that nobody reads yet: what is lost is done again. Yields what each transaction has to
    begin with.
    """
    if connection.vendor == "postgresql":
        yield [Command("SET LOCAL synchronous_commit TO off", [])]
        return
    if connection.in_atomic_block:  # the caller's own, whose durability is not ours to change
        yield []
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous = NORMAL")
        try:
            yield []
        finally:
            cursor.execute("PRAGMA synchronous = FULL")


def make_room() -> None:
    """Let SQLite keep the pages that a rebuild comes back to: most rows go to random places."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")


def give_room_back() -> None:
    """Keep as many pages as before."""
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA cache_size = -{USUAL_CACHE_KIBIBYTES}")


def _foreign_commits() -> int:
    """A number that changes when another connection commits, on SQLite."""
    if connection.vendor != "sqlite":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA data_version")
        return int(cursor.fetchone()[0])


def _create_missing(projections: Projections) -> None:
    positions.create_missing({name: each.version for name, each in projections.items()})


def _lock(projections: Projections) -> None:
    """Let one at a time look which generations there are, and begin others."""
    try:
        positions.lock_live(projections)
    except Overtaken:  # a rebuild was swapped in while we waited: its rows are the ones now
        positions.lock_live(projections)


def _taken_up(name: str, version: int) -> Place:
    beside = positions.beside_the_live(name)
    of_this_version = [place for place in beside if place.version == version]
    older = [place for place in beside if SCRATCH_VERSION < place.version < version]
    discard([*of_this_version[1:], *older])
    return of_this_version[0] if of_this_version else positions.begin_generation(name, version)


def _is_scratch(place: Place) -> bool:
    return place.version == SCRATCH_VERSION


def _removing(name: str, table: str, key: str, generation: str) -> Iterator[int]:
    # By ranges of the key: PostgreSQL would pass all that is deleted already at each search from
    # the start.
    of_dead = f"FROM {table} WHERE {generation} = %s"
    courtesy = Courtesy()
    for dead in _dead_generations(name, f"FROM {table} WHERE {generation}"):
        behind: list[Any] = []
        removed = limit = _removed_rows_max()
        while removed >= limit:
            began = time.monotonic()
            with without_waiting_for_the_disk() as first, writing(), connection.cursor() as cursor:
                for command in first:
                    cursor.execute(command.sql)
                after = f" AND {key} > %s" if behind else ""
                cursor.execute(
                    f"SELECT {key} {of_dead}{after} ORDER BY {key} LIMIT 1 OFFSET %s",
                    [dead, *behind, limit - 1],
                )
                last = cursor.fetchone()
                upto = [id_parameter(last[0])] if last else []
                bound = f" AND {key} <= %s" if last else ""
                cursor.execute(f"DELETE {of_dead}{after}{bound}", [dead, *behind, *upto])
                removed = cursor.rowcount
                behind = upto
            yield removed
            courtesy.pause(time.monotonic() - began)


def _removed_rows_max() -> int:
    if connection.vendor == "sqlite":
        return min(REMOVED_ROWS_MAX, SQLITE_REMOVED_ROWS_MAX)
    return REMOVED_ROWS_MAX


def _dead_generations(name: str, rows_of: str) -> list[int]:
    """Generations that have rows but no position, found by one step along the key for each."""
    found: list[int] = []
    next_generation = f"SELECT min(generation) {rows_of} > %s"
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
