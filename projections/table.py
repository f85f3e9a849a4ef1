"""Bulk statements on a read model's table, each in the words of both databases.

A statement takes a batch of rows at once: on SQLite by `executemany`, on PostgreSQL as one array a
column, unnested, which is one parse, one plan and one message for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection, models

from projections.at_once import GATE
from projections.columns import ColumnType, column_type
from projections.sql import Command

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Write:
    """A bulk statement and the rows it is for."""

    statement: "Statement"
    rows: Sequence[Row]


class Table:
    """A read model's table, described by its Django model; `key` is its id within a generation."""

    def __init__(self, model: type[models.Model]) -> None:
        meta = model._meta  # noqa: SLF001 (Django's documented interface)
        self.name = meta.db_table
        self.types = {
            field.attname: column_type(field)
            for field in meta.concrete_fields
            if field.attname not in {"pk", "generation"}
        }
        self.key = next(iter(self.types))

    def insert(self, *columns: str, on_conflict: str = "") -> "Statement":
        """Insert rows of (key, *columns); a key that is there is an error, unless `on_conflict`."""
        names = (self.key, *columns)
        into = f"INSERT INTO {self.name} (generation, {', '.join(names)})"
        marks = ", ".join("?" * len(names))
        conflict = f" ON CONFLICT (generation, {self.key}) {on_conflict}" if on_conflict else ""
        return self._statement(
            sqlite=f"{into} VALUES ({{generation}}, {marks}){conflict}",
            postgresql=f"{into} SELECT {{generation}}, given.* FROM {{given}}{conflict}",  # noqa: S608 (constants)
            names=names,
            changes=bool(on_conflict),
        )

    def insert_running(self, *columns: str, owner: str, count: str, total: str) -> "Statement":
        """Insert rows of (key, owner, difference, *columns), the lowest key first.

        In the rows of one owner, `count` goes on by 1 and `total` by the difference, from the row
        with the highest `count`: a unique index on (generation, owner, count) finds that.
        """
        names = (self.key, owner, total, *columns)
        into = f"INSERT INTO {self.name} (generation, {', '.join(names)}, {count})"
        last = f"FROM {self.name} WHERE {self._of(owner)}"
        newest = f"ORDER BY {count} DESC LIMIT 1"

        # One row after the other: each finds the one before among those that are stored.
        def before(column: str) -> str:
            return f"coalesce((SELECT {column} {last} = ?2 {newest}), 0)"

        marks = [f"?{number}" for number in range(4, len(names) + 1)]
        values = ("?1", "?2", f"{before(total)} + ?3", *marks, f"{before(count)} + 1")

        # All at once: none sees another, so the rows of the batch are added up here.
        so_far = f"(PARTITION BY given.{owner} ORDER BY given.{self.key} ROWS UNBOUNDED PRECEDING)"
        given = ", ".join(f"given.{name}" for name in columns)
        return self._statement(
            sqlite=f"{into} VALUES ({{generation}}, {', '.join(values)})",
            postgresql=f"{into} SELECT {{generation}}, given.{self.key}, given.{owner},"  # noqa: S608 (constants)
            f" coalesce(last.{total}, 0) + sum(given.{total}) OVER so_far, {given},"
            f" coalesce(last.{count}, 0) + row_number() OVER so_far"
            f" FROM {{given}} LEFT JOIN LATERAL"
            f" (SELECT {count}, {total} {last} = given.{owner} {newest}) AS last ON true"
            f" WINDOW so_far AS {so_far}",
            names=names,
            # It builds on rows that are there: no other may change them beside it.
            changes=True,
        )

    def update(self, *columns: str) -> "Statement":
        """Set columns by rows of (*columns, key); a row that is not there stays away."""
        by_marks = ", ".join(f"{name} = ?" for name in columns)
        by_arrays = ", ".join(f"{name} = given.{name}" for name in columns)
        update, of_key = f"UPDATE {self.name} SET", self._of(self.key)
        return self._statement(
            sqlite=f"{update} {by_marks} WHERE {of_key} = ?",
            postgresql=f"{update} {by_arrays} FROM {{given}} WHERE {of_key} = given.{self.key}",
            names=(*columns, self.key),
            changes=True,
        )

    def raise_to(self, column: str) -> "Statement":
        """Set a number by rows of (number, key), where that makes it greater."""
        update, of_key = f"UPDATE {self.name} SET {column}", self._of(self.key)  # noqa: S608 (constants)
        greatest = f"greatest({self.name}.{column}, given.{column})"
        return self._statement(
            sqlite=f"{update} = max({column}, ?) WHERE {of_key} = ?",
            postgresql=f"{update} = {greatest} FROM {{given}} WHERE {of_key} = given.{self.key}",
            names=(column, self.key),
            changes=True,
        )

    def delete(self, by: str | None = None) -> "Statement":
        """Delete by rows of (key,), or all that have one of the values of another column."""
        column = by or self.key
        delete, of_column = f"DELETE FROM {self.name}", self._of(column)  # noqa: S608 (constants)
        return self._statement(
            sqlite=f"{delete} WHERE {of_column} = ?",
            postgresql=f"{delete} USING {{given}} WHERE {of_column} = given.{column}",
            names=(column,),
            changes=True,
        )

    def _of(self, column: str) -> str:
        return f"{self.name}.generation = {{generation}} AND {self.name}.{column}"

    def _statement(
        self, *, sqlite: str, postgresql: str, names: Sequence[str], changes: bool = False
    ) -> "Statement":
        types = [self.types[name] for name in names]
        arrays = ", ".join(f"%s::{type_.name}[]" for type_ in types)
        given = f"unnest({arrays}) AS given({', '.join(names)})"
        gated = f"(SELECT * FROM {given} WHERE {GATE}) AS given"  # noqa: S608 (constants)
        return Statement(
            sqlite=sqlite,
            postgresql=postgresql.replace("{given}", given),
            gated=postgresql.replace("{given}", gated),
            changes=self.name if changes else "",
            types=types,
        )


class Statement:
    """One bulk statement; where it says `{generation}` stands the number of the generation."""

    def __init__(
        self, *, sqlite: str, postgresql: str, gated: str, changes: str, types: Sequence[ColumnType]
    ) -> None:
        self._sqlite = sqlite
        self._postgresql = postgresql
        self._gated = gated
        self._changes = changes
        self._types = types

    def command(self, generation: int, rows: Sequence[Row]) -> Command:
        """What to execute so that the rows are written in `generation`.

        Raises `TypeError` or `ValueError` for what its column does not take, on either database.
        """
        columns = [
            type_.checked(column)
            for type_, column in zip(self._types, zip(*rows, strict=True), strict=True)
        ]
        if connection.vendor == "sqlite":
            sql = self._sqlite.replace("{generation}", str(generation))
            return Command(sql, list(zip(*columns, strict=True)), many=True)
        arrays = [type_.array(column) for type_, column in zip(self._types, columns, strict=True)]
        sql, gated = (
            template.replace("{generation}", str(generation))
            for template in (self._postgresql, self._gated)
        )
        return Command(sql, arrays, gated=gated, changes=self._changes)
