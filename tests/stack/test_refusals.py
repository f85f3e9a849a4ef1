"""What the full stack does not start on."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from config.keyfile import new_key
from devstack.application import COMMANDS, KEYS
from devstack.services import Postgres, start_postgres
from tests.config.processes import manage, the_line

LOSES = "so a crash would lose messages that were answered; allowed: on"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        start_postgres(Path(folder)) as running,
    ):
        yield running


def refusal(process: str, postgres: Postgres) -> str:
    """The one line with which the process refuses to start on this PostgreSQL."""
    keys = {name: new_key() for name in KEYS[process]}
    command = COMMANDS[process][-1]
    assert COMMANDS[process] == [sys.executable, "manage.py", command]
    addresses = {"DATABASE_URL": postgres.url, "REDIS_URL": "redis://127.0.0.1:1"}
    result = manage(command, **addresses, **keys, PORT="0")
    assert result.returncode == 1
    return the_line(result)


def execute(postgres: Postgres, statement: str) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(statement)


@pytest.mark.parametrize("process", ["web", "worker", "followers"])
def test_commits_that_do_not_wait_for_the_disk(postgres: Postgres, process: str) -> None:
    execute(postgres, "ALTER DATABASE chatledger SET synchronous_commit TO off")
    try:
        line = refusal(process, postgres)
    finally:
        execute(postgres, "ALTER DATABASE chatledger RESET synchronous_commit")

    assert line.endswith(f"PostgreSQL runs with synchronous_commit off, {LOSES}")


def test_a_disk_that_is_not_waited_for_and_pages_that_may_tear(postgres: Postgres) -> None:
    execute(postgres, "ALTER SYSTEM SET full_page_writes TO off")
    postgres.stop()
    postgres.child.command = [
        part.replace("fsync=on", "fsync=off") for part in postgres.child.command
    ]
    postgres.start()

    line = refusal("web", postgres)

    assert line.endswith(f"PostgreSQL runs with fsync and full_page_writes off, {LOSES}")


def test_commits_that_wait_for_this_disk_alone_are_durable(postgres: Postgres) -> None:
    """What is refused then is that there are no tables yet."""
    postgres.stop()
    postgres.child.command = [
        part.replace("fsync=off", "fsync=on") for part in postgres.child.command
    ]
    postgres.start()
    execute(postgres, "ALTER SYSTEM RESET full_page_writes")
    execute(postgres, "SELECT pg_reload_conf()")
    execute(postgres, "ALTER DATABASE chatledger SET synchronous_commit TO local")

    assert refusal("web", postgres).endswith("run: python manage.py migrate")
