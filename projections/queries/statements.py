"""How queries reach their rows: plain SQL, since the ORM takes several times as long."""

from collections.abc import Sequence

from eventstore.direct import Row, Value, execute


def one(sql: str, parameters: Sequence[Value] = ()) -> Row | None:
    """The row of a statement that has at most one, None when it has none."""
    rows = execute(sql, parameters)
    return rows[0] if rows else None


def every(sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
    """All rows of a statement, which bounds them itself."""
    return execute(sql, parameters)


def live(projection: str) -> str:
    """The generation of a read model that is read, as a part of a statement."""
    return f"(SELECT generation FROM projections_pointer WHERE name = '{projection}')"  # noqa: S608 (constants)
