"""What somebody does who knows how the seals are verified, and has no key: all of it is found."""

from uuid import uuid4

import pytest

from eventstore.models import CheckpointRecord, EventRecord
from eventstore.seals.checkpoints import Checkpoint
from eventstore.seals.rows import HIGHEST, LOWEST, POSITION, hash_at, read_rows
from eventstore.seals.tracing import Tracing
from tests.audit.verifying import differences
from tests.eventstore.sealing import fill, insert, seal, stored

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
