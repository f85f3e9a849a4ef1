"""What somebody does who knows how the seals are verified, and has no key: all of it is found."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from django.core.management import CommandError
from django.db import connection, transaction

from eventstore.models import CheckpointRecord, EventRecord, SealKey
from eventstore.seals import merkle
from eventstore.seals.checkpoints import Checkpoint, latest, read_checkpoint
from eventstore.seals.rows import HIGHEST, LOWEST, POSITION, hash_at, read_rows
from eventstore.seals.tracing import Tracing
from tests.audit.verifying import differences, sql, verify
from tests.eventstore.sealing import OTHER_SIGNER, SIGNER, fill, insert, seal, stored

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("sealed"),
]


def changed_and_covered(position: int, number: int, *, claims: int) -> None:
    """Change an event, and say in an unsigned checkpoint that it was sealed as event `claims`."""
    EventRecord.objects.filter(position=position).update(actor="mallory")
    (row,) = read_rows(position - 1, position)
    leaf = hash_at(row, claims)
    assert leaf is not None
    store(
        Checkpoint(number, claims, claims, leaf, leaf, bytes(32), 0, "0" * 16, bytes(64)),
    )


def store(checkpoint: Checkpoint) -> None:
    CheckpointRecord.objects.create(
        **{column: getattr(checkpoint, column) for column in Checkpoint.__slots__}
    )


class TestACheckpointThatNobodySigned:
    @pytest.fixture(autouse=True)
    def many(self, sealed: None) -> None:
        """More checkpoints than those of which the leaves stay in memory."""
        for number in range(3, 15):
            fill(3, seed=number)
            seal()

    @pytest.mark.parametrize("number", [LOWEST, -1, 0])
    def test_it_does_not_vouch_for_a_changed_event_in_its_own_place(self, number: int) -> None:
        changed_and_covered(5, number, claims=5)
        assert "checkpoint 2, event 5: changed" in differences()

    def test_it_does_not_where_the_check_begins_later(self) -> None:
        changed_and_covered(5, 0, claims=5)
        assert differences("--since", "2") == ["checkpoint 2, event 5: changed"]

    def test_it_does_not_in_many_checkpoints_either(self) -> None:
        for number in range(3, 12):
            changed_and_covered(3 * number + 5, -number, claims=3 * number + 5)
        assert differences("--since", "2") == [
            f"checkpoint {number + 1}, event {3 * number + 5}: changed" for number in range(3, 12)
        ]

    def test_it_does_not_put_the_blame_on_another_event(self) -> None:
        changed_and_covered(5, LOWEST, claims=11)
        found = differences()
        assert "checkpoint 2, event 5: changed" in found
        assert not any("event 11" in line for line in found)


def test_a_place_that_is_wrong_is_named_whatever_tracing_makes_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    EventRecord.objects.filter(position=5).update(actor="mallory")
    monkeypatch.setattr(Tracing, "_origin", lambda self, row: row[POSITION])
    assert differences() == ["checkpoint 2, event 5: not what was sealed"]


@pytest.mark.parametrize("position", [LOWEST, LOWEST + 1, 0])
def test_an_event_below_all_others_is_found(position: int) -> None:
    EventRecord.objects.filter(position=12).update(position=position)
    assert differences() == [f"checkpoint 3, event 12: moved to {position}"]
    insert_granted(position - 1 if position > LOWEST else 0)
    assert len(differences()) == 2


def test_an_event_above_all_others_is_found() -> None:
    insert_granted(HIGHEST)
    assert differences() == [f"events 13 to {HIGHEST - 1}: missing; no seal tells more"]


@pytest.mark.parametrize("number", [LOWEST, LOWEST + 1, 0])
def test_a_checkpoint_below_all_others_is_found(number: int) -> None:
    CheckpointRecord.objects.filter(number=3).update(number=number)
    assert differences() == [f"checkpoint {number}: the numbers begin with 1"]


def insert_granted(position: int) -> None:
    """What would give tokens to somebody."""
    stream, event = uuid4(), uuid4()
    topic = "chatledger.accounts.TokensGranted"
    row = (position, stored(stream), 1, topic, b"{}", 2**51, stored(event), "staff:1", "r", None)
    insert([row])


class TestWithoutConstraints:
    """Whoever can write the database can also take the table's constraints away."""

    @pytest.fixture(autouse=True)
    def loose(self, sealed: None) -> Iterator[None]:
        """The same rows in tables that take anything."""
        with transaction.atomic(), connection.cursor() as cursor:
            for table in ("eventstore_event", "eventstore_checkpoint"):
                cursor.execute(f"CREATE TABLE loose AS SELECT * FROM {table}")
                cursor.execute(f"ALTER TABLE {table} RENAME TO {table}_kept")
                cursor.execute(f"ALTER TABLE loose RENAME TO {table}")
            yield
            transaction.set_rollback(True)

    @pytest.mark.parametrize("position", [4, 5, 7, 12])
    @pytest.mark.parametrize("since", [[], ["--since", "2"]])
    def test_an_event_that_stands_there_twice_is_named(
        self, position: int, since: list[str]
    ) -> None:
        twice("eventstore_event", "position", position)
        assert differences(*since) == [f"event {position}: stands there twice"]

    @pytest.mark.parametrize("since", [[], ["--since", "2"]])
    def test_it_is_where_a_page_ends_too(
        self, monkeypatch: pytest.MonkeyPatch, since: list[str]
    ) -> None:
        monkeypatch.setattr("eventstore.seals.rows.ROWS_MAX", 1)
        twice("eventstore_event", "position", 6)
        assert differences(*since) == ["event 6: stands there twice"]

    def test_one_that_is_not_sealed_yet_is_named(self) -> None:
        fill(2, seed=9)
        twice("eventstore_event", "position", 13)
        assert differences() == ["event 13: stands there twice"]

    def test_a_version_that_stands_there_twice_is_named(self) -> None:
        stream, event = stored(uuid4()), stored(uuid4())
        at = EventRecord.objects.get(position=12).at
        rows = [(1, 13), (1, 14), (3, 15)]
        insert([(p, stream, v, "x", b"{}", at, event, "a", "r", None) for v, p in rows])
        streams = [line for line in verify("--seals")[1] if line.startswith("stream ")]
        assert [line.partition(": ")[2] for line in streams] == [
            "its versions go from 1 to 3, and there are 3"
        ]

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_a_checkpoint_that_stands_there_twice_is_named(self, number: int) -> None:
        twice("eventstore_checkpoint", "number", number)
        assert differences() == [f"checkpoint {number}: stands there twice"]

    @pytest.mark.parametrize(
        "column",
        ["version", "at", "stream_id", "event_id", "topic", "data", "actor", "request_id"],
    )
    @pytest.mark.parametrize("position", [5, 13])
    def test_a_column_of_an_event_without_a_value_is_named(
        self, column: str, position: int
    ) -> None:
        fill(1, seed=9)
        sql(f"UPDATE eventstore_event SET {column} = NULL WHERE position = {position}")
        place = "checkpoint 2, event 5: changed;" if position == 5 else "event 13:"
        assert differences() == [f"{place} its {column} is not in the form that is stored"]

    @pytest.mark.parametrize(
        "column", ["first", "last", "root", "leaves", "previous", "at", "key_id", "signature"]
    )
    def test_a_column_of_a_checkpoint_without_a_value_is_named(self, column: str) -> None:
        sql(f"UPDATE eventstore_checkpoint SET {column} = NULL WHERE number = 2")
        (found,) = differences()
        assert found.startswith("checkpoint 2: its ")
        assert column in found

    def test_rows_without_a_place_are_counted(self) -> None:
        sql("UPDATE eventstore_event SET position = NULL WHERE position = 5")
        assert "events: 1 have no position" in differences()
        sql("UPDATE eventstore_checkpoint SET number = NULL WHERE number = 3")
        assert "checkpoints: 1 have no number" in differences()


def twice(table: str, key: str, value: int) -> None:
    sql(f"INSERT INTO {table} SELECT * FROM {table} WHERE {key} = {value}")


class TestValuesAtTheEndOfTheirRange:
    @pytest.mark.parametrize("number", [LOWEST, HIGHEST])
    def test_a_checkpoints_number_there_blinds_nobody(self, number: int) -> None:
        store(Checkpoint(number, 99, 99, bytes(32), bytes(32), bytes(32), 0, "0" * 16, bytes(64)))
        assert any(f"checkpoint {number}: " in line for line in differences())

    @pytest.mark.parametrize("column", ["first", "last"])
    @pytest.mark.parametrize("value", [LOWEST, HIGHEST])
    @pytest.mark.parametrize("with_key", [True, False])
    def test_nor_does_its_range(self, column: str, value: int, *, with_key: bool) -> None:
        CheckpointRecord.objects.filter(number=2).update(**{column: value})
        if not with_key:
            SealKey.objects.update(public_key=OTHER_SIGNER.public_key)
        assert differences()

    @pytest.mark.parametrize("since", [2**63 - 1, 2**63, 10**30, 0, -1, LOWEST - 1])
    def test_a_number_to_begin_with_that_nothing_has_is_refused_in_a_line(self, since: int) -> None:
        with pytest.raises(CommandError) as refused:
            verify("--seals", f"--since={since}")
        assert str(refused.value) == f"there is no checkpoint {since}"
        assert refused.value.returncode == 2


class TestWhoeverHoldsTheKey:
    def test_a_checkpoint_that_ends_before_it_begins_is_named(self) -> None:
        newest = latest()
        assert newest is not None
        empty = Checkpoint(4, 13, 1, merkle.root([]), b"", newest.hash, 0, SIGNER.key_id, b"")
        store(empty.signed(SIGNER.sign(empty.message)))
        assert differences() == [
            "checkpoint 4: it is signed, and seals no event: it begins with 13 and ends with 1"
        ]

    @pytest.fixture
    def six(self, sealed: None) -> None:
        for number in range(3, 6):
            fill(2, seed=number)
            seal()

    @pytest.fixture
    def head(self, sealed: None, tmp_path: Path) -> str:
        """The first checkpoint, kept elsewhere."""
        kept = read_checkpoint(1)
        assert kept is not None
        file = tmp_path / "head.json"
        file.write_text(json.dumps(kept.as_json()))
        return str(file)

    def test_a_chain_is_whole_between_a_kept_head_and_the_first_that_is_checked(
        self, six: None, head: str
    ) -> None:
        for since in range(1, 7):
            assert verify("--seals", "--since", str(since), "--head", head)[0] == 0

    def test_one_that_was_broken_in_between_is_not(self, six: None, head: str) -> None:
        broken = read_checkpoint(2)
        assert broken is not None
        previous = bytes(32)
        for number in range(3, 7):
            read = read_checkpoint(number)
            assert read is not None
            made = replace(read, previous=previous)
            CheckpointRecord.objects.filter(number=number).update(
                previous=previous, signature=SIGNER.sign(made.message)
            )
            previous = made.hash
        for since in range(3, 7):
            (found,) = differences("--since", str(since), "--head", head)
            assert found.startswith("checkpoint 3: it does not follow checkpoint 2")

    @pytest.mark.parametrize("since", [4, 5, 6])
    def test_one_that_was_removed_or_changed_in_between_is_named(
        self, six: None, head: str, since: int
    ) -> None:
        CheckpointRecord.objects.filter(number=2).update(signature=bytes(64))
        given = ["--since", str(since), "--head", head]
        assert differences(*given) == [
            "checkpoint 2: its signature does not fit what it says",
        ]
        CheckpointRecord.objects.filter(number=2).delete()
        assert differences(*given) == ["checkpoint 2: removed"]
        CheckpointRecord.objects.filter(number=1).delete()
        assert differences(*given) == [
            "checkpoint 2: removed",
            "checkpoint 1: removed; the kept head has it",
        ]

    def test_what_a_replaced_public_key_hides_is_counted(self) -> None:
        SealKey.objects.update(public_key=OTHER_SIGNER.public_key)
        status, lines = verify("--seals")
        assert (status, lines[:2]) == (
            1,
            [
                f"public key {SIGNER.key_id}: it does not belong to its id",
                "3 checkpoints could not be checked",
            ],
        )
        assert lines[2].endswith("signed by none")
