"""One batch of events onto read models, rows and positions together, exactly once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from django.db import DataError, Error, IntegrityError, ProgrammingError

from eventstore.database import writing
from eventstore.reading import RecordedEvent
from projections.at_once import at_once
from projections.positions import Overtaken, Place, announcement, move
from projections.projection import Projection
from projections.sql import Command, execute, execute_alone

Pairs = Sequence[tuple[type[Projection], Place]]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch of events comes to, and where it moves the positions."""

    commands: Sequence[Command]
    moved: list[Place]
    #: The same as one statement, where there is one.
    at_once: Command | None = None


def prepare(
    projections: Pairs, events: Sequence[RecordedEvent], position: int, *, announced: bool
) -> Batch:
    """Fold a batch for projections at one position; the database is not asked.

    So whoever writes it holds SQLite's one write lock for the writing alone. Raises what the events
    lead to.
    """
    places = [place for _, place in projections]
    moving, telling = move(places, position), announcement(places, position) if announced else []
    rows = [each for projection, place in projections for each in writes(projection, place, events)]
    return Batch(
        [moving, *rows, *telling],
        [replace(place, position=position) for place in places],
        at_once(moving, rows, telling[0]) if telling else None,
    )


def write(batch: Batch, first: Sequence[Command] = ()) -> list[Place]:
    """Write a batch in the caller's transaction, which must be rolled back when this raises.

    `first` is executed before it. Raises `Overtaken`, or what the database says about the rows.
    """
    touched = execute([*first, *batch.commands])[len(first) :]
    if touched[0] != len(batch.moved):
        raise Overtaken("another runner was first")
    return batch.moved


def write_alone(batch: Batch) -> list[Place]:
    """Write a batch in a transaction of its own. Raises as `write`."""
    if batch.at_once is None:
        with writing():
            return write(batch)
    if execute_alone(batch.at_once) != len(batch.moved):
        raise Overtaken("another runner was first")
    return batch.moved


def apply_together(
    projections: Pairs, events: Sequence[RecordedEvent], position: int, *, announced: bool
) -> list[Place]:
    """Prepare and write a batch in the caller's transaction."""
    return write(prepare(projections, events, position, announced=announced))


def writes(
    projection: type[Projection], place: Place, events: Sequence[RecordedEvent]
) -> list[Command]:
    """The rows of a batch, without the position."""
    return [each.statement.command(place.generation, each.rows) for each in projection.fold(events)]


def is_fault_of_the_event(error: Exception) -> bool:
    """Whether an event, not the database or the machine, made this error.

    A database that is away, full or locked must never have events parked for it. Its refusals are
    the event's fault when they speak of the data: out of range, the same key twice.
    """
    if isinstance(error, ProgrammingError):
        # Refused by the driver before anything was sent: a value of a type that no column takes.
        return getattr(error.__cause__, "sqlstate", None) is None
    if isinstance(error, DataError | IntegrityError):
        return True
    return not isinstance(error, Error | MemoryError | Overtaken)
