"""Several statements in a row on Django's connection: one round trip on PostgreSQL.

Both databases get them from their own drivers: what Django wraps around each statement would take
longer than most of these do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import connection


@dataclass(frozen=True, slots=True)
class Command:
    """A statement with its parameters; with `many`, one list of parameters a row.

    In its database's own words: the marks are `?` on SQLite, `%s` on PostgreSQL.
    """

    sql: str
    parameters: Sequence[Any]
    many: bool = False


def execute(commands: Sequence[Command]) -> list[int]:
    """Execute the commands in order in the caller's transaction; the rows that each touched."""
    if connection.vendor == "postgresql":
        return _pipelined(commands) if commands else []
    raw: Any = connection.connection
    with connection.wrap_database_errors:
        return [
            (raw.executemany if command.many else raw.execute)(
                command.sql, command.parameters
            ).rowcount
            for command in commands
        ]


def _pipelined(commands: Sequence[Command]) -> list[int]:
    raw: Any = connection.connection
    # Plain psycopg cursors bind on the server: arrays and bytes travel as they are.
    with connection.wrap_database_errors, raw.pipeline():
        # The same few statements each time: prepared, the server plans them once a connection.
        cursors = [
            psycopg.Cursor(raw).execute(command.sql, command.parameters, prepare=True)
            for command in commands
        ]
    return [cursor.rowcount for cursor in cursors]


def for_update() -> str:
    """The words that lock the rows of a SELECT; SQLite's write transaction has locked them all."""
    return " FOR UPDATE" if connection.vendor == "postgresql" else ""
