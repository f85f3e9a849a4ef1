"""`load_log` where somebody else is in the database, or comes while it loads."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from config.environment import PROJECT_DIR
from tests.config.processes import environment
from tests.dumps.test_move import Installation, OnPostgres, OnSqlite, env_file, keys_of
from tests.stack.client import PASSWORD, register
from tests.stack.services import wait_for

WAIT_SECONDS = 20


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> OnSqlite:
    """A service on SQLite that one user has used, and that was stopped."""
    source = OnSqlite(tmp_path_factory.mktemp("source"))
    with source.serving() as url:
        assert register(url, "alice").send("hello").status_code == 201
    return source


@pytest.fixture(scope="module")
def dump(source: OnSqlite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dump = tmp_path_factory.mktemp("dump") / "log.dump"
    source.run("dump_log", str(dump))
    return dump


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, source: OnSqlite, tmp_path: Path) -> Installation:
    """An empty database of either kind with the keys of the source."""
    if request.param == "postgres":
        return OnPostgres(keys_of(source))
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "keys.env").write_text(env_file(keys_of(source)))
    return OnSqlite(tmp_path / "target")


def log_in(url: str) -> int:
    body = {"username": "alice", "password": PASSWORD}
    return httpx.post(f"{url}/users/login/", json=body, timeout=WAIT_SECONDS).status_code


def test_beside_a_service_nothing_is_loaded(target: Installation, dump: Path) -> None:
    with target.serving() as url:
        assert log_in(url) == 401
        line = target.refusal("load_log", str(dump))
        assert line.startswith("CommandError: nothing was loaded: ")
        assert re.search(r"stop it first$|\d+ from 127\.0\.0\.1.*\); stop them first$", line)
        assert log_in(url) == 401
    assert not any(rows for table, rows in target.log().items() if table != "eventstore_datakey")
    target.run("load_log", str(dump))
    with target.serving() as url:
        assert log_in(url) == 200


@contextmanager
def loading_slowly(target: Installation, dump: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A load that has begun, and waits for the rest of its dump."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "load_log", "-"],
        cwd=PROJECT_DIR,
        env=environment(**target.settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        assert process.stdin
        lines = dump.read_bytes().splitlines(keepends=True)
        process.stdin.writelines(lines[:-1])
        process.stdin.flush()
        yield process
        process.stdin.write(lines[-1])
        process.stdin.close()
        assert process.wait(WAIT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def sees_the_keys(target: Installation) -> bool:
    """Whether somebody who comes now can read the keys that were there before."""
    read = "SELECT count(*) FROM eventstore_datakey"
    if isinstance(target, OnPostgres):
        with psycopg.connect(target.url, options="-c lock_timeout=50ms") as database:
            try:
                return database.execute(read).fetchone() is not None
            except psycopg.errors.LockNotAvailable:
                return False
    file = Path(target.settings["VAR_DIR"]) / "chatledger.sqlite3"
    with closing(sqlite3.connect(file, timeout=0.05)) as database:
        try:
            return database.execute(read).fetchone() is not None
        except sqlite3.OperationalError:
            return False


def test_who_comes_while_it_loads_sees_nothing_before_it_has_loaded(
    target: Installation, dump: Path
) -> None:
    with loading_slowly(target, dump):
        wait_for(lambda: not sees_the_keys(target), WAIT_SECONDS, "the load to begin")
    assert sees_the_keys(target)
