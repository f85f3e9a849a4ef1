"""One SQLite database in memory for all simulated processes, as a connection of Django's."""

import sqlite3
from collections.abc import Callable
from typing import Any

from django.core.management import call_command
from django.core.management.commands.migrate import Command as Migrate
from django.db import connections
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.db.utils import DEFAULT_DB_ALIAS

from tests.simulation.seams import Seams


class SimulatedDatabase(DatabaseWrapper):
    """Tells of each transaction where it begins and ends, and can fail there.

    The end is two points. Cut off or crashed at the first one, nothing is stored; at the second
    everything is, and nobody is told.
    """

    seams: Seams | None = None
    #: Called with the connection right after each commit.
    committed: Callable[[sqlite3.Connection], None] | None = None

    def watch(self, seams: Seams, committed: Callable[[sqlite3.Connection], None]) -> None:
        self.seams, self.committed = seams, committed
        self.execute_wrappers[:] = [seams.at_statement]

    def _start_transaction_under_autocommit(self) -> None:
        if self.seams:
            self.seams.reach()
        super()._start_transaction_under_autocommit()  # type: ignore[misc]  # not in the stubs

    def _commit(self) -> None:
        if self.seams is None or self.committed is None:
            super()._commit()  # type: ignore[misc]  # not in the stubs
            return
        try:
            self.seams.reach(alone=True)
        except BaseException:
            # Whatever Django does about the error, this transaction is over.
            self.connection.rollback()
            self.run_on_commit = []
            raise
        super()._commit()  # type: ignore[misc]  # not in the stubs
        self.committed(self.connection)
        try:
            self.seams.reach(alone=True)
        except BaseException:
            self.run_on_commit = []
            raise


class Databases:
    """Puts a database in memory in the place of Django's, as empty as often as it is asked for."""

    def __init__(self) -> None:
        self._usual: Any = connections[DEFAULT_DB_ALIAS]
        told = {**self._usual.settings_dict, "NAME": ":memory:"}
        self.connection = SimulatedDatabase(told, DEFAULT_DB_ALIAS)
        connections[DEFAULT_DB_ALIAS] = self.connection
        # Not our own command, which locks a file beside the database.
        call_command(Migrate(), verbosity=0)
        self._empty = sqlite3.connect(":memory:")
        self.connection.connection.backup(self._empty)

    def renew(self) -> SimulatedDatabase:
        """The database as it is before the first event."""
        self._empty.backup(self.connection.connection)
        return self.connection

    def close(self) -> None:
        """Put Django's own database back."""
        connections[DEFAULT_DB_ALIAS] = self._usual
        self.connection.connection.close()
        self._empty.close()
