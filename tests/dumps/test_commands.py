"""`dump_log` and `load_log`: files, and what is said when they cannot."""

import io
import json
import stat
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from accounts.domain import Account
from accounts.models import Credential
from audit.dumps import dumping
from audit.management.commands import load_log
from eventstore import keys
from eventstore.log import EventLog
from eventstore.models import DataKey, EventRecord
from eventstore.seals.checkpoints import latest
from projections.comparison import compare_with_fresh_replay
from projections.models import Message
from tests.dumps.making import dumped_log, empty_the_log, fill_the_log, stored_rows


class Unplugged(OSError):
    """What a disk says that is gone."""


def test_a_dump_goes_into_a_private_file_and_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_the_log()
    before = stored_rows()
    file = tmp_path / "log.dump"
    call_command("dump_log", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [file] == list(tmp_path.iterdir())
    empty_the_log()
    call_command("load_log", str(file))
    assert stored_rows() == before
    said = capsys.readouterr()
    events = len(before["eventstore_event"])
    newest = latest()
    assert newest
    assert f"{file}: {events} events, 2 checkpoints" in said.err
    assert f"{file}: loaded {events} events, 2 checkpoints" in said.out
    assert said.out.splitlines()[1:] == [
        f"seals: no difference; 2 checkpoints over {newest.last} events, signed by {newest.key_id}",
        f"head: checkpoint 2, {newest.hash.hex()}",
        f"not sealed yet: {events - newest.last} events",
    ]


def test_a_dump_goes_through_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    fill_the_log()
    before = stored_rows()
    call_command("dump_log", "-")
    piped = capsysbinary.readouterr().out
    assert piped == dumped_log()
    empty_the_log()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
    call_command("load_log", "-")
    assert stored_rows() == before


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "log.dump"
    file.write_text("precious")
    with pytest.raises(CommandError, match="is there already, and is not overwritten"):
        call_command("dump_log", str(file))
    assert file.read_text() == "precious"
    link = tmp_path / "link.dump"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(CommandError, match="is there already"):
        call_command("dump_log", str(link))


def test_a_dump_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise Unplugged("no space left")

    fill_the_log()
    monkeypatch.setattr(dumping, "max_position", fail)
    with pytest.raises(CommandError, match=r"log\.dump cannot be written: no space left"):
        call_command("dump_log", str(tmp_path / "log.dump"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["dump_log", "no/such/folder/log.dump"], "cannot be written: .*No such file"),
        (["load_log", "no-such.dump"], "cannot be read: .*No such file"),
        (["load_log", "."], "cannot be read: .*directory"),
        (["load_log", "x", "--passphrase-file", "none"], "the passphrase cannot be read"),
        (["dump_log", "x", "--passphrase-file", "none"], "the passphrase cannot be read"),
        (["dump_log", "x", "--data-key-file", "none"], "the file of the data key cannot be read"),
    ],
)
def test_a_file_that_is_not_there_is_one_line(
    command: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError, match=reason) as refused:
        call_command(*command)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_only_one_kind_of_wrapping_can_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="not allowed with"):
        call_command("dump_log", "x", "--data-key-file=a", "--passphrase-file=b")


def test_a_dump_that_does_not_hold_a_kept_head_is_refused(tmp_path: Path) -> None:
    fill_the_log()
    dump, head = tmp_path / "log.dump", tmp_path / "head.json"
    call_command("dump_log", str(dump))
    newest = latest()
    assert newest
    empty_the_log()
    head.write_text(json.dumps(newest.as_json() | {"hash": "00" * 32}))
    with pytest.raises(CommandError, match=r"^nothing was loaded: .*checkpoint 2: its hash is"):
        call_command("load_log", str(dump), "--head", str(head))
    assert not EventRecord.objects.exists()
    head.write_text("{")
    with pytest.raises(CommandError, match=r"^nothing was loaded: .*head\.json is not JSON"):
        call_command("load_log", str(dump), "--head", str(head))
    head.write_text(json.dumps(newest.as_json()))
    call_command("load_log", str(dump), "--head", str(head))
    assert EventRecord.objects.exists()


def erasures_file(folder: Path, *lines: dict[str, str]) -> Path:
    file = folder / "erasures.jsonl"
    file.write_text(
        "".join(json.dumps({"at": "2026-11-22T12:00:00Z"} | line) + "\n" for line in lines)
    )
    return file


def test_what_was_erased_after_the_dump_comes_back_erased(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alice = fill_the_log()
    call_command("dump_log", str(tmp_path / "log.dump"))
    empty_the_log()
    file = erasures_file(tmp_path, {"user_id": str(alice)}, {"user_id": str(uuid4())})
    call_command("load_log", str(tmp_path / "log.dump"), "--erasures", str(file))
    assert f"{file}: 1 users and 0 conversations were erased again" in capsys.readouterr().out
    assert DataKey.objects.get(id=alice).wrapped is None
    assert not Credential.objects.filter(user_id=alice).exists()
    assert EventRecord.objects.filter(stream_id=alice, topic__endswith="UserErased").exists()
    assert compare_with_fresh_replay() == []
    keys.forget()
    texts = keys.read_texts([bytes(each.message or b"") for each in Message.objects.all()])
    assert set(texts) <= {keys.ERASED}


def test_a_load_that_dies_before_the_erasures_lets_nobody_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = fill_the_log()
    call_command("dump_log", str(tmp_path / "log.dump"))
    empty_the_log()
    file = erasures_file(tmp_path, {"user_id": str(alice)})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(load_log, "fill_read_models", die)
    with pytest.raises(KeyboardInterrupt):
        call_command("load_log", str(tmp_path / "log.dump"), "--erasures", str(file))
    assert not DataKey.objects.filter(id=alice, wrapped__isnull=False).exists()
    assert not Credential.objects.filter(user_id=alice).exists()
    monkeypatch.undo()
    call_command("apply_erasures", str(file))
    assert EventLog().load(Account, alice).erased
    assert not DataKey.objects.filter(wrapped_by=alice, wrapped__isnull=False).exists()


def test_the_erasures_of_this_installation_count_without_being_asked_for(
    tmp_path: Path, settings: Settings
) -> None:
    alice = fill_the_log()
    call_command("dump_log", str(tmp_path / "log.dump"))
    empty_the_log()
    settings.ERASURES_FILE = erasures_file(tmp_path, {"user_id": str(alice)})
    call_command("load_log", str(tmp_path / "log.dump"))
    assert DataKey.objects.get(id=alice).wrapped is None


@pytest.mark.parametrize("text", [None, "nonsense\n", '{"user_id":"x"}\n'])
def test_erasures_that_cannot_be_read_stop_a_load_before_it_begins(
    tmp_path: Path, text: str | None
) -> None:
    fill_the_log()
    call_command("dump_log", str(tmp_path / "log.dump"))
    empty_the_log()
    file = tmp_path / "erasures.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(CommandError, match=r"nothing was loaded: .*erasures\.jsonl"):
        call_command("load_log", str(tmp_path / "log.dump"), "--erasures", str(file))
    assert not EventRecord.objects.exists()
