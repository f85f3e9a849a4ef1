"""Events that a projection cannot handle: set aside with their stream, while the rest goes on."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from django.db import transaction
from structlog.contextvars import bound_contextvars

from eventstore.database import writing
from eventstore.reading import RecordedEvent, read_events
from projections import parked_events
from projections.applying import is_fault_of_the_event, writes
from projections.positions import Overtaken, Place, lock_live, move
from projections.projection import Projection
from projections.sql import execute

logger = logging.getLogger(__name__)

#: Parked events of one stream that a retry applies in one transaction.
RETRY_EVENTS_MAX = 100
ERROR_CHARACTERS_MAX = 500


def apply_carefully(
    projection: type[Projection], place: Place, events: Sequence[RecordedEvent], position: int
) -> Place:
    """Write a batch for one projection, parking what it cannot handle, and move it to `position`.

    In the caller's transaction. Raises `Overtaken`, or the database's own errors: nothing is parked
    for those.
    """
    if execute([move([place], position)]) != [1]:
        raise Overtaken("another runner was first")
    wanted = [event for event in events if event.topic in projection.handlers]
    parked = parked_events.parked_among(place, {event.stream_id for event in wanted})
    try:
        _apply(projection, place, [event for event in wanted if event.stream_id not in parked])
    except Exception as error:
        if not is_fault_of_the_event(error):
            raise
        _apply_one_by_one(projection, place, wanted, parked)
    else:
        for event in wanted:
            if event.stream_id in parked:
                parked_events.park(place, event, _behind(parked[event.stream_id]))
    return replace(place, position=position)


@dataclass(frozen=True, slots=True)
class Retried:
    """What a retry came to for one stream: events applied, events still parked, and why."""

    projection: str
    stream_id: UUID
    applied: int
    remaining: int
    error: str


def retry(projection: type[Projection], stream_id: UUID) -> Retried:
    """Apply the parked events of one stream in order, until none is left or one fails again."""
    applied, remaining, error = 0, 1, ""
    while remaining and not error:
        with writing():
            # The runner waits for its position meanwhile, so nothing is parked behind our back.
            place = _locked(projection)
            for position in parked_events.positions_of(place, stream_id, RETRY_EVENTS_MAX):
                (event,) = read_events(position - 1, upto=position)
                if error := _try(projection, place, event, again=True):
                    parked_events.note_error(place, event, error)
                    break
                parked_events.unpark(place, event)
                applied += 1
            remaining = parked_events.count_of(place, stream_id)
    return Retried(projection.name, stream_id, applied, remaining, error)


def explained(error: Exception) -> str:
    """An error in one line that any database stores."""
    text = " ".join(f"{type(error).__name__}: {error}".replace("\0", "").split())
    return text[:ERROR_CHARACTERS_MAX]


def _locked(projection: type[Projection]) -> Place:
    try:
        return lock_live([projection.name])[projection.name]
    except Overtaken:  # a rebuild was swapped in while we waited: its row is the one now
        return lock_live([projection.name])[projection.name]


def _apply(projection: type[Projection], place: Place, events: Sequence[RecordedEvent]) -> None:
    with transaction.atomic():  # a savepoint: what a failing batch has written goes back
        execute(writes(projection, place, events))


def _apply_one_by_one(
    projection: type[Projection],
    place: Place,
    events: Iterable[RecordedEvent],
    parked: dict[UUID, int],
) -> None:
    for event in events:
        if event.stream_id in parked:
            parked_events.park(place, event, _behind(parked[event.stream_id]))
        elif error := _try(projection, place, event):
            with bound_contextvars(request_id=event.request_id):
                logger.error(
                    "%s cannot apply event %d (%s of stream %s), which is parked with its"
                    " stream: %s",
                    place.name,
                    event.position,
                    event.topic,
                    event.stream_id,
                    error,
                )
            parked[event.stream_id] = event.position
            parked_events.park(place, event, error)


def _try(
    projection: type[Projection], place: Place, event: RecordedEvent, *, again: bool = False
) -> str:
    """Apply one event; the error that it is to blame for, or nothing."""
    try:
        if not (again and projection.is_void(event)):
            _apply(projection, place, [event])
    except Exception as error:
        if not is_fault_of_the_event(error):
            raise
        return explained(error)
    return ""


def _behind(position: int) -> str:
    return f"waits behind event {position} of its stream"
