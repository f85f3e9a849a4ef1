"""Handing over in groups: one thread delivers what many hand to it, all that is there at once.

What gathers while a delivery is under way shares the next one. So the cost of a round trip is
shared by whoever comes meanwhile, and who comes alone pays what he would pay himself.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: What one delivery takes at most, and what may wait for one.
TOGETHER_MAX = 256
WAITING_MAX = 10_000


class TooManyWait(Exception):
    """Nothing more is taken: deliveries do not keep up, or fail."""


class Gathering(Generic[T]):
    """Delivers from a thread of its own, which starts with the first thing that is handed to it.

    `deliver` is called by that thread alone. What it cannot deliver is lost, with a line of log for
    the first of a row of failures: this is for what somebody else brings again.
    """

    def __init__(self, name: str, deliver: Callable[[Sequence[T]], None], lost: str) -> None:
        self._name = name
        self._deliver = deliver
        self._lost = lost
        self._waiting: queue.SimpleQueue[T | threading.Event] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failing = False

    def add(self, thing: T) -> None:
        """Have it delivered soon; never waits. Raises `TooManyWait`."""
        if self._waiting.qsize() >= WAITING_MAX:
            raise TooManyWait(f"{WAITING_MAX} wait already")
        self._put(thing)

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until all that was added so far is delivered or lost, but not for ever."""
        if self._thread is None:
            return True
        flushed = threading.Event()
        self._put(flushed)
        return flushed.wait(timeout_seconds)

    def _put(self, thing: "T | threading.Event") -> None:
        self._waiting.put(thing)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            with suppress(queue.Empty):
                while len(batch) < TOGETHER_MAX:
                    batch.append(self._waiting.get_nowait())
            things = [each for each in batch if not isinstance(each, threading.Event)]
            if things:
                self._deliver_all(things)
            for each in batch:
                if isinstance(each, threading.Event):
                    each.set()

    def _deliver_all(self, things: Sequence[T]) -> None:
        try:
            self._deliver(things)
        except Exception as error:  # noqa: BLE001 (it must not die of anything)
            if not self._failing:
                logger.warning("%s (%d): %s", self._lost, len(things), error)
            self._failing = True
        else:
            self._failing = False
