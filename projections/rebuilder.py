"""The follower that rebuilds read models which older code has built, beside the rows that are read.

Raising a projection's `version` is all that a deployment needs: the first process with the new code
that holds the lease replays the log into a new generation, and swaps. Until then the old rows are
read, and the runner goes on with them.
"""

import logging
import time

from projections import positions
from projections.generations import Projections, discard, removing_dead_rows
from projections.positions import Overtaken
from projections.rebuild import EventRefused, Rebuild
from projections.registry import PROJECTIONS

logger = logging.getLogger(__name__)

#: How often it looks whether there is something to rebuild.
LOOK_SECONDS = 10.0
#: How long it stands back where somebody else is at the same rebuild.
STAND_BACK_SECONDS = 5.0
#: The longest pause after a step; a pause is as long as the step was.
PAUSE_SECONDS_MAX = 1.0


class Rebuilder:
    """Rebuilds a bounded batch at a time; a restart, of this process or another, goes on there.

    Every second moment belongs to whoever sends: it is nobody's request that waits for this. A
    read model with an event that the new code refuses keeps its old rows until the next start.
    """

    name = "rebuilds"

    def __init__(self, projections: Projections = PROJECTIONS) -> None:
        self._projections = projections
        self._rebuild: Rebuild | None = None
        # What was swapped out may have been left by a process that was stopped.
        self._removal = removing_dead_rows(projections)
        self._refused: set[str] = set()
        self._look_at = 0.0
        self._seen_at_work: dict[str, int] = {}

    def step(self) -> bool:
        """Rebuild or remove a batch; True when there is more to do."""
        began = time.monotonic()
        try:
            worked = self._work()
        except BaseException:
            # A database that comes back from a failure may have gone back in time.
            self._rebuild = None
            self._removal = removing_dead_rows(self._projections)
            raise
        if worked:
            time.sleep(min(time.monotonic() - began, PAUSE_SECONDS_MAX))
        return worked

    def _work(self) -> bool:
        if next(self._removal, None) is not None:
            return True
        rebuild = self._rebuild or self._begin()
        if rebuild is None:
            return False
        try:
            if rebuild.step():
                return True
            logger.info("%s: rebuilt from %d events", _names(rebuild), rebuild.position)
            self._removal = removing_dead_rows(rebuild.projections)
        except EventRefused as refused:
            logger.error(  # noqa: TRY400 (the event is what matters, not where it was refused)
                "%s is not rebuilt, its old rows are read until this process starts again: %s",
                refused.name,
                refused,
            )
            self._refused.add(refused.name)
            discard([place for place in rebuild.places if place.name == refused.name])
            self._removal = removing_dead_rows(rebuild.projections)
            self._look_at = 0.0
        except Overtaken:
            logger.info("%s: somebody else is at this rebuild", _names(rebuild))
            self._look_at = time.monotonic() + STAND_BACK_SECONDS
            self._seen_at_work = _beside(rebuild.projections)
        self._rebuild = None
        return True

    def _begin(self) -> Rebuild | None:
        if time.monotonic() < self._look_at:
            return None
        self._look_at = time.monotonic() + LOOK_SECONDS
        live = positions.live()
        outdated = {
            name: projection
            for name, projection in self._projections.items()
            if name in live
            and live[name].version < projection.version
            and name not in self._refused
        }
        if not outdated or self._is_somebody_at_work(outdated):
            return None
        self._rebuild = Rebuild(outdated)
        logger.info("%s: rebuilding, from event %d", _names(self._rebuild), self._rebuild.position)
        return self._rebuild

    def _is_somebody_at_work(self, outdated: Projections) -> bool:
        """Whether a rebuild that overtook this one has moved on since the last look."""
        if not self._seen_at_work:
            return False
        before, self._seen_at_work = self._seen_at_work, _beside(outdated)
        if self._seen_at_work == before:
            self._seen_at_work = {}
            return False
        self._look_at = time.monotonic() + STAND_BACK_SECONDS
        return True


def _beside(projections: Projections) -> dict[str, int]:
    """How far the newest generation beside the live one is."""
    return {
        place.name: place.position
        for name in projections
        for place in positions.beside_the_live(name)[:1]
    }


def _names(rebuild: Rebuild) -> str:
    return ", ".join(rebuild.projections)
