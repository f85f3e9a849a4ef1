"""Stops the work on messages that have ended otherwise: cancelled, deleted, past their deadline.

The log says so, and one look for all messages that this process works on, twice a second, is enough
to hear it: no signal that could be lost.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID

from conversations.ends import ended_among
from eventstore.database import StoreUnavailable, guarded

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5


class _Watch:
    """One thread a process; it sleeps while there is nothing to watch."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[UUID, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None

    def add(self, message_id: UUID, stop: Callable[[], None]) -> None:
        with self._changed:
            self._watched[message_id] = stop
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()
            if len(self._watched) == 1:
                self._changed.notify()

    def remove(self, message_id: UUID) -> None:
        with self._changed:
            self._watched.pop(message_id, None)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._watched)
                before = dict(self._watched)
            pause.wait(LOOK_SECONDS)
            with self._changed:
                # What has begun since will be looked at next time; most of it is done by then.
                still = {each: stop for each, stop in before.items() if each in self._watched}
            try:
                self._look(still)
            except StoreUnavailable as error:
                logger.debug("nobody knows whether messages have ended: %s", error)
            except Exception:
                logger.exception("the work on messages that have ended was not stopped")

    def _look(self, watched: Mapping[UUID, Callable[[], None]]) -> None:
        for message_id in guarded(ended_among, watched.keys()) if watched else ():
            watched[message_id]()


_watch = _Watch()


@contextmanager
def stopped_when_ended(message_id: UUID, stop: Callable[[], None]) -> Iterator[None]:
    """Have `stop` called within a second once the message has an end."""
    _watch.add(message_id, stop)
    try:
        yield
    finally:
        _watch.remove(message_id)
