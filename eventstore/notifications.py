"""Word from other processes: PostgreSQL's LISTEN, and always a look of our own once a second.

Callbacks run in the thread that listens. On SQLite there is one process and nobody to listen to,
but a command in a shell may write, so the look once a second stays.
"""

import logging
import select
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from django.db import connection

from eventstore.append import APPENDED_CHANNEL
from eventstore.database import CONNECTION_ERRORS
from eventstore.marker import appended
from eventstore.reading import max_position

logger = logging.getLogger(__name__)

#: The longest that a lost notification stays unnoticed.
POLL_SECONDS = 1.0

_callbacks: dict[str, list[Callable[[str], None]]] = defaultdict(list)
_polls: list[Callable[[], None]] = []
_listener: "Listener | None" = None
_guard = threading.Lock()


def on(channel: str, callback: Callable[[str], None]) -> None:
    """Call back with the payload of every notification on `channel`."""
    _callbacks[channel].append(callback)


def on_poll(callback: Callable[[], None]) -> None:
    """Call back after each second of silence and whenever listening begins anew."""
    _polls.append(callback)


def start(*channels: str) -> None:
    """Start this process's listener on some channels; a second call changes nothing.

    A process listens only to what it waits for: every announcement wakes it.
    """
    global _listener  # noqa: PLW0603 (one a process)
    with _guard:
        if _listener is None:
            _listener = Listener(channels)
            _listener.start()


def stop() -> None:
    """Stop it and wait until its thread has ended."""
    global _listener
    with _guard:
        listener, _listener = _listener, None
    if listener is not None:
        listener.stopping.set()
        listener.join(POLL_SECONDS * 3)


class Ear:
    """A connection of its own that hears some channels, for the one thread that waits on it.

    It reads from libpq itself: the driver's generator costs as much as the rest of a wake-up.
    """

    def __init__(self, *channels: str) -> None:
        self._channels = channels
        self._connection: Any = None
        self._readable = select.poll()

    def hear(self, timeout_seconds: float) -> bool:
        """Wait for word and call back for all that is there; False if there was none.

        The first call connects, and so does one after a failure: it hears nothing yet, and what
        was announced before is for the caller to look after. Raises what Django raises for a
        connection that is lost.
        """
        if self._connection is None:
            self._connect()
            return False
        if not self._readable.poll(timeout_seconds * 1000):
            return False
        try:
            with self._connection.wrap_database_errors:
                return self._take()
        except Exception:
            self.close()
            raise

    def is_open(self) -> bool:
        """Whether it listens, as far as it knows."""
        return self._connection is not None

    def close(self) -> None:
        """Hear nothing any more."""
        if self._connection is not None:
            self._readable.unregister(self._descriptor)
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        own = connection.copy()
        try:
            with own.cursor() as cursor:
                for channel in self._channels:
                    cursor.execute(f'LISTEN "{channel}"')
        except Exception:
            own.close()
            raise
        self._connection, self._descriptor = own, own.connection.fileno()
        self._readable.register(self._descriptor, select.POLLIN)

    def _take(self) -> bool:
        line = self._connection.connection.pgconn
        line.consume_input()
        heard = False
        while notification := line.notifies():
            heard = True
            payload = notification.extra.decode()
            for callback in _callbacks[notification.relname.decode()]:
                callback(payload)
        return heard


class AppendsHeard:
    """How far PostgreSQL has announced the log to be, for the one thread that follows it.

    That thread listens itself, while it waits: between an append and whoever shows it stands no
    other one. Where nothing can be heard it looks by itself, as often as it likes to wait.
    """

    def __init__(self) -> None:
        self._ear = Ear(APPENDED_CHANNEL)
        self._complained = False

    @property
    def value(self) -> int:
        """The highest position that has been announced."""
        self._hear(0)
        return appended.value

    def wait(self, at_least: int, timeout_seconds: float) -> bool:
        """Block until `at_least` has been announced; False for another reason to look by oneself.

        That is the end of the time, and that it has only just begun to listen.
        """
        if not self._ear.is_open():
            self._hear(0)
            return not self._ear.is_open() and appended.wait(at_least, timeout_seconds)
        until = time.monotonic() + timeout_seconds
        while appended.value < at_least:
            if not self._hear(max(0.0, until - time.monotonic())):
                return False
        return True

    def close(self) -> None:
        """Listen no more; for the thread that did."""
        self._ear.close()

    def _hear(self, timeout_seconds: float) -> bool:
        try:
            heard = self._ear.hear(timeout_seconds)
        except CONNECTION_ERRORS as error:
            if not self._complained:
                logger.warning("appends are looked for, not heard: %s", error)
            self._complained = True
            return False
        self._complained = self._complained and not heard
        return heard


class Listener(threading.Thread):
    """A thread that hears what other processes announce."""

    def __init__(self, channels: Sequence[str]) -> None:
        super().__init__(name="listener", daemon=True)
        self.stopping = threading.Event()
        self._ear = Ear(*channels)

    def run(self) -> None:
        complained = False
        while not self.stopping.is_set():
            try:
                if connection.vendor != "postgresql":
                    _poll()
                    self.stopping.wait(POLL_SECONDS)
                elif not self._ear.hear(POLL_SECONDS):
                    _poll()
                complained = False
            except Exception as error:  # noqa: BLE001 (it must not die of anything)
                if not complained:
                    logger.warning("the listener lost the database and will retry: %s", error)
                complained = True
                connection.close()
                self._ear.close()
                self.stopping.wait(POLL_SECONDS)
        connection.close()
        self._ear.close()


def _poll() -> None:
    for callback in _polls:
        callback()


on(APPENDED_CHANNEL, lambda payload: appended.advance(int(payload)))
on_poll(lambda: appended.advance(max_position()))
