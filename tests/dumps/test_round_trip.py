"""A dump gives the log back, byte for byte, and whoever had an account has it."""

import os
from base64 import b64encode
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import override_settings

from accounts.commands import LogIn, log_in
from audit.dumps import dumping, loading, wrapping
from audit.dumps.lines import TABLES
from config.keyfile import new_key
from eventstore import keys
from eventstore.models import DataKey, SnapshotRecord
from eventstore.reading import max_position, read_events
from projections.comparison import compare_with_fresh_replay
from projections.models import Message
from tests.dumps.making import (
    GREETING,
    PASSWORD,
    dumped_log,
    empty_the_log,
    fill_the_log,
    load_here,
    send,
    stored_rows,
)

PASSPHRASE = "a passphrase of seven words, or so\n"


def assert_readable() -> None:
    """Every text that can be read on the source can be read here."""
    keys.forget()
    texts = keys.read_texts([bytes(each.message or b"") for each in Message.objects.all()])
    assert sorted(texts, key=str) == sorted([GREETING, GREETING, "pending", "not sealed yet"])
    assert log_in(LogIn("ALICE", PASSWORD)).jwt


@pytest.mark.parametrize("rows", [3, 500])
def test_what_is_loaded_is_what_was_dumped_row_for_row(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumping, "PAGE_ROWS", rows)
    monkeypatch.setattr(loading, "BATCH_ROWS", rows + 1)
    fill_the_log()
    before, dump = stored_rows(), dumped_log()
    assert all(before.values())
    empty_the_log()
    load_here(dump)
    assert stored_rows() == before
    assert dumped_log() == dump


def test_a_dump_carries_every_column_of_its_tables() -> None:
    with connection.cursor() as cursor:
        for table in TABLES:
            found = connection.introspection.get_table_description(cursor, table.name)
            assert sorted(column.name for column in found) == sorted(table.columns), table.name


def test_whoever_had_a_login_has_it_and_the_read_models_show_everything(dumped: bytes) -> None:
    load_here(dumped)
    assert compare_with_fresh_replay() == []
    assert_readable()


def test_snapshots_stay_behind(dumped: bytes) -> None:
    load_here(dumped)
    assert not SnapshotRecord.objects.exists()


def test_the_log_goes_on_behind_what_was_loaded(dumped: bytes) -> None:
    load_here(dumped)
    last = max_position()
    alice = log_in(LogIn("alice", PASSWORD)).user_id
    send(alice, "and on", None)
    assert [event.position for event in read_events(last)] == [last + 1, last + 2, last + 3]
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = 'eventstore_event'")
            assert cursor.fetchone() == (last + 3,)


def test_an_empty_log_can_be_dumped_and_loaded() -> None:
    empty = dumped_log()
    assert empty.count(b"\n") == 2
    assert load_here(empty).events == 0


def test_a_names_key_of_the_target_gives_way(dumped: bytes) -> None:
    keys.names_key()
    load_here(dumped)
    assert log_in(LogIn("alice", PASSWORD)).jwt


def test_a_passphrase_carries_the_keys_to_another_data_key(tmp_path: Path) -> None:
    fill_the_log()
    file = passphrase_file(tmp_path)
    dump = dumped_log(wrapping.for_passphrase(file))
    empty_the_log()
    with override_settings(DATA_KEY=os.urandom(32), DATA_KEY_PREVIOUS=None):
        load_here(dump, wrapping.read_passphrase(file))
        assert_readable()
        # Bob's, that of his conversation, and that of the one that alice deleted.
        assert DataKey.objects.filter(wrapped=None).count() == 3


def test_a_file_of_keys_carries_them_to_its_data_key(tmp_path: Path) -> None:
    fill_the_log()
    file = tmp_path / "keys.env"
    file.write_text(f"SECRET_KEY={new_key()}\nDATA_KEY={new_key()}\n")
    how = wrapping.for_data_key(file)
    dump = dumped_log(how)
    empty_the_log()
    with override_settings(DATA_KEY=wrapping._data_key_in(file), DATA_KEY_PREVIOUS=None):
        load_here(dump)
        assert_readable()


def test_keys_that_the_previous_data_key_wraps_travel_too(tmp_path: Path) -> None:
    fill_the_log()
    file = passphrase_file(tmp_path)
    with override_settings(DATA_KEY=os.urandom(32), DATA_KEY_PREVIOUS=settings.DATA_KEY):
        dump = dumped_log(wrapping.for_passphrase(file))
    empty_the_log()
    load_here(dump, wrapping.read_passphrase(file))
    assert_readable()


def test_no_key_in_a_dump_for_a_passphrase_opens_with_this_data_key(tmp_path: Path) -> None:
    fill_the_log()
    dump = dumped_log(wrapping.for_passphrase(passphrase_file(tmp_path)))
    for row in DataKey.objects.filter(wrapped_by=None, wrapped__isnull=False):
        assert b64encode(bytes(row.wrapped or b"")) not in dump


@pytest.fixture(autouse=True)
def cheap_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapping, "SCRYPT_N", 2**10)


def passphrase_file(folder: Path) -> Path:
    file = folder / "passphrase"
    file.write_text(PASSPHRASE)
    return file
