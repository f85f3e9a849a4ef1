"""`manage.py verify` and `manage.py export_head`: what they print, and how they end."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db.models import F

from accounts.commands import RegisterUser, register_user
from accounts.domain import Account, AccountSnapshot
from accounts.models import Credential
from eventstore.log import event_log
from eventstore.models import CheckpointRecord, EventRecord, SealKey
from eventstore.seals import merkle
from eventstore.seals.checkpoints import checkpoint_over, latest, read_checkpoint
from eventstore.seals.rows import leaf_hashes, read_rows
from projections.models import Balance
from projections.runner import ProjectionRunner
from tests.audit.mutations import shift
from tests.audit.verifying import PARTS, differences, sql, verify
from tests.dumps.making import CAUSE, PASSWORD
from tests.eventstore.making import append_jobs, events
from tests.eventstore.sealing import OTHER_SIGNER, SIGNER, fill, seal

pytestmark = pytest.mark.django_db(transaction=True)

TABLES: tuple[Any, ...] = (EventRecord, CheckpointRecord, SealKey)


def refusal(*arguments: str) -> CommandError:
    with pytest.raises(CommandError) as refused:
        call_command("verify", "--seals", *arguments, stdout=io.StringIO())
    assert "\n" not in str(refused.value)
    return refused.value


@pytest.fixture
def head(sealed: None, tmp_path: Path) -> Path:
    file = tmp_path / "head.json"
    out = io.StringIO()
    call_command("export_head", stdout=out)
    file.write_text(out.getvalue())
    return file


def with_head(head: Path, **changes: Any) -> str:
    """The kept head with other values."""
    shown = {**json.loads(head.read_text()), **changes}
    head.write_text(json.dumps({key: value for key, value in shown.items() if value is not None}))
    return str(head)


class TestAWholeLog:
    def test_it_says_what_was_checked_and_ends_with_0(self, sealed: None) -> None:
        newest = latest()
        assert newest is not None
        assert verify("--seals") == (
            0,
            [
                f"seals: no difference; 3 checkpoints over 12 events, signed by {SIGNER.key_id}",
                f"head: checkpoint 3, {newest.hash.hex()}",
                "not sealed yet: 0 events",
            ],
        )

    def test_what_has_no_seal_yet_is_counted(self, sealed: None) -> None:
        fill(2, seed=9)
        assert verify("--seals")[1][-1] == "not sealed yet: 2 events"

    def test_a_log_without_seals_is_checked_for_gaps_only(self) -> None:
        append_jobs(events(count=4))
        assert verify("--seals") == (
            0,
            [
                "seals: no difference; 0 checkpoints over 0 events, signed by none",
                "head: no checkpoint yet",
                "not sealed yet: 4 events",
            ],
        )

    def test_an_empty_log_is_whole(self) -> None:
        assert verify("--seals")[0] == 0

    def test_every_key_that_signed_is_listed(self, sealed: None) -> None:
        fill(1, seed=9)
        seal(OTHER_SIGNER)
        keys = ", ".join(sorted([SIGNER.key_id, OTHER_SIGNER.key_id]))
        assert verify("--seals")[1][0].endswith(f"13 events, signed by {keys}")

    def test_it_writes_nothing(self, sealed: None) -> None:
        EventRecord.objects.filter(position=2).update(actor="mallory")
        before = [list(each.objects.order_by("pk").values()) for each in TABLES]
        assert verify("--seals")[0] == 1
        assert before == [list(each.objects.order_by("pk").values()) for each in TABLES]


class TestWhatFollowsFromTheLog:
    @pytest.fixture
    def alice(self) -> UUID:
        user_id = register_user(RegisterUser("alice", PASSWORD), CAUSE).user_id
        seal()
        runner = ProjectionRunner()
        while runner.step():
            pass
        return user_id

    def test_without_seals_alone_all_that_follows_from_the_log_is_compared(
        self, alice: UUID
    ) -> None:
        status, lines = verify()
        assert status == 0
        assert lines[3:] == [
            "credentials: no difference",
            "snapshots: no difference",
            "read models: no difference",
        ]

    def test_a_changed_row_is_named_and_the_seals_are_whole(self, alice: UUID) -> None:
        Balance.objects.update(amount=501)
        status, lines = verify()
        assert status == 1
        tokens = settings.SIGNUP_TOKENS
        assert lines[0] == f"balances: user_id {alice}: amount is 501, by the log {tokens}"
        assert lines[1].startswith("seals: no difference")
        assert lines[-1] == "read models: 1 difference"

    def test_a_changed_credential_is_named(self, alice: UUID) -> None:
        Credential.objects.update(role="staff")
        status, lines = verify()
        assert status == 1
        assert lines[0] == f"credentials: user_id {alice}: role is 'staff', by the log 'member'"
        assert lines[4:] == [
            "credentials: 1 difference",
            "snapshots: no difference",
            "read models: no difference",
        ]

    def test_a_changed_snapshot_is_named(self, alice: UUID) -> None:
        taken = AccountSnapshot.take(event_log().load(Account, alice, fresh=True))
        dearer = AccountSnapshot(
            originator_id=alice,
            originator_version=taken.originator_version,
            state=taken.state | {"tokens": 9_000_000},
        )
        store = event_log().snapshots
        assert store is not None
        store.put([dearer])
        status, lines = verify()
        assert status == 1
        assert lines[0].startswith(f"snapshots: stream {alice}, version 2: tokens is 9000000, ")
        assert "snapshots: 1 difference" in lines

    def test_with_seals_alone_they_are_left_out(self, alice: UUID) -> None:
        Balance.objects.update(amount=501)
        Credential.objects.update(role="staff")
        assert len(verify("--seals")[1]) == 3
        assert verify("--seals")[0] == 0


@pytest.mark.usefixtures("sealed")
class TestEvents:
    def test_several_mutations_at_once_are_all_named(self) -> None:
        EventRecord.objects.filter(position=2).update(actor="mallory")
        EventRecord.objects.filter(position=5).update(at=F("at") + 1)
        EventRecord.objects.filter(position__gt=10).delete()
        assert differences() == [
            "checkpoint 1, event 2: changed",
            "checkpoint 2, event 5: changed",
            "checkpoint 3, events 11 to 12: removed",
        ]

    def test_a_removed_event_without_a_gap_is_told_from_those_that_moved(self) -> None:
        fill(3, seed=9)
        sql("DELETE FROM eventstore_event WHERE position = 5")
        shift(6, 15, -1)
        assert differences() == [
            "checkpoint 2, event 5: removed",
            "checkpoints 2 to 3, events 6 to 12: moved down by 1 place, to 5 to 11",
        ]

    def test_several_removed_events_without_a_gap_are_told_too(self) -> None:
        # More than are looked for one by one: the others follow the first.
        fill(600, seed=9)
        seal()
        sql("DELETE FROM eventstore_event WHERE position BETWEEN 3 AND 6")
        shift(7, 612, -4)
        assert differences() == [
            "checkpoints 1 to 2, events 3 to 6: removed",
            "checkpoints 2 to 4, events 7 to 612: moved down by 4 places, to 3 to 608",
        ]

    def test_an_event_that_was_changed_with_its_leaf_is_found_by_the_root(self) -> None:
        change_with_its_leaf(5)
        assert differences() == [neither_makes_its_root()]

    def test_where_another_leaf_was_changed_as_well_no_event_is_singled_out(self) -> None:
        leaves = change_with_its_leaf(5)
        leaves[2] = bytes(32)
        CheckpointRecord.objects.filter(number=2).update(leaves=b"".join(leaves))
        assert differences() == [neither_makes_its_root(), "checkpoint 2, event 6: changed"]

    def test_an_event_that_was_changed_with_its_leaf_and_root_is_found_by_the_signature(
        self,
    ) -> None:
        changed = change_with_its_leaf(5)
        CheckpointRecord.objects.filter(number=2).update(root=merkle.root(changed))
        assert differences() == [
            "checkpoint 2: its at was changed, or its events with their leaves and its root"
        ]

    def test_a_time_that_goes_back_is_named_though_it_is_sealed(self) -> None:
        append_jobs(events(), events())
        sql("UPDATE eventstore_event SET at = at - 3600000000 WHERE position = 14")
        seal()
        assert differences() == ["event 14: its time goes back"]

    def test_a_gap_behind_the_last_seal_is_named(self) -> None:
        fill(3, seed=9)
        sql("DELETE FROM eventstore_event WHERE position = 14")
        assert differences() == ["event 14: missing; no seal tells more"]

    def test_a_gap_in_a_streams_versions_is_named(self) -> None:
        stream = append_and_skip_a_version()
        assert verify("--seals")[1][0] == (
            f"stream {stream}: its versions go from 1 to 3, and there are 2"
        )

    def test_a_log_of_which_nothing_is_left_is_named(self) -> None:
        EventRecord.objects.all().delete()
        assert differences() == ["checkpoints 1 to 3, events 1 to 12: removed"]


def neither_makes_its_root() -> str:
    return (
        "checkpoint 2: neither its leaves nor its events make its root: events 4 to 7 cannot be"
        " told apart"
    )


def change_with_its_leaf(position: int) -> list[bytes]:
    """What somebody can do who knows how seals are made and has no key."""
    EventRecord.objects.filter(position=position).update(actor="mallory")
    checkpoint = checkpoint_over(position)
    assert checkpoint is not None
    leaves = checkpoint.leaf_hashes
    (leaf,) = leaf_hashes(read_rows(position - 1, position))
    assert leaf is not None
    leaves[position - checkpoint.first] = leaf
    CheckpointRecord.objects.filter(number=checkpoint.number).update(leaves=b"".join(leaves))
    return leaves


def append_and_skip_a_version() -> str:
    made = events(count=3)
    append_jobs([made[0], made[2]])
    return str(made[0].originator_id)


@pytest.mark.usefixtures("sealed")
class TestCheckpoints:
    @pytest.mark.parametrize("column", ["at", "signature"])
    def test_of_the_newest_time_and_signature_are_told_apart_by_a_head_alone(
        self, column: str, head: Path
    ) -> None:
        value = {"at": 1, "signature": bytes(64)}[column]
        CheckpointRecord.objects.filter(number=3).update(**{column: value})
        also = ", or its events with their leaves and its root"
        assert differences() == [f"checkpoint 3: its at or its signature was changed{also}"]
        (line,) = differences("--head", str(head))
        assert line.removesuffix(also) == f"checkpoint 3: its {column} was changed"

    def test_a_public_key_that_is_gone_is_named_by_what_it_signed(self) -> None:
        SealKey.objects.all().delete()
        assert differences() == [
            f"checkpoint {number}: there is no public key {SIGNER.key_id} that it is signed by"
            for number in (1, 2, 3)
        ]

    def test_a_public_key_under_another_id_is_named_once(self) -> None:
        SealKey.objects.update(id="0123456789abcdef")
        assert differences() == ["public key 0123456789abcdef: it does not belong to its id"]

    def test_the_first_checkpoints_removed_are_named(self) -> None:
        CheckpointRecord.objects.filter(number__lte=2).delete()
        assert differences() == ["checkpoints 1 to 2: removed; events 1 to 7 have no seal"]

    def test_a_number_that_was_changed_is_found_by_its_signature(self) -> None:
        CheckpointRecord.objects.filter(number=2).update(number=40)
        assert differences() == ["checkpoint 2: its number was changed to 40"]

    def test_a_checkpoint_that_was_signed_anew_with_the_key_does_not_fit_the_next(self) -> None:
        second = read_checkpoint(2)
        assert second is not None
        later = replace(second, at=second.at + 1)
        CheckpointRecord.objects.filter(number=2).update(
            at=later.at, signature=SIGNER.sign(later.message)
        )
        assert differences() == [
            "checkpoint 3: it does not follow checkpoint 2 as that is now: one of them was replaced"
        ]

    def test_events_between_two_checkpoints_that_neither_seals_are_named(self) -> None:
        third = read_checkpoint(3)
        assert third is not None
        leaves = third.leaf_hashes[1:]
        shorter = replace(third, first=9, leaves=b"".join(leaves), root=merkle.root(leaves))
        CheckpointRecord.objects.filter(number=3).update(
            first=9,
            leaves=shorter.leaves,
            root=shorter.root,
            signature=SIGNER.sign(shorter.message),
        )
        assert differences() == [
            "checkpoint 3: it begins with event 9, and the one before ends with 7"
        ]


class TestSince:
    def test_it_begins_there_and_names_nothing_before(self, sealed: None) -> None:
        EventRecord.objects.filter(position=2).update(actor="mallory")
        status, lines = verify("--seals", "--since", "2")
        assert status == 0
        assert "2 checkpoints from number 2 on over 9 events" in lines[0]

    def test_what_it_names_as_the_one_before_is_compared(self, sealed: None) -> None:
        CheckpointRecord.objects.filter(number=2).update(previous=bytes(32))
        assert differences("--since", "2") == ["checkpoint 2: its previous was changed"]

    def test_the_one_before_is_checked_by_its_signature(self, sealed: None) -> None:
        CheckpointRecord.objects.filter(number=1).update(at=1)
        assert differences("--since", "2") == [
            "checkpoint 1: its signature does not fit what it says"
        ]

    @pytest.mark.parametrize("number", ["0", "4", "-1"])
    def test_a_checkpoint_that_is_not_there_is_one_line(self, sealed: None, number: str) -> None:
        refused = refusal(f"--since={number}")
        assert (str(refused), refused.returncode) == (f"there is no checkpoint {number}", 2)


class TestHead:
    def test_one_from_before_where_the_check_begins_is_compared_too(self, head: Path) -> None:
        fill(1, seed=9)
        seal()
        arguments = ("--since", "4", "--head", with_head(head, hash="00" * 32))
        (line,) = differences(*arguments)
        assert line.startswith("checkpoint 3: its hash is ")

    def test_one_that_was_removed_from_the_middle_is_named(self, head: Path) -> None:
        fill(1, seed=9)
        seal()
        CheckpointRecord.objects.filter(number=3).delete()
        assert differences("--head", str(head)) == [
            "checkpoint 3: removed; events 8 to 12 have no seal",
            "checkpoint 3: removed; the kept head has it",
        ]

    def test_the_head_of_today_and_one_of_before_are_found(self, head: Path) -> None:
        assert verify("--seals", "--head", str(head))[0] == 0
        fill(1, seed=9)
        seal()
        assert verify("--seals", "--head", str(head))[0] == 0

    def test_a_list_of_checkpoints_is_taken_by_its_first(self, head: Path) -> None:
        head.write_text(f"[{head.read_text()}, 17]")
        assert verify("--seals", "--head", str(head))[0] == 0

    @pytest.mark.parametrize(
        ("left", "ends"),
        [(2, "ends with checkpoint 2"), (0, "has no checkpoint")],
    )
    def test_a_tail_that_was_cut_off_is_found(self, head: Path, left: int, ends: str) -> None:
        EventRecord.objects.filter(position__gt=sum(PARTS[:left])).delete()
        CheckpointRecord.objects.filter(number__gt=left).delete()
        assert verify("--seals")[0] == 0
        assert differences("--head", str(head)) == [
            f"the log was cut off: it {ends}, the kept head is checkpoint 3"
        ]

    def test_a_log_that_was_written_anew_with_another_key_is_found(self, head: Path) -> None:
        kept = json.loads(head.read_text())
        EventRecord.objects.filter(position=12).update(actor="mallory")
        CheckpointRecord.objects.filter(number=3).delete()
        seal(OTHER_SIGNER)
        assert verify("--seals")[0] == 0
        found = differences("--head", str(head))
        assert len(found) == 2
        assert found[0].startswith("checkpoint 3: its hash is ")
        assert found[0].endswith(f", the kept head's {kept['hash']}")
        assert found[1] == (
            f"checkpoint 3: it is signed by key {OTHER_SIGNER.key_id}, the kept head by"
            f" {SIGNER.key_id}"
        )

    def test_another_key_than_the_heads_is_named(self, head: Path) -> None:
        (line,) = differences("--head", with_head(head, key_id="0123456789abcdef"))
        assert line.endswith("the kept head by 0123456789abcdef")

    @pytest.mark.parametrize("name", ["number", "hash", "key_id"])
    @pytest.mark.parametrize("value", [None, 0, True, "x", [], 2**70])
    def test_a_head_that_is_none_is_one_line(self, head: Path, name: str, value: Any) -> None:
        refused = refusal("--head", with_head(head, **{name: value}))
        assert (str(refused), refused.returncode) == (
            f"{head} holds a checkpoint without a {name}",
            2,
        )

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (b"", "is not JSON"),
            (b"\xff", "is not JSON"),
            (b"[" * 100_000, "is not JSON"),
            (b"[]", "holds an empty list and no checkpoint"),
            (b"3", "holds no checkpoint"),
        ],
    )
    def test_a_file_that_holds_no_head_is_one_line(
        self, tmp_path: Path, text: bytes, why: str
    ) -> None:
        file = tmp_path / "head.json"
        file.write_bytes(text)
        assert str(refusal("--head", str(file))) == f"{file} {why}"

    def test_a_file_that_cannot_be_read_is_one_line(self, tmp_path: Path) -> None:
        assert "cannot be read: No such file" in str(refusal("--head", str(tmp_path / "no")))
        assert "cannot be read: Is a directory" in str(refusal("--head", str(tmp_path)))

    def test_the_head_is_exported_as_one_line_of_json(self, sealed: None) -> None:
        out = io.StringIO()
        call_command("export_head", stdout=out)
        newest = latest()
        assert newest is not None
        assert json.loads(out.getvalue()) == newest.as_json()
        assert out.getvalue().count("\n") == 1

    @pytest.mark.parametrize("column", ["at", "key_id"] if settings.EMBEDDED else ["at"])
    def test_a_head_that_cannot_be_shown_is_refused_in_one_line(
        self, sealed: None, column: str
    ) -> None:
        value = "4611686018427387904" if column == "at" else "x'ff'"
        sql(f"UPDATE eventstore_checkpoint SET {column} = {value} WHERE number = 3")
        with pytest.raises(CommandError) as refused:
            call_command("export_head", stdout=io.StringIO())
        assert str(refused.value) == (
            "the newest checkpoint is not one that this service wrote; see verify --seals"
        )

    def test_before_the_first_checkpoint_there_is_none_to_export(self) -> None:
        with pytest.raises(CommandError, match=r"^no checkpoint yet$") as refused:
            call_command("export_head")
        assert refused.value.returncode == 1
