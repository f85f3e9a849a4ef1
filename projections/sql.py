"""Several statements in a row on Django's connection: one round trip on PostgreSQL.

Both databases get them from their own drivers: what Django wraps around each statement would take
longer than most of these do.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.db import connection, transaction

from eventstore import direct

#: The connections that execute by plans made once.
_kept: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Command:
    """A statement with its parameters; with `many`, one list of parameters a row.

    In its database's own words: the marks are `?` on SQLite, `%s` on PostgreSQL. There, a statement
    on a read model has a second form, `gated`, for `projections.at_once`; `changes` is the table
    whose rows it updates, deletes or builds upon.
    """

    sql: str
    parameters: Sequence[Any]
    many: bool = False
    gated: str = ""
    changes: str = ""


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


def execute_alone(command: Command) -> Any:
    """Execute a command of PostgreSQL's, a transaction of its own unless the caller has one.

    Returns the first column of its first row.
    """
    # Within a transaction a failure must not take along what the caller did before.
    savepoint = transaction.atomic() if connection.in_atomic_block else nullcontext()
    with savepoint:
        return direct.execute(command.sql, command.parameters)[0][0]


def keep_plans(*, kept: bool) -> None:
    """Let PostgreSQL execute what follows on this connection by plans that it has made once.

    Otherwise it decides so itself, and for a statement of many parts it plans each time anew: that
    takes longer than a small batch. A round trip where it was otherwise before.
    """
    if connection.vendor != "postgresql":
        return
    connection.ensure_connection()
    raw: Any = connection.connection
    if _kept.get(raw, False) is not kept:
        with connection.wrap_database_errors:
            raw.execute(f"SET plan_cache_mode TO {'force_generic_plan' if kept else 'auto'}")
        _kept[raw] = kept


def for_update() -> str:
    """The words that lock the rows of a SELECT; SQLite's write transaction has locked them all."""
    return " FOR UPDATE" if connection.vendor == "postgresql" else ""
