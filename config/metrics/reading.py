"""A look at something that may hang, by whoever must not."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Reading(Generic[T]):
    """One look at a time, in a thread of its own, that all who ask meanwhile share.

    One that hangs is not followed by more.
    """

    def __init__(self, name: str, look: Callable[[], T], *, seconds_max: float) -> None:
        self._name = name
        self._look = look
        self._seconds_max = seconds_max
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"look-{name}")
        self._guard = threading.Lock()
        self._looking: Future[T] | None = None

    def begin(self) -> "Future[T]":
        """Begin a look, unless one is under way."""
        with self._guard:
            if self._looking is None or self._looking.done():
                self._looking = self._thread.submit(self._look)
            return self._looking

    def result(self, looking: "Future[T]") -> T | None:
        """What a look finds; None when it fails or takes too long."""
        try:
            return looking.result(self._seconds_max)
        except Exception as error:  # noqa: BLE001 (whatever is wrong: a metric says that it is)
            logger.debug("the %s cannot be looked at: %s", self._name, error)
            return None

    def close(self) -> None:
        """Look no more; a look that hangs is left to itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)
