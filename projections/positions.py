"""How far each generation has followed the log, which generation is read, and who may move them.

Everything here is plain rows. A position moves by compare-and-set in the transaction of the rows it
stands for, so of two that apply the same events one finds that it has been overtaken, and its
transaction writes nothing. A generation without a position row can never be written or read again.
Whoever locks several rows takes them in the order of their names.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db import connection

from eventstore.database import writing
from projections.sql import Command, for_update

#: Where PostgreSQL announces how far the read models are: `name:position[,name:position…]`.
PROJECTED_CHANNEL = "chatledger_projected"


class Overtaken(Exception):
    """Somebody else has moved the position, or removed the generation: read it again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one generation of a projection stands; `version` is that of the code that began it."""

    name: str
    generation: int
    position: int
    version: int


def live() -> dict[str, Place]:
    """Where the generations that are read stand, by projection, in the order of their names."""
    return _places(_LIVE + " ORDER BY pointer.name")


def lock_live(names: Iterable[str]) -> dict[str, Place]:
    """The same for some projections, which then stay where they are until the transaction ends."""
    wanted = sorted(names)
    marks = ", ".join(["%s"] * len(wanted))
    places = _places(
        f"{_LIVE} WHERE pointer.name IN ({marks}) ORDER BY pointer.name{for_update()}", wanted
    )
    if len(places) < len(wanted):
        raise Overtaken("a generation was swapped meanwhile")
    return places


def beside_the_live(name: str) -> list[Place]:
    """The generations of a projection that are being filled, the newest first."""
    with connection.cursor() as cursor:
        cursor.execute(_BESIDE, [name])
        return [Place(*row) for row in cursor.fetchall()]


def create_missing(versions: dict[str, int]) -> None:
    """Give projections that are new to this database a first generation, at the log's start."""
    with writing(), connection.cursor() as cursor:
        for name, version in sorted(versions.items()):
            cursor.execute(
                "INSERT INTO projections_pointer (name, generation, newest_generation)"
                " VALUES (%s, 1, 1) ON CONFLICT (name) DO NOTHING",
                [name],
            )
            if cursor.rowcount:
                _insert(name, 1, version)


def begin_generation(name: str, version: int) -> Place:
    """A new, empty generation beside the live one, in the caller's transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE projections_pointer SET newest_generation = newest_generation + 1"
            " WHERE name = %s",
            [name],
        )
        cursor.execute("SELECT newest_generation FROM projections_pointer WHERE name = %s", [name])
        (generation,) = cursor.fetchone()
    return _insert(name, generation, version)


def point_to(place: Place) -> None:
    """Let `place` be the generation that is read, in the caller's transaction.

    All others lose their positions, so that whoever still fills them is overtaken.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE projections_pointer SET generation = %s WHERE name = %s",
            [place.generation, place.name],
        )
        cursor.execute(
            "DELETE FROM projections_position WHERE name = %s AND generation <> %s",
            [place.name, place.generation],
        )


def move(places: Sequence[Place], position: int) -> Command:
    """The compare-and-set for places at one position; it touches as many rows, or it has failed.

    Fewer when somebody else was first at one of them: whoever made it has been overtaken.
    """
    (before,) = {place.position for place in places}
    if connection.vendor == "postgresql":
        names, generations = [[getattr(place, key) for place in places] for key in _KEY]
        gated = _MOVE_GATED.replace("{count}", str(len(places)))
        given = [f"{{{','.join(map(str, column))}}}" for column in (names, generations)]
        return Command(_MOVE_POSTGRES, [*given, before, position], gated=gated)
    keys = [value for place in places for value in (place.name, place.generation)]
    return Command(
        _MOVE_SQLITE.format(", ".join(["(?, ?)"] * len(places))), [position, before, *keys]
    )


def announcement(places: Sequence[Place], position: int) -> list[Command]:
    """What tells other processes, once it is committed, how far these read models are."""
    if connection.vendor != "postgresql":
        return []
    payload = ",".join(f"{place.name}:{position}" for place in places)
    parameters = [PROJECTED_CHANNEL, payload]
    return [Command("SELECT pg_notify(%s, %s)", parameters, gated=_ANNOUNCE_GATED)]


_LIVE = """
SELECT pointer.name, pointer.generation, place.position, place.version
FROM projections_pointer pointer JOIN projections_position place
  ON place.name = pointer.name AND place.generation = pointer.generation"""


_KEY = ("name", "generation")
_MOVE_SQLITE = (
    "UPDATE projections_position SET position = ?"
    " WHERE position = ? AND (name, generation) IN (VALUES {})"
)
# An UPDATE would lock the rows in the order in which it finds them.
_HELD = """
WITH held AS MATERIALIZED (
  SELECT place.name, place.generation FROM projections_position place
  JOIN unnest(%s::text[], %s::int[]) AS given(name, generation)
    ON given.name = place.name AND given.generation = place.generation
  WHERE place.position = %s ORDER BY place.name FOR UPDATE OF place
)"""
_MOVE = """
UPDATE projections_position place SET position = %s FROM held
WHERE place.name = held.name AND place.generation = held.generation"""
_MOVE_POSTGRES = _HELD + _MOVE
#: As the beginning and the end of one statement with all that a batch writes
#: (`projections.at_once`): all places move, or none.
_MOVE_GATED = "".join(
    (
        *(_HELD, ", each_moved AS (", _MOVE),
        " AND (SELECT count(*) FROM held) = {count} RETURNING 1),",
        " moved AS MATERIALIZED (SELECT count(*), count(*) = {count} AS done FROM each_moved)",
    )
)
_ANNOUNCE_GATED = "SELECT count, CASE WHEN done THEN pg_notify(%s, %s) END FROM moved"


_BESIDE = """
SELECT place.name, place.generation, place.position, place.version
FROM projections_position place JOIN projections_pointer pointer ON pointer.name = place.name
WHERE place.name = %s AND place.generation <> pointer.generation
ORDER BY place.generation DESC"""


def _places(sql: str, parameters: Sequence[str] = ()) -> dict[str, Place]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return {row[0]: Place(*row) for row in cursor.fetchall()}


def _insert(name: str, generation: int, version: int) -> Place:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO projections_position (name, generation, position, version)"
            " VALUES (%s, %s, 0, %s)",
            [name, generation, version],
        )
    return Place(name, generation, 0, version)
