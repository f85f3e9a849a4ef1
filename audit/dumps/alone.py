"""Nobody else is in the database while a log is loaded: whoever is could remember what was there.

A process that has seen a login attempt, for one, keeps the key of the names of the empty database,
and the load brings another.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from django.db import OperationalError, connection

from audit.dumps.errors import DatabaseInUse
from eventstore.append import take_append_lock
from eventstore.database import writing

T = TypeVar("T")

#: How long what has just been stopped may take to be gone.
GOING_SECONDS = 2.0
LOOK_SECONDS = 0.05
#: Processes that one refusal names.
NAMED_MAX = 5


@contextmanager
def writing_alone() -> Iterator[None]:
    """A transaction during which no other process reads or writes the log's keys.

    Raises `DatabaseInUse` when one is connected. Whoever comes later waits, and may give up.
    """
    if connection.vendor == "sqlite":
        with _exclusively(), writing():
            yield
        return
    with writing():
        take_append_lock()
        with connection.cursor() as cursor:
            # Every process opens a key before it does anything else.
            cursor.execute("LOCK TABLE eventstore_datakey IN ACCESS EXCLUSIVE MODE")
        if others := _until_none(_others):
            named = ", ".join(f"{pid} from {where}" for pid, where in others[:NAMED_MAX])
            more = f" and {len(others) - NAMED_MAX} more" if len(others) > NAMED_MAX else ""
            raise DatabaseInUse(
                "other processes of this service are connected to the database (PostgreSQL's"
                f" processes {named}{more}); stop them first"
            )
        yield


@contextmanager
def _exclusively() -> Iterator[None]:
    """Hold SQLite's file alone (https://sqlite.org/pragma.html#pragma_locking_mode).

    In its write-ahead mode every connection that is open shares a lock on the file, idle or not.
    """
    connection.close()
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {int(GOING_SECONDS * 1000)}")
            cursor.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            with writing():
                pass  # taken once, it is held until the connection is closed
        except OperationalError as error:
            if "locked" not in str(error):
                raise
            raise DatabaseInUse("another process has the database open; stop it first") from error
        yield
    finally:
        connection.close()


def _others() -> list[tuple[int, str]]:
    """PostgreSQL's processes that serve others of ours, and where those are."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(_OTHERS)
        return [(pid, where) for pid, where in cursor.fetchall()]


def _until_none(found: Callable[[], list[T]]) -> list[T]:
    """What is found, once there is nothing or the time to go is over."""
    until = time.monotonic() + GOING_SECONDS
    while (rows := found()) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    return rows


_OTHERS = """
SELECT pid, coalesce(host(client_addr), 'its own machine') FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND application_name IN ('chatledger', current_setting('application_name'))
ORDER BY pid"""
