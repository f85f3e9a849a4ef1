"""Migrating: several processes that start together on an empty database."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from config.environment import PROJECT_DIR, Environment
from config.keyfile import new_key
from tests.config.processes import environment

PROCESSES = 6


@pytest.fixture
def empty_database(tmp_path: Path) -> dict[str, str]:
    """The settings of an empty database of this run's profile."""
    run = Environment()
    if run.embedded or not run.database_url or not run.redis_url:
        return {"VAR_DIR": str(tmp_path / "var")}
    url = urlsplit(run.database_url.get_secret_value())
    name = f"empty_{uuid4().hex}"
    with psycopg.connect(url.geturl(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return {
        "DATABASE_URL": url._replace(path=f"/{name}").geturl(),
        "REDIS_URL": run.redis_url.get_secret_value(),
        "SECRET_KEY": new_key(),
        "DATA_KEY": new_key(),
    }


def test_six_processes_that_migrate_together_all_find_the_tables(
    empty_database: dict[str, str],
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "manage.py", "migrate"],
            cwd=PROJECT_DIR,
            env=environment(**empty_database),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    said = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0] * PROCESSES, said
    assert sum("Applying accounts.0001_initial" in each for each in said) == 1
