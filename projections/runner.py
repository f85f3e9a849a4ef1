"""The follower that keeps the live read models up to date with the log."""

import logging
from collections.abc import Mapping, Sequence

from eventstore.database import writing
from eventstore.reading import RecordedEvent, read_events
from projections import positions, progress
from projections.applying import is_fault_of_the_event, prepare, write_alone
from projections.parked_events import is_any_parked
from projections.parking import apply_carefully
from projections.positions import Overtaken, Place
from projections.projection import BATCH_EVENTS_MAX, Projection
from projections.registry import PROJECTIONS
from projections.sql import execute, keep_plans

logger = logging.getLogger(__name__)

#: Events of a batch whose statements are not worth a plan of their own; for many they are.
FEW_EVENTS = 100


class ProjectionRunner:
    """Applies the log to the live read models, each event exactly once, however many runners run.

    Projections at the same position share a read and a transaction. While one of them has parked
    streams, or has just met an event that it cannot handle, each is written with care instead.
    """

    name = "projections"

    def __init__(self, projections: Mapping[str, type[Projection]] = PROJECTIONS) -> None:
        self.projections = projections
        self._places: dict[str, Place] = {}
        self._parked: set[str] = set()

    def step(self) -> bool:
        """Apply the next batch; True when there is more. Database errors are the caller's.

        What is appended meanwhile is announced, or the next look finds it.
        """
        try:
            if not self._places:
                self._look()
            more = [self._advance(group, upto) for group, upto in self._groups()]
        except Overtaken:
            self._places = {}
            return True
        except BaseException:
            # A database that comes back from a failure may have gone back in time.
            self._places = {}
            raise
        return any(more)

    def _look(self) -> None:
        live = positions.live()
        if missing := self.projections.keys() - live.keys():
            positions.create_missing({name: self.projections[name].version for name in missing})
            live = positions.live()
        self._places = {name: live[name] for name in sorted(self.projections)}
        for name, place in self._places.items():
            self._note_parked(name)
            self._note_version(place)
        progress.advance({name: place.position for name, place in self._places.items()})

    def _note_version(self, place: Place) -> None:
        name, version = place.name, self.projections[place.name].version
        if place.version < version:
            logger.warning(
                "%s was built by version %d of its code, this is %d: it is about to be rebuilt",
                *(name, place.version, version),
            )
        elif place.version > version:
            logger.warning(
                "%s was built by version %d of its code, this is %d, which leaves it as it is;"
                " unless a newer program is running: manage.py replay %s",
                *(name, place.version, version, name),
            )

    def _groups(self) -> list[tuple[list[Place], int | None]]:
        """The places by position, each with the next higher one, where two groups become one.

        Rows that newer code has built are left to it: it shares the log with us until the older
        program is stopped, and what ours would write there may mean something else by now.
        """
        places = [
            place
            for name, place in self._places.items()
            if place.version <= self.projections[name].version
        ]
        heights = sorted({place.position for place in places})
        return [
            ([place for place in places if place.position == height], upto)
            for height, upto in zip(heights, [*heights[1:], None], strict=True)
        ]

    def _advance(self, places: Sequence[Place], upto: int | None) -> bool:
        events = read_events(places[0].position, BATCH_EVENTS_MAX, upto)
        if not events:
            return False
        moved = self._apply(places, events, events[-1].position)
        self._places.update({place.name: place for place in moved})
        progress.advance({place.name: place.position for place in moved})
        return len(events) == BATCH_EVENTS_MAX or upto is not None

    def _apply(
        self, places: Sequence[Place], events: Sequence[RecordedEvent], position: int
    ) -> list[Place]:
        if not any(place.name in self._parked for place in places):
            try:
                keep_plans(kept=len(events) <= FEW_EVENTS)
                pairs = [(self.projections[place.name], place) for place in places]
                return write_alone(prepare(pairs, events, position, announced=True))
            except Exception as error:
                if not is_fault_of_the_event(error):
                    raise
        with writing():
            moved = [
                apply_carefully(self.projections[place.name], place, events, position)
                for place in places
            ]
            execute(positions.announcement(places, position))
        for place in places:
            self._note_parked(place.name)
        return moved

    def _note_parked(self, name: str) -> None:
        # Only a runner parks, and only as it moves a position: none parked stays true until then.
        (self._parked.add if is_any_parked(name) else self._parked.discard)(name)
