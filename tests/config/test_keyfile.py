"""The key file: its mode, its wholeness, and processes that start together."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from config.keyfile import add_missing_keys, decode_key, new_key, read_keys
from tests.config.processes import environment

PROCESSES = 8


def test_a_new_key_is_32_bytes_and_accepted() -> None:
    assert len(decode_key(new_key())) == 32


def test_two_new_keys_differ() -> None:
    assert new_key() != new_key()


def test_the_file_is_readable_by_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        add_missing_keys(tmp_path / "keys.env", ["DATA_KEY"])
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "keys.env").stat().st_mode) == 0o600


def test_only_missing_names_are_added_and_the_rest_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "keys.env"
    file.write_text("# mine\nOTHER='a b'\nDATA_KEY=kept")

    added = add_missing_keys(file, ["DATA_KEY", "SEAL_KEY"])

    assert added == ["SEAL_KEY"]
    assert file.read_text().startswith("# mine\nOTHER='a b'\nDATA_KEY=kept\nSEAL_KEY=")
    assert read_keys(file).keys() == {"OTHER", "DATA_KEY", "SEAL_KEY"}


def test_nothing_is_written_when_nothing_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "keys.env"
    add_missing_keys(file, ["DATA_KEY"])
    before = file.stat()

    assert add_missing_keys(file, ["DATA_KEY"]) == []
    assert file.stat().st_ino == before.st_ino


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.env"
    file.write_text("DATA_KEY=kept\n")

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        add_missing_keys(file, ["SEAL_KEY"])

    assert file.read_text() == "DATA_KEY=kept\n"
    assert list(tmp_path.iterdir()) == [file]


def test_processes_that_start_together_agree_on_one_set_of_keys(tmp_path: Path) -> None:
    code = (
        "from config.environment import read_environment, KEY_NAMES;"
        "print('ready', flush=True); input();"
        "e = read_environment();"
        "print(*(getattr(e, name.lower()).get_secret_value() for name in KEY_NAMES))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment(VAR_DIR=str(tmp_path / "var")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    answers = {process.communicate("go\n", timeout=30)[0] for process in processes}

    assert len(answers) == 1
    assert len(set(answers.pop().split())) == 4
    assert [file.name for file in (tmp_path / "var").iterdir()] == ["keys.env"]
