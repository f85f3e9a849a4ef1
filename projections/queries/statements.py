"""How queries reach their rows: plain SQL, since the ORM takes several times as long."""

from collections.abc import Sequence
from typing import Any

from django.db import connection

Row = tuple[Any, ...]


def one(sql: str, parameters: Sequence[Any] = ()) -> Row | None:
    """The first row of a statement, None when it has none."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row: Row | None = cursor.fetchone()
    return row


def every(sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """All rows of a statement, which bounds them itself."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def live(projection: str) -> str:
    """The generation of a read model that is read, as a part of a statement."""
    return f"(SELECT generation FROM projections_pointer WHERE name = '{projection}')"  # noqa: S608 (constants)
