"""Rebuilding read models from the log, beside the live ones, while everything goes on.

A new generation is filled in batches and catches up. Then, in one transaction in which the live
runner waits for its position, what is missing is applied and the pointer moves. Old rows go in
bounded batches. All that a rebuild knows stands in the database, so an interrupted one is gone on
with by the next, and of two at once the positions let only one go on.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from django.db import connection, transaction

from eventstore.database import writing
from eventstore.reading import RecordedEvent, max_position, read_events
from projections import positions, progress
from projections.applying import (
    Pairs,
    apply_together,
    is_fault_of_the_event,
    prepare,
    write,
    writes,
)
from projections.generations import (
    Courtesy,
    Projections,
    discard,
    give_room_back,
    make_room,
    remove_dead_rows,
    take_up,
    without_waiting_for_the_disk,
)
from projections.parking import explained
from projections.positions import Overtaken, Place
from projections.sql import execute

#: Events that share a transaction at most: more than in the runner, since a message that is sent
#: and ends in the same batch is written once.
BATCH_EVENTS_MAX = 2_000
#: On SQLite the one write lock is held for some milliseconds, and senders wait for it. While there
#: are none, a larger batch writes fewer pages: most are written once a transaction.
SQLITE_BATCH_EVENTS_MAX = 300
SQLITE_ALONE_BATCH_EVENTS_MAX = 5_000

#: Told after each batch: events applied, events in the log.
Report = Callable[[int, int], None]


class RebuildStopped(Exception):
    """The rebuild ended without a swap; the live read models are as they were."""


class EventRefused(RebuildStopped):
    """The projection of this name cannot handle an event."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


def rebuild(projections: Projections, report: Report | None = None) -> None:
    """Replace the read models by ones replayed from the log; readers see the old or the new rows.

    Goes on with what an interrupted rebuild by the same code has left. Raises `RebuildStopped` at
    an event that a projection cannot handle, or when another rebuild is at the same read models.
    """
    Rebuild(projections, report).run()


class Rebuild:
    """A rebuild on its way, a bounded step at a time; nothing of it is lost with this object."""

    def __init__(self, projections: Projections, report: Report | None = None) -> None:
        self.projections = projections
        self.places = take_up(projections)
        self._report = report
        self._end = max_position()
        self._courtesy = Courtesy()

    @property
    def position(self) -> int:
        """How far all of the new generations are."""
        return min(place.position for place in self.places)

    def run(self) -> None:
        """Step to the end, and remove what nobody can read any more, before and after."""
        remove_dead_rows(self.projections)
        try:
            while self.step():
                pass
        except EventRefused:
            self.give_up()
            remove_dead_rows(self.projections)
            raise
        except Overtaken:
            raise RebuildStopped(
                f"another rebuild of {', '.join(self.projections)} goes on, or was faster"
            ) from None
        remove_dead_rows(self.projections)

    def step(self) -> bool:
        """Apply a batch, or swap; False after the swap. Raises `EventRefused` or `Overtaken`."""
        before = self.position
        self.places, more = advance(self.projections, self.places, self._courtesy)
        if self._report and self.position > before:
            if self.position >= self._end:
                self._end = max_position()
            self._report(self.position, self._end)
        return more or not self._swap()

    def give_up(self) -> None:
        """Let nobody go on with this."""
        discard(self.places)
        give_room_back()

    def _swap(self) -> bool:
        with writing():
            live = positions.lock_live(self.projections)
            if any(live[place.name].generation == place.generation for place in self.places):
                raise Overtaken("somebody else has gone on with this rebuild, to its end")
            end = max(place.position for place in live.values())
            finished = finish_to(self.projections, self.places, end)
            if finished is None:
                return False
            for place in finished:
                positions.point_to(place)
            execute(positions.announcement(finished, finished[0].position))
        give_room_back()
        self.places = finished
        progress.advance({place.name: place.position for place in finished})
        return True


def advance(
    projections: Projections,
    places: Sequence[Place],
    courtesy: Courtesy,
    upto: int | None = None,
) -> tuple[list[Place], bool]:
    """Apply a batch to those that are the furthest behind; the places, and whether more is left.

    Those at the same position share a read and a transaction, as they do in the runner.
    """
    lowest, *above = sorted({place.position for place in places})
    bound = min([*above[:1], *([] if upto is None else [upto])], default=None)
    limit = _batch_events_max(is_alone=courtesy.is_alone)
    make_room()
    events = read_events(lowest, limit, bound)
    if not events:
        return list(places), False
    behind = [place for place in places if place.position == lowest]
    with _blamed(projections, behind, events) as pairs:
        batch = prepare(pairs, events, events[-1].position, announced=False)
        began = time.monotonic()
        with without_waiting_for_the_disk() as first, writing():
            moved = {place.name: place for place in write(batch, first)}
        courtesy.pause(time.monotonic() - began)
    more = bool(above) or len(events) == limit
    return [moved.get(place.name, place) for place in places], more


def catch_up(
    projections: Projections,
    places: Sequence[Place],
    *,
    upto: int | None = None,
    report: Report | None = None,
) -> list[Place]:
    """Apply what the log holds, at most to `upto`, a batch a transaction."""
    places, more, end = list(places), True, max_position() if upto is None else upto
    courtesy = Courtesy()
    while more:
        before = min(place.position for place in places)
        places, more = advance(projections, places, courtesy, upto)
        position = min(place.position for place in places)
        if report and position > before:
            report(position, max(end, position))
    return places


def finish_to(projections: Projections, places: Sequence[Place], upto: int) -> list[Place] | None:
    """In the caller's transaction, apply what is left to `upto`; None if that is over a batch."""
    lowest, highest = (pick(place.position for place in places) for pick in (min, max))
    if lowest < highest or upto - lowest > _batch_events_max(is_alone=False):
        return None
    if upto <= lowest:
        _hold(places)
        return list(places)
    events = read_events(lowest, upto - lowest, upto)
    with _blamed(projections, places, events) as pairs, transaction.atomic():
        return apply_together(pairs, events, events[-1].position, announced=False)


def _batch_events_max(*, is_alone: bool) -> int:
    if connection.vendor != "sqlite":
        return BATCH_EVENTS_MAX
    if is_alone:
        return SQLITE_ALONE_BATCH_EVENTS_MAX
    return min(BATCH_EVENTS_MAX, SQLITE_BATCH_EVENTS_MAX)


def _hold(places: Sequence[Place]) -> None:
    """Keep everybody else from moving these generations until the caller's transaction ends."""
    if execute([positions.move(places, places[0].position)]) != [len(places)]:
        raise Overtaken("somebody else has moved this generation, or given it up")


@contextlib.contextmanager
def _blamed(
    projections: Projections, places: Sequence[Place], events: Sequence[RecordedEvent]
) -> Iterator[Pairs]:
    """Name the event that stops the block."""
    pairs = [(projections[place.name], place) for place in places]
    try:
        yield pairs
    except Exception as error:
        if not is_fault_of_the_event(error):
            raise
        with writing():  # rolled back by what it raises
            # Somebody else's rows of the same events are no fault of the events.
            _hold(places)
            raise _refused(pairs, events, error) from error


def _refused(pairs: Pairs, events: Sequence[RecordedEvent], error: Exception) -> EventRefused:
    """Which event stops which projection, found one by one."""
    for projection, place in pairs:
        for event in events:
            try:
                with transaction.atomic():
                    execute(writes(projection, place, [event]))
            except Exception as found:
                if not is_fault_of_the_event(found):
                    raise
                return EventRefused(
                    place.name,
                    f"{place.name} cannot apply event {event.position}"
                    f" ({event.topic} of stream {event.stream_id}): {explained(found)}",
                )
    names = ", ".join(place.name for _, place in pairs)
    return EventRefused(
        pairs[0][1].name,
        f"the events up to {events[-1].position} cannot be applied together to {names}:"
        f" {explained(error)}",
    )
