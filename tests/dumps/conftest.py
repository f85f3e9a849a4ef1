"""A log to dump, and the same process's database emptied to load it into."""

import os
from collections.abc import Iterator

import pytest
from pytest_django import Settings

from audit.dumps import loading
from eventstore.database import writing
from tests.dumps.making import dumped_log, empty_the_log, fill_the_log
from tests.isolation import forget_the_database

if os.environ.get("CHATLEDGER_TEST_PROFILE") != "full":
    # The last needs PostgreSQL, the others both kinds of database.
    collect_ignore = ["test_beside_a_service.py", "test_move.py", "test_on_postgres.py"]


@pytest.fixture(autouse=True)
def fresh_process(
    transactional_db: None,
    settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """What a process remembers of a database belongs to that database alone."""
    forget_the_database()
    # Threads of this process keep connections from earlier tests: none is a service's.
    monkeypatch.setattr(loading, "writing_alone", writing)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # Of this test alone: what other tests erase is no part of it.
    settings.ERASURES_FILE = tmp_path_factory.mktemp("lists") / "erasures.jsonl"
    yield
    forget_the_database()


@pytest.fixture
def dumped() -> bytes:
    """A dump of a log that has something of everything; the log is empty again."""
    fill_the_log()
    made = dumped_log()
    empty_the_log()
    return made
