"""What a process makes sure of before it starts; each refusal is one line."""

import ipaddress
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError, connection

from config.keyfile import KEY_ALLOWED
from config.settings import environment

logger = logging.getLogger(__name__)

WEB_KEYS = ("SECRET_KEY", "JWT_SIGNING_KEY", "DATA_KEY")
BACKGROUND_KEYS = ("SECRET_KEY", "DATA_KEY")
FOLLOWERS_KEYS = (*BACKGROUND_KEYS, "SEAL_KEY")
SQLITE_SOUND_SINCE = (3, 51, 3)
#: What PostgreSQL must not have off: with any of them a crash takes what was already answered.
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


class StartRefused(CommandError):
    """A process cannot start; the text is the one line that says why and what to do."""


def require_keys(names: tuple[str, ...]) -> None:
    """Refuse to start without the keys that the process uses."""
    for name in names:
        if not settings.is_overridden(name):
            raise StartRefused(f"{name} is missing; allowed: {KEY_ALLOWED}", returncode=2)


def require_full_profile(command: str) -> None:
    """Refuse a process of the full profile where one process does everything."""
    if settings.EMBEDDED:
        raise StartRefused(
            f"{command} needs PostgreSQL and Redis (DATABASE_URL, REDIS_URL); "
            "with SQLite `python manage.py serve` does it all in one process"
        )


@contextmanager
def usable_database() -> Iterator[None]:
    """Say in one line why the database cannot be used, if that is what ends the block."""
    try:
        yield
    except DatabaseError as error:
        reason = " ".join(str(error).split())
        raise StartRefused(f"The database cannot be used: {reason}") from error


def require_private_debugging(host: str) -> None:
    """Refuse to show what goes on inside to other machines than this one."""
    if not settings.DEBUG or host == "localhost":
        return
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise StartRefused(f"DEBUG is on and HOST is {host}; allowed with DEBUG: a loopback address")


def require_durability() -> None:
    """Refuse a PostgreSQL that would lose in a crash what was committed."""
    if settings.EMBEDDED:
        return
    with usable_database(), closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [[*DURABLE]])
        off = sorted(name for name, setting in cursor.fetchall() if setting == "off")
    if off:
        raise StartRefused(
            f"PostgreSQL runs with {' and '.join(off)} off, so a crash would lose messages that "
            "were answered; allowed: on"
        )


def require_migrated() -> None:
    """Refuse to start on a database that cannot be reached or lacks a migration."""
    from django.db.migrations.executor import MigrationExecutor

    with usable_database(), closing(connection):
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if pending:
        raise StartRefused(
            f"The database lacks {len(pending)} migrations; run: python manage.py migrate"
        )


def require_ready_database() -> None:
    """Refuse a database that is not durable, migrated, writable, and this DATA_KEY's own."""
    from eventstore import keys

    require_durability()
    require_migrated()
    file = Path(settings.DATABASES["default"]["NAME"])
    if settings.EMBEDDED and not os.access(file, os.W_OK):
        raise StartRefused(f"The database {file} cannot be written by this user")
    with usable_database(), closing(connection):
        try:
            keys.check_data_key()
        except keys.KeyUnreadable as error:
            where = f"{environment.key_file}" if settings.EMBEDDED else "the environment"
            raise StartRefused(
                f"DATA_KEY in {where} does not open this database's keys; "
                "restore the one that the database was begun with"
            ) from error


def note_unused_settings() -> None:
    """Say which settings are given but have no effect, as somebody may wait for one."""
    for line in environment.unused():
        logger.warning(line)


def note_old_sqlite() -> None:
    """Say when this Python's SQLite has the rare WAL corruption that 3.51.3 repaired."""
    if settings.EMBEDDED and sqlite3.sqlite_version_info < SQLITE_SOUND_SINCE:
        logger.info(
            "SQLite %s is older than %s, which mends a rare corruption under several writers; "
            "this process writes through one connection, which keeps clear of it",
            sqlite3.sqlite_version,
            ".".join(map(str, SQLITE_SOUND_SINCE)),
        )
