"""What follows the destruction of a key: it is listed, and its bytes leave the database's files.

A key that was destroyed is gone for every query at once. What is left of it then is a backup of the
day before, against which the file of erasures helps, and old bytes in the database's own files: a
page of SQLite's write-ahead log, a dead row of PostgreSQL's. This follower sees to both, and goes
on until both are done.
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from django.conf import settings
from django.db import OperationalError, connection
from psycopg.errors import LockNotAvailable

from eventstore.clock import to_datetime
from eventstore.database import writing, writing_alone
from eventstore.models import Destruction

logger = logging.getLogger(__name__)

#: How often it looks, and how many keys it takes at a time.
LOOK_SECONDS = 1.0
DESTRUCTIONS_MAX = 1_000
#: How long SQLite may wait for its readers: meanwhile nobody writes.
CHECKPOINT_WAIT_MILLISECONDS = 200
#: How long PostgreSQL may wait for the table: meanwhile nobody else reads it.
LOCK_WAIT_MILLISECONDS = 500
FILE_MODE = 0o600


class Destructions:
    """The follower that lists destroyed keys and cleans the database's files of them."""

    name = "destructions"

    def __init__(self) -> None:
        self._next_look = 0.0

    def step(self) -> bool:
        """Finish what was destroyed, at most once in `LOOK_SECONDS`."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_SECONDS
        destroyed = list(Destruction.objects.order_by("at")[:DESTRUCTIONS_MAX])
        if not destroyed:
            return False
        # Listed first: a line that is there twice does no harm, one that is missing would.
        append_to_list(settings.ERASURES_FILE, destroyed)
        if not clean_files():
            logger.debug("a reader is in the way of cleaning the files, which is tried again")
            return False
        with writing():
            Destruction.objects.filter(key_id__in=[each.key_id for each in destroyed]).delete()
        return len(destroyed) == DESTRUCTIONS_MAX


def finish_here() -> None:
    """Do in a shell at once what its service may not be there to do; it need not succeed.

    In the full profile the file of erasures is with the followers, which see to it.
    """
    if settings.EMBEDDED:
        while Destructions().step():
            pass


def append_to_list(path: Path, destroyed: Sequence[Destruction]) -> None:
    """Add a line for each key to the file of erasures, on disk before this returns."""
    lines = b"".join(_line(each) for each in destroyed)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
    with os.fdopen(descriptor, "ab") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def clean_files() -> bool:
    """Let no file of the database hold what was overwritten; False while a reader is in the way.

    PostgreSQL's write-ahead log and backups are not reached: they expire by the operator's rules.
    """
    return _clean_sqlite() if connection.vendor == "sqlite" else _clean_postgres()


def _line(destroyed: Destruction) -> bytes:
    said = {"user_id": destroyed.user_id, "at": to_datetime(destroyed.at)}
    if destroyed.key_id != destroyed.user_id:
        said["conversation_id"] = destroyed.key_id
    return msgspec.json.encode(said) + b"\n"


def _clean_sqlite() -> bool:
    with writing_alone(), connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        (usual,) = cursor.fetchone()
        cursor.execute(f"PRAGMA busy_timeout = {CHECKPOINT_WAIT_MILLISECONDS}")
        try:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (busy, _, _) = cursor.fetchone()
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {int(usual)}")
    return not busy


def _clean_postgres() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_SEEN_BY_OTHERS)
        (seen,) = cursor.fetchone()
        if seen:
            # Whoever looks at the database as it was before keeps the old rows alive.
            return False
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(f"SET lock_timeout = {LOCK_WAIT_MILLISECONDS}")
        try:
            # Only a new file is free of the old bytes: a plain VACUUM leaves them in their pages.
            cursor.execute("VACUUM (FULL) eventstore_datakey")
        except OperationalError as error:
            if not isinstance(error.__cause__, LockNotAvailable):
                raise
            return False
        finally:
            cursor.execute("RESET statement_timeout")
            cursor.execute("RESET lock_timeout")
    return True


_SEEN_BY_OTHERS = """
SELECT EXISTS (
    SELECT 1 FROM pg_stat_activity backend
    WHERE backend.datname = current_database() AND backend.pid <> pg_backend_pid()
      AND age(backend.backend_xmin) >= (
          SELECT min(age(key.xmin)) FROM eventstore_datakey key
          JOIN eventstore_destruction destroyed
            ON destroyed.key_id = key.id OR destroyed.key_id = key.wrapped_by
          WHERE key.wrapped IS NULL))"""
