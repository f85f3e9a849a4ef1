"""What follows the destruction of a key: the list, and the database's own files."""

import json
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from django.db import connection
from pytest_django import Settings

from accounts.models import Credential
from conversations.conversation_commands import DeleteConversation, delete_conversation
from eventstore.database import writing
from eventstore.models import DataKey, Destruction
from privacy import destructions
from privacy.destructions import Destructions
from privacy.erasure import EraseUser, erase_user
from tests.conversations.conftest import CAUSE
from tests.privacy.story import start, wrapped_keys


def erase(user_id: UUID) -> None:
    erase_user(EraseUser(user_id), CAUSE)


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def holds(wanted: bytes) -> list[Path]:
    """The files of the database that hold these bytes.

    Not PostgreSQL's write-ahead log, which the operator's rules let expire.
    """
    if connection.vendor == "sqlite":
        database = Path(connection.settings_dict["NAME"])
        files = list(database.parent.glob(f"{database.name}*"))
    else:
        with connection.cursor() as cursor:
            cursor.execute("CHECKPOINT")
            cursor.execute("SHOW data_directory")
            folder = Path(cursor.fetchone()[0])
        files = [file for file in folder.rglob("*") if "pg_wal" not in file.parts]
    return [file for file in files if file.is_file() and wanted in file.read_bytes()]


def test_no_file_of_the_database_holds_an_erased_users_keys(alice: UUID, bob: UUID) -> None:
    start(alice)
    of_alice, (of_bob, *_) = wrapped_keys(alice).values(), wrapped_keys(bob).values()
    assert len(of_alice) == 3
    gather_statistics()
    assert all(holds(wrapped) for wrapped in of_alice)
    erase(alice)
    Destructions().step()
    assert [file for wrapped in of_alice for file in holds(wrapped)] == []
    assert holds(of_bob)
    assert not Destruction.objects.exists()


def test_nor_the_hash_of_their_password(alice: UUID) -> None:
    password_hash = Credential.objects.get(user_id=alice).password_hash.encode()
    gather_statistics()
    assert holds(password_hash)
    erase(alice)
    Destructions().step()
    assert holds(password_hash) == []


def test_nor_that_of_a_deleted_conversation(alice: UUID) -> None:
    talk = start(alice)
    wrapped = wrapped_keys(alice)[talk]
    delete_conversation(DeleteConversation(alice, talk), CAUSE)
    Destructions().step()
    assert holds(wrapped) == []
    assert holds(wrapped_keys(alice)[alice])


def test_what_was_destroyed_is_listed_in_a_file_of_its_own(
    alice: UUID, bob: UUID, erasures: Path
) -> None:
    talk = start(bob)
    erase(alice)
    delete_conversation(DeleteConversation(bob, talk), CAUSE)
    Destructions().step()
    first, second = lines(erasures)
    assert {**first, "at": ""} == {"user_id": str(alice), "at": ""}
    assert {**second, "at": ""} == {"user_id": str(bob), "conversation_id": str(talk), "at": ""}
    assert first["at"] < second["at"]
    assert first["at"].endswith("Z")
    assert stat.S_IMODE(erasures.stat().st_mode) == 0o600


def test_lines_are_added_to_those_that_are_there(alice: UUID, bob: UUID, erasures: Path) -> None:
    for user_id in (alice, bob):
        erase(user_id)
        Destructions().step()
    assert [line["user_id"] for line in lines(erasures)] == [str(alice), str(bob)]


def test_a_list_that_cannot_be_written_is_tried_again(
    alice: UUID, erasures: Path, settings: Settings
) -> None:
    blocked = erasures.parent.parent / "a-file"
    blocked.write_text("")
    settings.ERASURES_FILE = blocked / "erasures.jsonl"
    erase(alice)
    with pytest.raises(FileExistsError):
        Destructions().step()
    settings.ERASURES_FILE = erasures
    Destructions().step()
    assert [line["user_id"] for line in lines(erasures)] == [str(alice)]


def test_while_a_reader_is_in_the_way_it_waits_and_then_it_cleans(alice: UUID) -> None:
    wrapped = wrapped_keys(alice)[alice]
    with reader():
        erase(alice)
        follower = Destructions()
        follower.step()
        assert Destruction.objects.exists()
        assert holds(wrapped)
    Destructions().step()
    assert holds(wrapped) == []
    assert not Destruction.objects.exists()


def test_a_reader_that_comes_between_holds_nobody_up(
    alice: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase(alice)
    monkeypatch.setattr(destructions, "_SEEN_BY_OTHERS", "SELECT FALSE")
    with reader():
        began = time.monotonic()
        Destructions().step()
        assert time.monotonic() - began < 5
        assert Destruction.objects.exists()
    Destructions().step()
    assert not Destruction.objects.exists()


def test_what_waits_is_listed_once(alice: UUID, bob: UUID, erasures: Path) -> None:
    follower, clock = Destructions(), 0.0
    with reader(), pytest.MonkeyPatch.context() as patched:
        patched.setattr("privacy.destructions.time.monotonic", lambda: clock)
        erase(alice)
        for _ in range(5):
            follower.step()
            clock += destructions.PAUSE_SECONDS
        erase(bob)
        follower.step()
    assert [line["user_id"] for line in lines(erasures)] == [str(alice), str(bob)]


def test_many_deletions_are_not_a_cleaning_each(
    alice: UUID, bob: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, clock, cleaned = Destructions(), 1000.0, 0

    def clean(**_: bool) -> bool:
        nonlocal cleaned
        cleaned += 1
        return True

    monkeypatch.setattr(destructions, "clean_files", clean)
    monkeypatch.setattr("privacy.destructions.time.monotonic", lambda: clock)
    for user_id in (alice, bob):
        erase(user_id)
        follower.step()
        clock += 2 * destructions.LOOK_SECONDS
    assert cleaned == 1
    clock += destructions.PAUSE_SECONDS
    follower.step()
    assert cleaned == 2
    assert not Destruction.objects.exists()


def test_a_line_that_a_full_disk_has_cut_off_is_written_anew(alice: UUID, erasures: Path) -> None:
    erase(alice)
    erasures.parent.mkdir()
    erasures.write_text('{"user_id": "whole"}\n{"user_id":"cut o')
    Destructions().step()
    assert [line["user_id"] for line in lines(erasures)] == ["whole", str(alice)]


def test_an_interrupted_cleaning_is_done_again(
    alice: UUID, erasures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase(alice)
    with monkeypatch.context() as patched:
        patched.setattr(destructions, "clean_files", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Destructions().step()
    assert Destruction.objects.exists()
    Destructions().step()
    assert not Destruction.objects.exists()
    assert {line["user_id"] for line in lines(erasures)} == {str(alice)}


def test_nothing_to_do_costs_one_look(erasures: Path) -> None:
    assert Destructions().step() is False
    assert not erasures.exists()


def interrupted(**_: bool) -> bool:
    raise KeyboardInterrupt


def gather_statistics() -> None:
    """Let the database sample its tables, as it does by itself now and then."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


@contextmanager
def reader() -> Iterator[None]:
    """Somebody who looks at the database as it is now, for as long as the block takes."""
    with closing(connection.copy()) as other, other.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("BEGIN DEFERRED")
        else:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM eventstore_datakey")
        assert cursor.fetchone()[0] == DataKey.objects.count()
        yield
        cursor.execute("ROLLBACK")


def test_writers_go_on_after_a_cleaning(alice: UUID) -> None:
    erase(alice)
    Destructions().step()
    with writing():
        assert DataKey.objects.filter(id=alice, wrapped=None).count() == 1
