"""What a process remembers of a database, forgotten: each test's database is another one."""

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

from audit.dumps import loading
from eventstore import keys
from eventstore.database import writing
from eventstore.log import event_log
from eventstore.marker import appended
from eventstore.writer import Command, SharedWriter
from projections import progress


def carry_out_here(self: SharedWriter, command: Command[Any]) -> None:
    """Stands for `SharedWriter.submit`: the command is carried out at once, in this thread."""
    batch = [command]
    while batch:
        batch = self.carry_out(batch)


def forget_the_database() -> None:
    """Forget cached aggregates, unwrapped keys, and how far the log and the read models were."""
    event_log.forget()
    keys.forget()
    progress.forget()
    appended._value = 0


@pytest.fixture
def fresh_process(
    transactional_db: None,
    settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """What a process remembers belongs to the database of one test, which may load a log."""
    forget_the_database()
    # Threads of this process keep connections from earlier tests: none is a service's.
    monkeypatch.setattr(loading, "writing_alone", writing)
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # Of this test alone: what other tests erase is no part of it.
    settings.ERASURES_FILE = tmp_path_factory.mktemp("lists") / "erasures.jsonl"
    yield
    forget_the_database()
