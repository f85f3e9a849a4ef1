"""Word from other processes: PostgreSQL's LISTEN, and always a look of our own once a second.

Callbacks run in the listener's thread. On SQLite there is one process and nobody to listen to, but
a command in a shell may write, so the look once a second stays.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from django.db import connection

from eventstore.append import APPENDED_CHANNEL
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


class Listener(threading.Thread):
    """One thread and one connection that hear what other processes append and project."""

    def __init__(self, channels: Sequence[str]) -> None:
        super().__init__(name="listener", daemon=True)
        self.channels = channels
        self.stopping = threading.Event()

    def run(self) -> None:
        complained = False
        while not self.stopping.is_set():
            try:
                if connection.vendor == "postgresql":
                    self._listen()
                else:
                    _poll()
                    self.stopping.wait(POLL_SECONDS)
                complained = False
            except Exception as error:  # noqa: BLE001 (it must not die of anything)
                if not complained:
                    logger.warning("the listener lost the database and will retry: %s", error)
                complained = True
                connection.close()
                self.stopping.wait(POLL_SECONDS)
        connection.close()

    def _listen(self) -> None:
        connection.ensure_connection()
        raw: Any = connection.connection
        with connection.cursor() as cursor:
            for channel in self.channels:
                cursor.execute(f'LISTEN "{channel}"')
        # What happened before LISTEN was up has announced itself to nobody.
        _poll()
        while not self.stopping.is_set():
            heard = False
            for notification in raw.notifies(timeout=POLL_SECONDS, stop_after=1):
                heard = True
                for callback in _callbacks[notification.channel]:
                    callback(notification.payload)
            if not heard:
                _poll()


def _poll() -> None:
    for callback in _polls:
        callback()


on(APPENDED_CHANNEL, lambda payload: appended.advance(int(payload)))
on_poll(lambda: appended.advance(max_position()))
