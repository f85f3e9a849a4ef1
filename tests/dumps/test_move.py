"""From SQLite to PostgreSQL and back, with the commands an operator runs and a login over HTTP."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from psycopg import sql

from audit.dumps.lines import TABLES
from config.environment import KEY_NAMES, PROJECT_DIR, Environment
from config.keyfile import new_key
from projections.registry import PROJECTIONS
from tests.config.processes import environment, manage, running
from tests.stack.client import PASSWORD, User, register
from tests.stack.services import wait_for

PASSPHRASE = "four score and seven years ago\n"
Settings = Mapping[str, str]


class Installation:
    """A database of either kind with keys of its own, migrated."""

    def __init__(self, settings: Settings) -> None:
        self.settings = dict(settings)
        self.run("migrate", "--verbosity=0")

    def run(self, *command: str) -> str:
        """Run a command that succeeds; what it prints."""
        result = manage(*command, **self.settings)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def refusal(self, *command: str) -> str:
        """The one line of a command that fails."""
        result = manage(*command, **self.settings)
        assert result.returncode == 1
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        return line

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def log(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row that a dump carries, in one form for either database."""
        return {
            table.name: self.rows(
                f"SELECT {', '.join(table.columns)} FROM {table.name} ORDER BY {table.columns[0]}"
            )
            for table in TABLES
        }

    def read_models(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row that is shown, but for the generation it is of."""
        return {
            name: sorted(
                self.rows(
                    f"SELECT {', '.join(projection.table.types)} FROM {projection.table.name}"
                    " WHERE generation = (SELECT generation FROM projections_pointer"
                    f" WHERE name = '{name}')"
                ),
                key=str,
            )
            for name, projection in PROJECTIONS.items()
        }

    @contextmanager
    def serving(self) -> Iterator[str]:
        with running("serve", "--port", "0", folder=PROJECT_DIR, **self.settings) as process:
            assert process.stdout
            said = ""
            for line in process.stdout:
                said += line
                if found := re.search(r"Chatledger serves on (\S+)", line):
                    yield found[1]
                    return
            raise AssertionError(said)


class OnSqlite(Installation):
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__({"VAR_DIR": str(folder)})

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / "chatledger.sqlite3")) as database:
            return [tuple(map(plain, row)) for row in database.execute(statement)]


class OnPostgres(Installation):
    def __init__(self, keys: Settings | None = None) -> None:
        run = Environment()
        assert run.database_url
        assert run.redis_url
        url = urlsplit(run.database_url.get_secret_value())
        name = f"moved_{uuid4().hex}"
        with psycopg.connect(url.geturl(), autocommit=True) as database:
            database.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        self.url = url._replace(path=f"/{name}").geturl()
        addresses = {"DATABASE_URL": self.url, "REDIS_URL": run.redis_url.get_secret_value()}
        super().__init__({name: new_key() for name in KEY_NAMES} | dict(keys or {}) | addresses)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as database:
            return [tuple(map(plain, row)) for row in database.execute(statement).fetchall()]


def plain(value: Any) -> Any:
    """A value in the form of SQLite."""
    if isinstance(value, UUID):
        return value.hex
    return int(value) if isinstance(value, bool) else value


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> OnSqlite:
    """A service on SQLite that two users have used, and that was stopped."""
    source = OnSqlite(tmp_path_factory.mktemp("source"))
    with source.serving() as url:
        alice, bob = register(url, "alice"), register(url, "bob")
        for text in ("hello", "grüße, 🦉", "tell me a joke"):
            assert alice.send(text).status_code == 201
        assert bob.send("bye").status_code == 201
        talks = bob.get("/conversations/").json()
        assert bob.delete(f"/conversations/{talks[0]['id']}/").status_code == 204
        sealed = "SELECT max(last) FROM eventstore_checkpoint"
        appended = "SELECT max(position) FROM eventstore_event"
        wait_for(lambda: source.rows(sealed) == source.rows(appended), 20, "the last seal")
    return source


def test_a_log_moves_to_postgres_and_back_and_stays_the_same_to_the_byte(
    source: OnSqlite, tmp_path: Path
) -> None:
    there = OnPostgres(keys_of(source))
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    source.run("dump_log", first)
    said = there.run("load_log", first)
    log = source.log()
    assert all(log.values())
    assert f"loaded {len(log['eventstore_event'])} events" in said
    assert there.log() == log
    assert there.read_models() == source.read_models()
    assert_same_as_a_replay(there)
    with there.serving() as url:
        assert_alice_has_everything(url)

    there.run("dump_log", second)
    back = OnSqlite(tmp_path / "back")
    (tmp_path / "back" / "keys.env").write_text(env_file(there.settings))
    back.run("load_log", second)
    assert back.log() == there.log()
    assert back.read_models() == there.read_models()
    back.run("dump_log", third)
    assert Path(third).read_bytes() == Path(second).read_bytes()
    with back.serving() as url:
        alice = assert_alice_has_everything(url)
        assert alice.send("bye").json() == {"response": "Goodbye! Have a great day!"}
        assert alice.tokens() == 3600


def test_a_log_moves_to_an_installation_with_other_keys(source: OnSqlite, tmp_path: Path) -> None:
    there = OnPostgres()
    keys = tmp_path / "target.env"
    keys.write_text(env_file(there.settings))
    for_target, unchanged = str(tmp_path / "for-target"), str(tmp_path / "unchanged")
    source.run("dump_log", unchanged)
    assert "make the dump with --data-key-file" in there.refusal("load_log", unchanged)
    assert not any(there.log().values())
    source.run("dump_log", for_target, "--data-key-file", str(keys))
    there.run("load_log", for_target)
    with there.serving() as url:
        assert_alice_has_everything(url)
    assert "this log is not empty" in there.refusal("load_log", for_target)


def test_a_log_moves_under_a_passphrase(source: OnSqlite, tmp_path: Path) -> None:
    there = OnPostgres()
    passphrase, wrong = tmp_path / "passphrase", tmp_path / "wrong"
    passphrase.write_text(PASSPHRASE)
    wrong.write_text("some other passphrase")
    dump = str(tmp_path / "log.dump")
    source.run("dump_log", dump, "--passphrase-file", str(passphrase))
    assert "--passphrase-file" in there.refusal("load_log", dump)
    line = there.refusal("load_log", dump, "--passphrase-file", str(wrong))
    assert "the passphrase does not open this dump's keys" in line
    assert not any(there.log().values())
    there.run("load_log", dump, "--passphrase-file", str(passphrase))
    with there.serving() as url:
        assert_alice_has_everything(url)


def test_a_database_without_tables_is_one_line(source: OnSqlite, tmp_path: Path) -> None:
    dump = str(tmp_path / "log.dump")
    source.run("dump_log", dump)
    bare = {"VAR_DIR": str(tmp_path / "bare")}
    for command in (["load_log", dump], ["dump_log", str(tmp_path / "other")]):
        result = manage(*command, **bare)
        (line,) = result.stderr.splitlines()
        assert result.returncode == 1
        assert "manage.py migrate" in line


def keys_of(installation: OnSqlite) -> dict[str, str]:
    lines = (installation.folder / "keys.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def env_file(settings: Settings) -> str:
    return "".join(f"{name}={settings[name]}\n" for name in KEY_NAMES)


def assert_same_as_a_replay(installation: Installation) -> None:
    compared = subprocess.run(
        [sys.executable, "-m", "tests.stack.compare_read_models"],
        env=environment(**installation.settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (compared.stdout, compared.returncode) == ("", 0), compared.stderr


def assert_alice_has_everything(url: str) -> User:
    """Her password, her tokens, and what she wrote."""
    credentials = {"username": "alice", "password": PASSWORD}
    answer = httpx.post(f"{url}/users/login/", json=credentials, timeout=30)
    assert answer.status_code == 200, answer.text
    alice = User(url, "alice", "", answer.json()["token"])
    assert alice.tokens() == 3700
    (talk,) = alice.get("/conversations/").json()
    messages = alice.get(f"/conversations/{talk['id']}/messages/").json()
    assert [each["message"] for each in messages] == ["hello", "grüße, 🦉", "tell me a joke"]
    assert messages[0]["response"] == "Hi there! How can I help you today?"
    return alice
