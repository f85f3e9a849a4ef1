"""Handing over in groups: one thread at a time delivers what many hand over, all that is there.

What gathers while a delivery is under way shares the next one. So the cost of a round trip is
shared by whoever comes meanwhile, and who comes alone pays what he would pay himself.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: What one delivery takes at most, and what may wait for one.
TOGETHER_MAX = 256
WAITING_MAX = 10_000


class TooManyWait(Exception):
    """Nothing more is taken: deliveries do not keep up, or fail."""


class Gathering(Generic[T]):
    """Delivers from a thread of its own, or at the end of `gathered` from its caller's.

    `deliver` is called by one thread at a time. What it cannot deliver is lost, with a line of log
    for the first of a row of failures: this is for what somebody else brings again.
    """

    def __init__(self, name: str, deliver: Callable[[Sequence[T]], None], lost: str) -> None:
        self._name = name
        self._deliver = deliver
        self._lost = lost
        self._waiting: deque[T | threading.Event] = deque()
        #: Whoever has it delivers.
        self._turn = threading.Lock()
        self._some_wait = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failing = False

    def add(self, thing: T) -> None:
        """Have it delivered soon; never waits. Raises `TooManyWait`."""
        if len(self._waiting) >= WAITING_MAX:
            raise TooManyWait(f"{WAITING_MAX} wait already")
        self._waiting.append(thing)
        if _here.owed is None:
            self._wake()
        else:
            _here.owed[self] = None

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until all that was added so far is delivered or lost, but not for ever."""
        if not self._waiting and not self._turn.locked():
            return True
        flushed = threading.Event()
        self._waiting.append(flushed)
        self._wake()
        return flushed.wait(timeout_seconds)

    def hand_over(self, *, here: bool) -> None:
        """Have what waits delivered: `here` in this thread, once, unless another is at it."""
        if here and self._turn.acquire(blocking=False):
            try:
                self._deliver_some()
            finally:
                self._turn.release()
        self._wake()

    def _wake(self) -> None:
        if not self._waiting:
            return
        self._some_wait.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            self._some_wait.wait()
            self._some_wait.clear()
            with self._turn:
                while self._waiting:
                    self._deliver_some()

    def _deliver_some(self) -> None:
        """Take what waits and deliver it; whoever calls has the turn."""
        batch: list[T | threading.Event] = []
        with suppress(IndexError):
            while len(batch) < TOGETHER_MAX:
                batch.append(self._waiting.popleft())
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


class _Here(threading.local):
    """What this thread is to hand over itself, while it is to."""

    owed: "dict[Gathering[Any], None] | None" = None


_here = _Here()


@contextmanager
def gathered(*, here: bool = False) -> Iterator[None]:
    """What this thread adds in the block is handed over at its end, all of it together.

    With `here` this thread delivers it, for one that has nothing else to do: it waits for the round
    trip, and saves waking another that fights for the interpreter's lock first. While another is
    delivering, that one takes it along. A block within a block belongs to the outer one.
    """
    if _here.owed is not None:
        yield
        return
    owed = _here.owed = {}
    try:
        yield
    finally:
        _here.owed = None
        for gathering in owed:
            gathering.hand_over(here=here)
