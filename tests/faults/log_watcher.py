"""A follower of the test's own: it sees the log grow, and that nothing ever appears behind it."""

import threading
import time
from typing import Any, Self

import psycopg

POLL_SECONDS = 0.02
ROWS_MAX = 10_000
SELECT = (
    "SELECT position, stream_id, version, topic, data, at FROM eventstore_event"
    " WHERE position > %s ORDER BY position LIMIT %s"
)


class LogWatcher:
    """Reads what comes as it comes; `check` says whether the log is still what was read (9)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._seen: list[tuple[Any, ...]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-watcher", daemon=True)

    def check(self) -> None:
        """Fail if there was a gap, if anything came late, or if anything seen is other now."""
        self._stop.set()
        self._thread.join(10)
        assert [row[0] for row in self._seen] == list(range(1, len(self._seen) + 1))
        with psycopg.connect(self._url) as connection:
            now = connection.execute(SELECT, [0, len(self._seen)]).fetchall()
        assert now == self._seen, "the log is not what it was"

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    while not self._stop.is_set():
                        last = self._seen[-1][0] if self._seen else 0
                        self._seen += connection.execute(SELECT, [last, ROWS_MAX]).fetchall()
                        time.sleep(POLL_SECONDS)
            except psycopg.OperationalError:
                time.sleep(POLL_SECONDS)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
