"""Django's `migrate`, one process at a time, so that those that start together do not collide."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.core.management.commands import migrate
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from config.checks import usable_database
from config.keyfile import locked
from eventstore.sqlite.base import file_of

# The space of lock keys in two parts is apart from that of the log's one-part key.
LOCK_KEY = (0x43484154, 1)


class Command(migrate.Command):
    """`manage.py migrate`"""

    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]]
        if connection.vendor == "sqlite" and not (options["plan"] or options["check_unapplied"]):
            _make_file(file_of(connection.settings_dict["NAME"]))
        with usable_database():
            connection.ensure_connection()
        with _alone(connection):
            super().handle(*args, **options)


def _make_file(file: Path | None) -> None:
    """Make the empty file that a new SQLite database begins with; nobody else makes one."""
    if file:
        with suppress(OSError):  # the connection says what is wrong
            file.touch()


@contextmanager
def _alone(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Keep others from migrating this database; a large migration may take its time."""
    if connection.vendor == "sqlite":
        with locked(Path(connection.settings_dict["NAME"]).parent):
            yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = 0; SET statement_timeout = 0")
        cursor.execute("SELECT pg_advisory_lock(%s, %s)", LOCK_KEY)
    try:
        yield
    finally:
        # With the connection go its lock and its settings, also when it has become unusable.
        connection.close()
