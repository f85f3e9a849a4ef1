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
from typing import BinaryIO
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import OperationalError, connection
from psycopg.errors import LockNotAvailable

from accounts.models import Credential
from eventstore.clock import to_datetime
from eventstore.database import writing, writing_alone
from eventstore.models import DataKey, Destruction

logger = logging.getLogger(__name__)

#: How often it looks while there is nothing to do, and how many keys it takes at a time.
LOOK_SECONDS = 1.0
DESTRUCTIONS_MAX = 1_000
#: How long it leaves the database alone after a cleaning, and at most after a failed one, when the
#: pause doubles from one to the next. Whatever many deletions cost, it is not a cleaning each.
PAUSE_SECONDS = 20.0
#: A cleaning that takes long comes less often: this many times as long is left between two.
PAUSE_RATIO = 20
#: How long SQLite may wait for its readers: meanwhile nobody writes.
CHECKPOINT_WAIT_MILLISECONDS = 100
#: How long PostgreSQL may wait for a table: meanwhile nobody else reads it.
LOCK_WAIT_MILLISECONDS = 100
FILE_MODE = 0o600
#: The longest that a line may be of which only a part was written.
TORN_BYTES_MAX = 1_000_000


class Destructions:
    """The follower that lists destroyed keys and cleans the database's files of them."""

    name = "destructions"

    def __init__(self) -> None:
        self._next_look = 0.0
        self._pause_seconds = LOOK_SECONDS
        self._listed: set[tuple[UUID, int]] = set()

    def step(self) -> bool:
        """Finish what was destroyed, if it is time to look."""
        began = time.monotonic()
        if began < self._next_look:
            return False
        self._next_look = began + LOOK_SECONDS
        destroyed = list(Destruction.objects.order_by("at")[:DESTRUCTIONS_MAX])
        if not destroyed:
            return False
        self._list(destroyed)
        if not clean_files(users=any(each.key_id == each.user_id for each in destroyed)):
            logger.debug("a reader is in the way of cleaning the files, which is tried again")
            self._next_look = began + self._pause_seconds
            self._pause_seconds = min(self._pause_seconds * 2, PAUSE_SECONDS)
            return False
        with writing():
            Destruction.objects.filter(key_id__in=[each.key_id for each in destroyed]).delete()
        self._listed.clear()
        self._pause_seconds = LOOK_SECONDS
        if len(destroyed) == DESTRUCTIONS_MAX:
            self._next_look = 0.0
            return True
        ended = time.monotonic()
        self._next_look = ended + max(PAUSE_SECONDS, (ended - began) * PAUSE_RATIO)
        return False

    def _list(self, destroyed: Sequence[Destruction]) -> None:
        """Name the keys in the file of erasures, each once unless this process dies meanwhile.

        Before they are cleaned away: a line that is there twice does no harm, one that is missing
        would.
        """
        new = [each for each in destroyed if (each.key_id, each.at) not in self._listed]
        if new:
            append_to_list(settings.ERASURES_FILE, new)
            self._listed.update((each.key_id, each.at) for each in new)


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
    is_new = not path.exists()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
    with os.fdopen(descriptor, "r+b") as file:
        file.seek(_end_of_last_line(file))
        file.truncate()
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        _sync_folder(path.parent)


def clean_files(*, users: bool) -> bool:
    """Let no file of the database hold what was overwritten; False while a reader is in the way.

    `users`: credentials were deleted too. PostgreSQL's write-ahead log and backups are not reached:
    they expire by the operator's rules.
    """
    return _clean_sqlite() if connection.vendor == "sqlite" else _clean_postgres(users=users)


def _end_of_last_line(file: BinaryIO) -> int:
    """Where the last whole line ends: what a full disk has cut off is written anew."""
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - TORN_BYTES_MAX)
    file.seek(start)
    newline = file.read(end - start).rfind(b"\n")
    return start + newline + 1 if newline >= 0 or start == 0 else end


def _sync_folder(folder: Path) -> None:
    """Let a file that was made in the folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _clean_postgres(*, users: bool) -> bool:
    tables = [DataKey, Credential] if users else [DataKey]
    with connection.cursor() as cursor:
        cursor.execute(_SEEN_BY_OTHERS)
        (seen,) = cursor.fetchone()
        if seen:
            # Whoever looks at the database as it was before keeps the old rows alive.
            return False
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(f"SET lock_timeout = {LOCK_WAIT_MILLISECONDS}")
        try:
            for table in tables:
                # Only a new file is free of the old bytes: a plain VACUUM leaves them in the pages.
                name = table._meta.db_table  # noqa: SLF001 (Django's documented interface)
                cursor.execute(f"VACUUM (FULL) {name}")
        except OperationalError as error:
            if not isinstance(error.__cause__, LockNotAvailable):
                raise
            return False
        finally:
            cursor.execute("RESET statement_timeout")
            cursor.execute("RESET lock_timeout")
    return True


# Backends of all databases have an age, and so have replicas and prepared transactions: each may
# still need the rows as they were.
_SEEN_BY_OTHERS = """
SELECT coalesce(max(age(other.xmin)) >= (
    SELECT min(age(key.xmin)) FROM eventstore_datakey key
    JOIN eventstore_destruction destroyed
      ON destroyed.key_id = key.id OR destroyed.key_id = key.wrapped_by
    WHERE key.wrapped IS NULL), FALSE)
FROM (
    SELECT backend_xmin AS xmin FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND (datname = current_database() OR datname IS NULL)
    UNION ALL SELECT xmin FROM pg_replication_slots
    UNION ALL SELECT transaction FROM pg_prepared_xacts WHERE database = current_database()
) other"""
