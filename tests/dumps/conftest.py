"""A log to dump, and the same process's database emptied to load it into."""

import os

import pytest

from tests.dumps.making import dumped_log, empty_the_log, fill_the_log
from tests.isolation import fresh_process

__all__ = ["fresh_process"]

if os.environ.get("CHATLEDGER_TEST_PROFILE") != "full":
    # The last needs PostgreSQL, the others both kinds of database.
    collect_ignore = ["test_beside_a_service.py", "test_move.py", "test_on_postgres.py"]


@pytest.fixture(autouse=True)
def _fresh(fresh_process: None) -> None:
    """Each test begins as a process does."""


@pytest.fixture
def dumped() -> bytes:
    """A dump of a log that has something of everything; the log is empty again."""
    fill_the_log()
    made = dumped_log()
    empty_the_log()
    return made
