"""A SQLite file that is not there: every command says so, and none makes one but `migrate`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from pytest_django import Settings

from tests.config.processes import manage, the_line

pytestmark = pytest.mark.django_db(transaction=True)

COMMANDS = [
    ["apply_erasures", "FILE"],
    ["audit", "alice"],
    ["dump_log", "dump"],
    ["erase_user", "alice"],
    ["export_events"],
    ["export_head"],
    ["grant_tokens", "alice", "5", "--reason", "x"],
    ["load_log", "FILE"],
    ["migrate", "--check"],
    ["replay"],
    ["retry_parked"],
    ["rewrap_keys"],
    ["serve"],
    ["set_role", "alice", "staff"],
    ["verify"],
    ["verify", "--seals"],
]


@pytest.fixture
def mistyped(tmp_path: Path) -> Iterator[Path]:
    """A database's name with a letter too many, in this process's connection."""
    right, wrong = connection.settings_dict["NAME"], tmp_path / "chatledgerr.sqlite3"
    connection.close()
    connection.settings_dict["NAME"] = wrong
    yield wrong
    connection.close()
    connection.settings_dict["NAME"] = right


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_mistyped_name_is_named_in_one_line_and_no_file_is_made(
    mistyped: Path,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
) -> None:
    monkeypatch.chdir(tmp_path)
    settings.DATA_KEY_PREVIOUS = settings.SEAL_KEY
    (tmp_path / "FILE").touch()
    with pytest.raises(CommandError, match=f"there is no database at {mistyped}") as refused:
        call_command(*command)
    assert "\n" not in str(refused.value)
    assert [file.name for file in tmp_path.iterdir()] == ["FILE"]


def test_a_database_that_is_moved_away_is_not_made_anew(mistyped: Path) -> None:
    mistyped.touch()
    connection.ensure_connection()
    connection.close()
    mistyped.unlink()
    with pytest.raises(OperationalError, match="there is no database at"):
        connection.ensure_connection()
    assert not mistyped.exists()


def test_a_verification_of_nothing_fails_and_migrate_makes_what_it_asks_for(tmp_path: Path) -> None:
    file = tmp_path / "with a space?.sqlite3"
    settings = {
        "VAR_DIR": str(tmp_path / "var"),
        "DATABASE_URL": f"sqlite:///{tmp_path}/with%20a%20space%3F.sqlite3",
    }
    result = manage("verify", **settings)
    assert result.returncode == 1
    assert f"there is no database at {file}" in the_line(result)
    assert not file.exists()
    assert manage("migrate", **settings).returncode == 0
    assert manage("verify", **settings).returncode == 0
