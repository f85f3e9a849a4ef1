"""A dump that is cut short, altered or not for this log changes nothing, and is told why."""

import hashlib
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from django.db import connection
from django.test.utils import override_settings

from accounts.commands import RegisterUser, register_user
from accounts.models import Credential
from audit.dumps import loading, wrapping
from audit.dumps.dumping import dump
from audit.dumps.errors import DumpDamaged, DumpRefused, LogNotEmpty
from audit.dumps.lines import TABLES, encode_line
from audit.dumps.loading import fill_read_models, load
from eventstore import keys
from eventstore.database import writing
from eventstore.models import CheckpointRecord, DataKey, Destruction, SnapshotRecord
from projections.models import Balance, ParkedEvent, PendingMessage, Position
from tests.dumps.making import (
    CAUSE,
    PASSWORD,
    dumped_log,
    empty_the_log,
    fill_the_log,
    load_here,
    stored_rows,
)

SEED = 20261122
CUTS = 60
ALTERATIONS = 150


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump of these tests is long: most of it is not read yet when something is refused."""
    monkeypatch.setattr(loading, "BATCH_ROWS", 3)


def assert_refused(
    data: bytes, match: str, kind: type[DumpRefused] = DumpDamaged, **how: Any
) -> None:
    """Refused for that reason, in one line, with nothing changed."""
    before = stored_rows()
    with pytest.raises(DumpRefused, match=match) as refused:
        load(io.BytesIO(data), passphrase=None, report=lambda done, total: None, **how)
    assert type(refused.value) is kind, refused.value
    assert "\n" not in str(refused.value)
    assert stored_rows() == before


def rewritten(data: bytes, change: Callable[[list[Any]], None]) -> bytes:
    """What somebody makes who changes lines and writes the last one anew."""
    lines = [msgspec.json.decode(line) for line in data.splitlines()]
    change(lines)
    body = b"".join(msgspec.json.encode(line) + b"\n" for line in lines[:-1])
    end = lines[-1] | {"sha256": hashlib.sha256(body).hexdigest()}
    return body + msgspec.json.encode(end) + b"\n"


def of_kind(lines: list[Any], kind: str) -> list[Any]:
    return [line for line in lines if line.get("kind") == kind]


@pytest.mark.parametrize("seed", [SEED])
def test_a_dump_that_is_cut_short_anywhere_is_called_so(dumped: bytes, seed: int) -> None:
    chance = random.Random(seed)
    places = {len(dumped) - 1, *(chance.randrange(1, len(dumped)) for _ in range(CUTS))}
    for place in places:
        lines = dumped[:place].count(b"\n")
        assert_refused(dumped[:place], f"cut short, behind line {lines}$")
    assert_refused(b"", "there is nothing in it")


@pytest.mark.parametrize("seed", [SEED])
def test_a_bit_that_is_altered_anywhere_is_found(dumped: bytes, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(ALTERATIONS):
        altered = bytearray(dumped)
        altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
        assert_refused(bytes(altered), "altered|cut short|chatledger-dump")


@pytest.mark.parametrize("kind", ["seal_key", "data_key", "credential", "event", "checkpoint"])
def test_a_line_that_is_removed_doubled_or_moved_is_found(dumped: bytes, kind: str) -> None:
    lines = dumped.splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'{"kind":"%s"' % kind.encode() in line)
    without = lines[:place] + lines[place + 1 :]
    assert_refused(b"".join(without), "altered")
    assert_refused(b"".join(lines[: place + 1] + lines[place:]), "altered")
    last = lines[-2]
    moved = [*lines[:place], last, *lines[place:-2], lines[-1]]
    assert_refused(b"".join(moved), "altered")


def test_bytes_behind_the_end_are_found(dumped: bytes) -> None:
    assert_refused(dumped + b"\n", "something stands behind its last line")
    assert_refused(dumped * 2, "something stands behind its last line")


def test_a_last_line_in_another_form_is_no_last_line(dumped: bytes) -> None:
    *lines, end = dumped.splitlines(keepends=True)
    assert_refused(b"".join([*lines, end.replace(b",", b", ")]), "is not in its one form")


def test_a_dump_with_other_lines_than_it_counts_is_refused(dumped: bytes) -> None:
    def without_a_login(lines: list[Any]) -> None:
        lines.remove(of_kind(lines, "credential")[0])

    assert_refused(rewritten(dumped, without_a_login), "other numbers of lines than it says")


def test_a_dump_out_of_order_is_refused(dumped: bytes) -> None:
    def logins_last(lines: list[Any]) -> None:
        login = of_kind(lines, "credential")[0]
        lines.remove(login)
        lines.insert(-1, login)

    assert_refused(rewritten(dumped, logins_last), "is out of order")


def test_what_is_no_dump_is_called_so() -> None:
    assert_refused(b"hello\n", "this is no chatledger-dump")
    assert_refused(b'{"format":"other","version":1}\n', "this is no chatledger-dump")
    assert_refused(b"x" * 1000, "cut short")


def test_a_newer_format_is_told_from_damage(dumped: bytes) -> None:
    def newer(lines: list[Any]) -> None:
        lines[0]["version"] = 2

    assert_refused(rewritten(dumped, newer), "version 2 of its format", DumpRefused)


def test_a_dump_whose_log_has_a_gap_is_refused(dumped: bytes) -> None:
    def with_gap(lines: list[Any]) -> None:
        for event in of_kind(lines, "event")[3:]:
            event["position"] += 1
        lines[0]["last_position"] += 1

    assert_refused(rewritten(dumped, with_gap), "position 4 is missing", DumpRefused)


def test_a_dump_whose_rows_collide_is_refused(dumped: bytes) -> None:
    def colliding(lines: list[Any]) -> None:
        first, second, *_ = of_kind(lines, "event")
        second |= {"stream_id": first["stream_id"], "version": first["version"]}

    assert_refused(rewritten(dumped, colliding), "this database refuses it", DumpRefused)


@pytest.mark.parametrize(
    ("kind", "field", "to"),
    [
        ("event", "topic", "chatledger.accounts.TokensRefunded"),
        ("event", "data", "e30="),
        ("event", "at", 1),
        ("event", "actor", "user:mallory"),
        ("event", "causation_id", "00000000-0000-4000-8000-000000000000"),
        ("checkpoint", "root", "A" * 43 + "="),
        ("checkpoint", "at", 1),
        ("checkpoint", "signature", "A" * 86 + "=="),
        ("seal_key", "public_key", "A" * 43 + "="),
    ],
)
def test_a_log_that_was_changed_before_its_dump_is_refused_by_its_seals(
    dumped: bytes, kind: str, field: str, to: Any
) -> None:
    def changed(lines: list[Any]) -> None:
        of_kind(lines, kind)[0][field] = to

    assert_refused(rewritten(dumped, changed), "its log does not verify", DumpRefused)


def staff_without_account(lines: list[Any]) -> None:
    login = of_kind(lines, "credential")[-1]
    made_up = login | {"user_id": "f" * 8 + "-ffff-4fff-bfff-" + "f" * 12}
    made_up |= {"claim_id": str(uuid4()), "role": "staff"}
    lines.insert(lines.index(login) + 1, made_up)
    for line in (lines[0], lines[-1]):
        line["counts"]["credentials"] += 1


def no_credentials(lines: list[Any]) -> None:
    for login in of_kind(lines, "credential"):
        lines.remove(login)
    for line in (lines[0], lines[-1]):
        line["counts"]["credentials"] = 0


def an_emperor(lines: list[Any]) -> None:
    of_kind(lines, "credential")[0].update(role="emperor", jwt_epoch=-5)


def no_keys(lines: list[Any]) -> None:
    for key in of_kind(lines, "data_key"):
        key["wrapped"] = None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (staff_without_account, "credentials: user_id ffffffff.* the log has no such account"),
        (no_credentials, "credentials: user_id .* it has no credential"),
        (an_emperor, "role is 'emperor', by the log 'member'; jwt_epoch is -5, by the log 0"),
        (no_keys, "credentials: the key of the names is missing, and 1 more"),
    ],
)
def test_credentials_and_keys_that_the_log_does_not_tell_of_are_refused(
    dumped: bytes, change: Callable[[list[Any]], None], said: str
) -> None:
    assert_refused(rewritten(dumped, change), f"does not verify: .*{said}", DumpRefused)


def signed_again(dumped: bytes, before: bytes, after: bytes) -> bytes:
    """A dump whose line is another one, with the digest made anew."""
    lines = dumped.replace(before, after, 1).splitlines(keepends=True)
    digest = hashlib.sha256(b"".join(lines[:-1])).hexdigest()
    end = msgspec.json.decode(lines[-1]) | {"sha256": digest}
    return b"".join([*lines[:-1], msgspec.json.encode(end), b"\n"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"kind":"credential"', b'"kind":"credential","role":"staff"'),
        (b'{"format"', b'{"version":1,"format"'),
        (b'"topic":"chat', b'"topic":"\\u0063hat'),
        (b'"position":1,', b'"position":1 ,'),
    ],
)
def test_a_line_that_can_be_read_in_two_ways_is_refused(
    dumped: bytes, before: bytes, after: bytes
) -> None:
    assert_refused(signed_again(dumped, before, after), r"line \d+ is not in its one form")


def test_a_head_that_the_checkpoints_do_not_have_is_found(dumped: bytes) -> None:
    def other_head(lines: list[Any]) -> None:
        lines[0]["head"]["number"] += 1

    assert_refused(rewritten(dumped, other_head), "does not end where its first line says")


def test_another_data_key_is_told_what_helps(dumped: bytes) -> None:
    with override_settings(DATA_KEY=os.urandom(32), DATA_KEY_PREVIOUS=None):
        assert_refused(dumped, "make the dump with --data-key-file or --passphrase", DumpRefused)


def test_a_wrong_or_missing_passphrase_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapping, "SCRYPT_N", 2**10)
    file = tmp_path / "passphrase"
    file.write_text("the right passphrase")
    fill_the_log()
    data = dumped_log(wrapping.for_passphrase(file))
    empty_the_log()
    assert_refused(data, "--passphrase-file", DumpRefused)
    with pytest.raises(DumpRefused, match="passphrase does not open"):
        load(io.BytesIO(data), passphrase=b"the wrong passphrase", report=lambda done, total: None)
    assert not DataKey.objects.exists()
    # Not the passphrase is wrong, but what it is mixed with: the damage is named.
    altered = data.replace(b'"r":8', b'"r":4', 1)
    with pytest.raises(DumpDamaged, match="altered"):
        load(io.BytesIO(altered), passphrase=b"the right passphrase", report=lambda d, t: None)


def test_a_passphrase_for_a_dump_without_one_is_refused(dumped: bytes) -> None:
    with pytest.raises(DumpRefused, match="leave --passphrase-file out"):
        load(io.BytesIO(dumped), passphrase=b"something long", report=lambda done, total: None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("short", "12 to 1024 bytes"), ("", "12 to 1024"), ("x" * 2000, "12 to"), ("a\nb" * 9, "12")],
)
def test_a_passphrase_that_is_none_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "passphrase"
    file.write_text(text)
    with pytest.raises(DumpRefused, match=reason):
        wrapping.read_passphrase(file)


@pytest.mark.parametrize("text", ["", "DATA_KEY=short\n", "SECRET_KEY=x\n", "DATA_KEY=%%%\n"])
def test_a_file_without_a_data_key_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.env"
    file.write_text(text)
    with pytest.raises(DumpRefused, match="DATA_KEY"):
        wrapping.for_data_key(file)


def test_a_log_whose_keys_do_not_open_is_not_dumped_for_others(tmp_path: Path) -> None:
    fill_the_log()
    file = tmp_path / "passphrase"
    file.write_text("some passphrase")
    out = io.BytesIO()
    with (
        override_settings(DATA_KEY=os.urandom(32)),
        pytest.raises(DumpRefused, match="DATA_KEY does not open this log's keys"),
    ):
        dump(out.write, wrapping=wrapping.for_passphrase(file), report=lambda done, total: None)


def a_user() -> None:
    register_user(RegisterUser("carol", PASSWORD), CAUSE)


def a_credential() -> None:
    Credential.objects.create(user_id=uuid4(), claim_id=uuid4(), password_hash="x")


def a_key() -> None:
    with writing():
        keys.create_key(uuid4())


def a_checkpoint() -> None:
    CheckpointRecord.objects.create(
        number=1,
        first=1,
        last=1,
        root=b"",
        leaves=b"",
        previous=b"",
        at=1,
        key_id="",
        signature=b"",
    )


def a_snapshot() -> None:
    SnapshotRecord.objects.create(stream_id=uuid4(), version=100, topic="x", data=b"")


def a_destruction() -> None:
    Destruction.objects.create(key_id=uuid4(), user_id=uuid4(), at=1)


def a_row_that_is_shown() -> None:
    Balance.objects.create(generation=1, user_id=uuid4(), amount=9_000_000)


def a_message_that_is_pending() -> None:
    PendingMessage.objects.create(
        generation=1, message_id=uuid4(), user_id=uuid4(), sent_at=1, deadline_at=1
    )


def a_parked_event() -> None:
    ParkedEvent.objects.create(
        projection="balances", generation=1, stream_id=uuid4(), position=1, topic="x", error="x"
    )


def a_position() -> None:
    Position.objects.update_or_create(
        name="balances", generation=1, defaults={"position": 7, "version": 1}
    )


@pytest.mark.parametrize(
    "something",
    [
        *(a_user, a_credential, a_key, a_checkpoint, a_snapshot, a_destruction),
        *(a_row_that_is_shown, a_message_that_is_pending, a_parked_event, a_position),
    ],
)
def test_a_log_that_is_not_empty_stays_as_it_is(
    dumped: bytes, something: Callable[[], None]
) -> None:
    keys.names_key()
    something()
    assert_refused(dumped, "this log is not empty", LogNotEmpty)


def test_a_service_that_has_followed_an_empty_log_takes_a_dump(dumped: bytes) -> None:
    fill_read_models(lambda done, total: None)
    assert load_here(dumped).events


def test_a_batch_is_bounded_in_bytes_too(dumped: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = max(map(len, dumped.splitlines(keepends=True)))
    monkeypatch.setattr(loading, "BATCH_ROWS", 1_000_000)
    monkeypatch.setattr(loading, "BATCH_BYTES", longest + 1)
    sizes = []
    insert = loading._insert

    def noting(table: Any, rows: Any) -> None:
        sizes.append(sum(len(encode_line(row)) for row in rows))
        insert(table, rows)

    monkeypatch.setattr(loading, "_insert", noting)
    load_here(dumped)
    assert len(sizes) > len(TABLES)
    assert max(sizes) <= 2 * longest


def test_the_names_key_of_the_target_survives_a_refusal(dumped: bytes) -> None:
    before = keys.names_key()
    assert_refused(dumped[:-1], "cut short")
    keys.forget()
    assert keys.names_key() == before
    assert connection.in_atomic_block is False
