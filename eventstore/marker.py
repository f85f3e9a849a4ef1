"""A number that only grows, and that threads can wait for."""

import threading


class Marker:
    """The highest position that something has reached, as far as this process knows."""

    def __init__(self) -> None:
        self._value = 0
        self._changed = threading.Condition()

    @property
    def value(self) -> int:
        return self._value

    def advance(self, position: int) -> None:
        """Note that `position` has been reached; a lower one changes nothing."""
        if position <= self._value:
            return
        with self._changed:
            if position <= self._value:
                return
            self._value = position
            self._changed.notify_all()

    def wait(self, at_least: int, timeout_seconds: float) -> bool:
        """Block until the marker has reached `at_least`; False when the time ran out first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._value >= at_least, timeout_seconds)


#: The highest position of the log that this process knows to be committed.
appended = Marker()
