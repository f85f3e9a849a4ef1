"""What PostgreSQL alone promises of a dump, and what it must not do to a load."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import InternalError, connection

from audit.dumps import loading
from audit.dumps.loading import load
from audit.one_instant import one_instant
from eventstore.append import take_append_lock
from eventstore.database import writing
from eventstore.models import EventRecord
from tests.dumps.making import fill_the_log


def test_a_dump_cannot_write() -> None:
    fill_the_log()
    with pytest.raises(InternalError, match="read-only"), one_instant():
        EventRecord.objects.all().delete()


class Slow(io.BytesIO):
    """A pipe whose other end takes its time once."""

    def __init__(self, data: bytes, line: int, seconds: float) -> None:
        super().__init__(data)
        self.left, self.seconds = line, seconds

    def readline(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left == 0:
            threading.Event().wait(self.seconds)
        return super().readline(size)


@contextmanager
def begun() -> Iterator[None]:
    """A transaction that is idle from its beginning on, as the one that locks out others is."""
    with writing():
        take_append_lock()
        yield


@pytest.mark.parametrize("line", [1, 10])
def test_no_time_limit_of_the_service_ends_a_load(
    dumped: bytes, monkeypatch: pytest.MonkeyPatch, line: int
) -> None:
    monkeypatch.setattr(loading, "writing_alone", begun)
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = '100ms'")
        cursor.execute("SET statement_timeout = '100ms'")
    try:
        slow = Slow(dumped, line=line, seconds=0.4)
        assert load(slow, passphrase=None, report=lambda done, total: None).seals.events
    finally:
        connection.close()
