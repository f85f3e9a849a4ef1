"""`dump_log` and `load_log`: files, and what is said when they cannot."""

import io
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from audit.dumps import dumping
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
    assert f"{file}: {events} events, 2 checkpoints" in said.err
    assert f"{file}: loaded {events} events, 2 checkpoints" in said.out


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
