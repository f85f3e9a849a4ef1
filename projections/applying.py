"""One batch of events onto read models, rows and positions together, exactly once."""

from collections.abc import Sequence
from dataclasses import replace

from django.db import DataError, Error, IntegrityError, ProgrammingError

from eventstore.reading import RecordedEvent
from projections.positions import Overtaken, Place, announcement, move
from projections.projection import Projection
from projections.sql import Command, execute


def apply_together(
    projections: Sequence[tuple[type[Projection], Place]],
    events: Sequence[RecordedEvent],
    position: int,
    *,
    announced: bool,
) -> list[Place]:
    """Write a batch for projections at one position and move them to `position`.

    In the caller's transaction, which must be rolled back when this raises: `Overtaken`, or what
    the events lead to.
    """
    places = [place for _, place in projections]
    commands = [move(place, position) for place in places]
    for projection, place in projections:
        commands += writes(projection, place, events)
    if announced:
        commands += announcement(places, position)
    touched = execute(commands)
    if not all(touched[: len(places)]):
        raise Overtaken("another runner was first")
    return [replace(place, position=position) for place in places]


def writes(
    projection: type[Projection], place: Place, events: Sequence[RecordedEvent]
) -> list[Command]:
    """The rows of a batch, without the position."""
    return [
        write.statement.command(place.generation, write.rows) for write in projection.fold(events)
    ]


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
