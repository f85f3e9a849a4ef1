"""Columns of values as PostgreSQL takes them, and what no column takes."""

from typing import Any

import pytest
from django.db import connection, models

from projections.columns import COLUMN_TYPES, column_type
from tests.projections.story import ALICE

ID = COLUMN_TYPES["UUIDField"]
OPTIONAL_ID = column_type(models.UUIDField(null=True))
NUMBER = COLUMN_TYPES["BigIntegerField"]
BYTES = COLUMN_TYPES["BinaryField"]
TEXT = COLUMN_TYPES["TextField"]


def test_an_id_may_be_a_uuid_or_its_text() -> None:
    assert ID.checked([ALICE, str(ALICE)]) == [ALICE.hex, ALICE.hex]


def test_an_id_that_may_be_missing_takes_none() -> None:
    assert OPTIONAL_ID.checked([ALICE, None]) == [ALICE.hex, None]
    assert OPTIONAL_ID.array([ALICE.hex, None]) == f"{{{ALICE.hex},NULL}}"


@pytest.mark.parametrize(
    ("type_", "value", "error"),
    [
        (ID, 7, TypeError),
        (ID, None, TypeError),
        (ID, "a11ce", ValueError),
        (OPTIONAL_ID, 7, TypeError),
        (OPTIONAL_ID, "a11ce", ValueError),
        (ID, "z" * 32, ValueError),
        (NUMBER, "7", TypeError),
        (NUMBER, 7.0, TypeError),
        (NUMBER, True, TypeError),
        (BYTES, "text", TypeError),
        (TEXT, b"bytes", TypeError),
        (TEXT, {"a": 1}, TypeError),
    ],
)
def test_a_value_that_its_column_does_not_take_is_an_error(
    type_: Any, value: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        type_.checked([value])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (NUMBER, [1, None, -(2**63), 2**63 - 1]),
        (BYTES, [b"", None, bytes(range(256)), b'"\\{},NULL']),
        (
            TEXT,
            ["", None, "NULL", "null", 'a "quoted" \\ word', "{1,2}", " , ", "\n\t", "\u2028é😀"],
        ),
    ],
)
def test_postgresql_reads_an_array_as_the_values_it_was_made_of(
    type_: Any, values: list[Any]
) -> None:
    if connection.vendor != "postgresql":
        assert type_.checked(values) == values
        return
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT * FROM unnest(%s::{type_.name}[])", [type_.array(type_.checked(values))]
        )
        read = [row[0] for row in cursor.fetchall()]
    assert [bytes(each) if isinstance(each, memoryview) else each for each in read] == values
