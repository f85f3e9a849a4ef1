"""The types of the read models' columns, and a column of values as either database takes it.

PostgreSQL gets a column as the text of an array, written here: psycopg's own way of writing lists
took a third of a batch's time. SQLite would store any value in any column, so types are checked.
"""

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar
from uuid import UUID

from django.db import models

Values = Sequence[Any]

_HEX_DIGITS = re.compile("[0-9a-fA-F]{32}")


class ColumnType(ABC):
    """A type by PostgreSQL's name, and the Python types of its values."""

    name: ClassVar[str]
    takes: ClassVar[frozenset[type]]

    def checked(self, values: Values) -> Values:
        """The values as they are stored; raises `TypeError` or `ValueError` for what cannot be."""
        self._refuse_others(values)
        return values

    def array(self, values: Values) -> str:
        """Checked values as the text of a PostgreSQL array (its manual, section 8.15.2)."""
        return "{" + ",".join(self.elements(values)) + "}"

    @abstractmethod
    def elements(self, values: Values) -> Iterable[str]:
        """The text of each element, quoted where it must be."""

    def _refuse_others(self, values: Values) -> None:
        if not self.takes.issuperset(map(type, values)):
            wrong = next(value for value in values if type(value) not in self.takes)
            raise TypeError(f"{type(wrong).__name__} in a column of {self.name}")


class Id(ColumnType):
    name = "uuid"
    takes = frozenset({UUID, str})

    def checked(self, values: Values) -> Values:
        self._refuse_others(values)
        # All at once: one by one took a fifth of a replay.
        digits = ",".join([each if type(each) is str else each.hex for each in values])
        digits = digits.replace("-", "")
        listed = digits.split(",")
        if len(listed) == len(values) and {32}.issuperset(map(len, listed)):
            with contextlib.suppress(ValueError):
                if len(bytes.fromhex(digits.replace(",", ""))) == 16 * len(values):
                    return listed
        return [_digits(value) for value in values]

    def elements(self, values: Values) -> Iterable[str]:
        return values


class OptionalId(Id):
    takes = Id.takes | {type(None)}

    def checked(self, values: Values) -> Values:
        self._refuse_others(values)
        there = iter(super().checked([value for value in values if value is not None]))
        return [None if value is None else next(there) for value in values]

    def elements(self, values: Values) -> Iterable[str]:
        return [value or "NULL" for value in values]


class Number(ColumnType):
    name = "bigint"
    takes = frozenset({int, type(None)})

    def elements(self, values: Values) -> Iterable[str]:
        return ",".join(map(str, values)).replace("None", "NULL").split(",")


class Bytes(ColumnType):
    name = "bytea"
    takes = frozenset({bytes, type(None)})

    def elements(self, values: Values) -> Iterable[str]:
        return ["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]


class Text(ColumnType):
    name = "text"
    takes = frozenset({str, type(None)})

    def elements(self, values: Values) -> Iterable[str]:
        return ["NULL" if value is None else _quoted(value) for value in values]


def _digits(value: UUID | str) -> str:
    if isinstance(value, UUID):
        return value.hex
    digits = value.replace("-", "")
    if not _HEX_DIGITS.fullmatch(digits):
        raise ValueError(f"{value!r} is not a UUID")
    return digits


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


#: By Django's name of a field's type.
COLUMN_TYPES: dict[str, ColumnType] = {
    "UUIDField": Id(),
    "BigIntegerField": Number(),
    "BinaryField": Bytes(),
    "CharField": Text(),
    "TextField": Text(),
}
_OPTIONAL_ID = OptionalId()


def column_type(field: "models.Field[Any, Any]") -> ColumnType:
    """The type of a read model's field; only a nullable id takes None, the rest always does."""
    is_optional_id = field.null and field.get_internal_type() == "UUIDField"
    return _OPTIONAL_ID if is_optional_id else COLUMN_TYPES[field.get_internal_type()]
