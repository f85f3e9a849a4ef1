"""Where the log and its followers stand, by the database."""

from dataclasses import dataclass

from django.db import connection

from eventstore.reading import clock_now, max_position
from projections import positions
from projections.registry import PROJECTIONS

#: Pending messages are counted by age, in seconds, up to each of these bounds and beyond the last.
AGES_SECONDS = (10, 60)
#: Messages count as overdue so long after their deadline: the sweeper, which fails them, comes once
#: a second, and a restart of the followers is no reason for an alarm.
OVERDUE_SECONDS = 10
SEALER = "sealer"


@dataclass(frozen=True, slots=True)
class Lag:
    """How many events a follower has before it, and since when the first of them has been there."""

    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What the gauges show; ages in seconds, by the clock of the log."""

    position: int
    lags: dict[str, Lag]
    parked: dict[str, int]
    pending: dict[str, int]
    pending_oldest_seconds: float
    overdue: int
    sealed_position: int
    seal_age_seconds: float
    destroyed_keys: int
    destroyed_oldest_seconds: float


def read_standing() -> Standing:
    """Look at the database; a look costs a handful of queries by index."""
    now, last = clock_now(), max_position()
    sealed, sealed_at = _newest_checkpoint()
    reached = {name: place.position for name, place in positions.live().items()}
    reached = {name: reached.get(name, 0) for name in PROJECTIONS} | {SEALER: sealed}
    since = {position: _waits_since(position) for position in set(reached.values())}
    pending, pending_oldest_at, overdue = _pending(now)
    destroyed, destroyed_oldest_at = _destroyed()
    return Standing(
        position=last,
        lags={
            name: Lag(max(0, last - position), _age(now, since[position]))
            for name, position in reached.items()
        },
        parked=dict.fromkeys(PROJECTIONS, 0) | _parked(),
        pending=pending,
        pending_oldest_seconds=_age(now, pending_oldest_at),
        overdue=overdue,
        sealed_position=sealed,
        seal_age_seconds=_age(now, sealed_at),
        destroyed_keys=destroyed,
        destroyed_oldest_seconds=_age(now, destroyed_oldest_at),
    )


def age_names() -> list[str]:
    """The groups that pending messages are counted in: `0-10s`, `10-60s`, `60s+`."""
    bounds = (0, *AGES_SECONDS)
    names = [f"{low}-{high}s" for low, high in zip(bounds, AGES_SECONDS, strict=False)]
    return [*names, f"{bounds[-1]}s+"]


def _age(now: int, at: int | None) -> float:
    return max(0, now - at) / 1_000_000 if at is not None else 0.0


def _newest_checkpoint() -> tuple[int, int | None]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT last, at FROM eventstore_checkpoint ORDER BY number DESC LIMIT 1")
        return cursor.fetchone() or (0, None)


def _waits_since(position: int) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT at FROM eventstore_event WHERE position > %s ORDER BY position LIMIT 1",
            [position],
        )
        row = cursor.fetchone()
    return row[0] if row else None


def _parked() -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT parked.projection, count(*) FROM projections_parked parked"
            " JOIN projections_pointer pointer ON pointer.name = parked.projection"
            " AND pointer.generation = parked.generation GROUP BY parked.projection"
        )
        # Rows of a projection that there is no more are nobody's trouble.
        return {name: count for name, count in cursor.fetchall() if name in PROJECTIONS}


def _pending(now: int) -> tuple[dict[str, int], int | None, int]:
    younger = [now - seconds * 1_000_000 for seconds in AGES_SECONDS]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), min(sent_at), count(CASE WHEN deadline_at < %s THEN 1 END)"  # noqa: S608 (constants)
            + ", count(CASE WHEN sent_at > %s THEN 1 END)" * len(younger)
            + " FROM projections_pending WHERE generation ="
            " (SELECT generation FROM projections_pointer WHERE name = 'pending')",
            [now - OVERDUE_SECONDS * 1_000_000, *younger],
        )
        count, oldest_at, overdue, *up_to = cursor.fetchone()
    counts = [high - low for low, high in zip((0, *up_to), (*up_to, count), strict=True)]
    return dict(zip(age_names(), counts, strict=True)), oldest_at, overdue


def _destroyed() -> tuple[int, int | None]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), min(at) FROM eventstore_destruction")
        count, oldest_at = cursor.fetchone()
    return count, oldest_at
