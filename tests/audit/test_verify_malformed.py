"""What SQLite stores though no column says so: each is a difference, and never a traceback."""

import pytest

from tests.audit.verifying import differences, sql
from tests.eventstore.sealing import SIGNER, fill

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("sealed"),
]


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("topic", "CAST(x'ff80' AS TEXT)", ""),
        ("actor", "x'75736572'", "its row is not in the form that is stored"),
        ("stream_id", "'not an id'", "its stream_id is not in the form that is stored"),
        (
            "stream_id",
            "CAST(x'ff' AS TEXT)",
            "its stream_id is not in the form that is stored",
        ),
        ("event_id", "zeroblob(16)", "its row is not in the form that is stored"),
        ("causation_id", "''", "its causation_id is not in the form that is stored"),
        ("version", "'three'", "its row is not in the form that is stored"),
        ("version", "CAST(x'ff' AS TEXT)", "its row is not in the form that is stored"),
        ("version", "1.5", "its row is not in the form that is stored"),
        ("at", "'now'", "its row is not in the form that is stored"),
        ("at", "-9223372036854775808", "its at is not in the form that is stored"),
        ("data", "17", "its row is not in the form that is stored"),
        ("request_id", "CAST(x'610062' AS TEXT)", ""),
    ],
)
@pytest.mark.parametrize("position", [5, 13])
def test_a_malformed_row_is_a_difference_and_no_traceback(
    column: str, value: str, why: str, position: int
) -> None:
    fill(1, seed=9)
    sql(f"UPDATE eventstore_event SET {column} = {value} WHERE position = {position}")
    if position == 5:
        assert differences() == ["; ".join(filter(None, ["checkpoint 2, event 5: changed", why]))]
    elif why:
        assert f"event 13: {why}" in differences()


@pytest.mark.parametrize(
    "column",
    ["stream_id", "topic", "data", "event_id", "causation_id", "actor", "request_id"],
)
def test_the_same_bytes_as_another_type_are_another_row(column: str) -> None:
    other = "TEXT" if column == "data" else "BLOB"
    sql(
        f"UPDATE eventstore_event SET {column} = CAST({column} AS {other})"
        " WHERE position = 6 AND causation_id IS NOT NULL"
    )
    assert differences() == [
        "checkpoint 2, event 6: changed; its row is not in the form that is stored"
    ]


@pytest.mark.parametrize("column", ["first", "last", "root", "previous", "at", "key_id"])
@pytest.mark.parametrize("value", ["'x'", "x'ff'", "1.5", "CAST(x'ff' AS TEXT)", "-1"])
def test_a_malformed_checkpoint_is_named_with_its_column(column: str, value: str) -> None:
    sql(f"UPDATE eventstore_checkpoint SET {column} = {value} WHERE number = 2")
    also = ", or its events with their leaves and its root" if column == "at" else ""
    assert differences() == [f"checkpoint 2: its {column} was changed{also}"]


@pytest.mark.parametrize("value", ["'x'", "x'ff'", "zeroblob(32)", "zeroblob(128)", "17"])
def test_malformed_leaves_are_named_and_the_events_are_not(value: str) -> None:
    sql(f"UPDATE eventstore_checkpoint SET leaves = {value} WHERE number = 2")
    assert differences() == ["checkpoint 2: its leaves were changed, not the events"]


def test_a_checkpoint_with_a_name_for_a_number_is_counted() -> None:
    sql("UPDATE eventstore_checkpoint SET number = 'three' WHERE number = 3")
    assert "checkpoints: 1 have no number" in differences()


def test_a_malformed_public_key_is_named() -> None:
    sql("UPDATE eventstore_sealkey SET public_key = 'x'")
    assert differences() == [
        f"public key {SIGNER.key_id}: it does not belong to its id",
        "3 checkpoints could not be checked",
    ]
