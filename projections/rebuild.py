"""Rebuilding read models from the log, beside the live ones, while everything goes on.

A new generation is filled in batches and catches up. Then, in one transaction in which the live
runner waits for its position, what is missing is applied and the pointer moves. Old rows go in
bounded batches.
"""

import time
from collections.abc import Callable, Sequence

from django.db import transaction

from eventstore.database import writing
from eventstore.reading import RecordedEvent, max_position, read_events
from projections import positions, progress
from projections.applying import apply_together, is_fault_of_the_event, writes
from projections.generations import (
    Projections,
    begin,
    discard,
    remove_dead_rows,
    yield_to_writers,
)
from projections.parking import explained
from projections.positions import Overtaken, Place
from projections.projection import BATCH_EVENTS_MAX, Projection
from projections.sql import execute

#: Told after each batch: events applied, events in the log.
Report = Callable[[int, int], None]


class RebuildStopped(Exception):
    """The rebuild ended without a swap; the live read models are as they were."""


class EventRefused(RebuildStopped):
    """A projection cannot handle an event."""


def rebuild(projections: Projections, report: Report | None = None) -> None:
    """Replace the read models by ones replayed from the log; readers see the old or the new rows.

    Raises `RebuildStopped` at an event that a projection cannot handle, or when another rebuild of
    the same read models was faster. What an interrupted one has left goes with the old rows.
    """
    places = begin(projections)
    try:
        swapped = False
        while not swapped:
            places = catch_up(projections, places, report=report)
            places, swapped = _swap(projections, places)
        progress.advance({place.name: place.position for place in places})
    except Overtaken:
        raise RebuildStopped("another rebuild of these read models was faster") from None
    finally:
        discard(places)
        remove_dead_rows(projections)


def catch_up(
    projections: Projections,
    places: Sequence[Place],
    *,
    upto: int | None = None,
    report: Report | None = None,
) -> list[Place]:
    """Apply what the log holds, at most to `upto`, a batch a transaction."""
    places, end = list(places), max_position() if upto is None else upto
    while events := read_events(places[0].position, BATCH_EVENTS_MAX, upto):
        began = time.monotonic()
        with writing():
            places = _apply(projections, places, events)
        position = places[0].position
        end = max(end, position)
        if report:
            report(position, end)
        yield_to_writers(time.monotonic() - began)
        if len(events) < BATCH_EVENTS_MAX:
            break
    return places


def finish_to(projections: Projections, places: Sequence[Place], upto: int) -> list[Place] | None:
    """In the caller's transaction, apply what is left to `upto`; None if that is over a batch."""
    behind = upto - places[0].position
    if behind > BATCH_EVENTS_MAX:
        return None
    if behind <= 0:
        if not all(execute([positions.move(place, place.position) for place in places])):
            raise Overtaken("this generation was given up")
        return list(places)
    return _apply(projections, places, read_events(places[0].position, behind, upto))


def _swap(projections: Projections, places: Sequence[Place]) -> tuple[list[Place], bool]:
    with writing():
        live = positions.lock_live(projections)
        finished = finish_to(projections, places, max(each.position for each in live.values()))
        if finished is None:
            return list(places), False
        for place in finished:
            positions.point_to(place)
        execute(positions.announcement(finished, finished[0].position))
    return finished, True


def _apply(
    projections: Projections, places: Sequence[Place], events: Sequence[RecordedEvent]
) -> list[Place]:
    pairs = [(projections[place.name], place) for place in places]
    try:
        with transaction.atomic():
            return apply_together(pairs, events, events[-1].position, announced=False)
    except Exception as error:
        if not is_fault_of_the_event(error):
            raise
        raise EventRefused(_culprit(pairs, events, error)) from error


def _culprit(
    pairs: Sequence[tuple[type[Projection], Place]],
    events: Sequence[RecordedEvent],
    error: Exception,
) -> str:
    """Which event stops which projection, found one by one; nothing of it stays written."""
    for projection, place in pairs:
        for event in events:
            try:
                with transaction.atomic():
                    execute(writes(projection, place, [event]))
            except Exception as found:
                if not is_fault_of_the_event(found):
                    raise
                return (
                    f"{place.name} cannot apply event {event.position}"
                    f" ({event.topic} of stream {event.stream_id}): {explained(found)}"
                )
    return f"the events up to {events[-1].position} cannot be applied together: {explained(error)}"
