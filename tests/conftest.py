"""Fixtures of every test."""

import gc
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, settings

from tests.faults.counts import FULL, SEED
from tests.figures import figure, pytest_terminal_summary

__all__ = ["figure", "pytest_terminal_summary"]

# The same examples in every run, however busy the machine: a run that fails can be run again.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

#: A table of so many bytes, with what was deleted from it, is emptied the thorough way.
DELETED_BYTES_MAX = 256 * 1024
#: Folders and files that take long, longest first: what is begun last should be short, so that
#: the processes of `-n` end together.
LONG = (
    "test_price_table.py",
    "test_bank.py",
    "test_proof.py",
    "test_procedures.py",
    "test_worker_killed.py",
    "test_redis_lost.py",
    "faults",
    "attacks",
    "simulation",
    "stack",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes long; the rest stays as it is, folder by folder."""

    def place(item: pytest.Item) -> int:
        return next((n for n, name in enumerate(LONG) if name in item.path.parts), len(LONG))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Keep the collector from what stays to the end: thousands of tests and all modules."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Leave the test database to the end of its services: threads may still be connected to it."""
    return True


def pytest_report_header() -> str:
    return f"chatledger: faults {'in full' if FULL else 'in short'}, CHATLEDGER_SEED={SEED}"


@pytest.fixture(scope="session", autouse=True)
def quick_flush() -> Iterator[None]:
    """Empty PostgreSQL's tables by DELETE between tests, unless there is much in them.

    A TRUNCATE makes new files for each table and index, most of which were empty: five times as
    dear. The locks are the same, so that it waits for what a thread of the test has not committed.
    """
    if connection.vendor != "postgresql":
        yield
        return
    thoroughly = connection.ops.sql_flush

    def quickly(
        style: Any, tables: Sequence[str], *, reset_sequences: bool = False, **options: bool
    ) -> list[str]:
        names = [connection.ops.quote_name(table) for table in tables]
        if reset_sequences or not names:
            return list(thoroughly(style, tables, reset_sequences=reset_sequences, **options))
        quoted = ", ".join(f"'{name}'" for name in names)
        return [_EMPTY.format(tables=", ".join(names), quoted=quoted, most=DELETED_BYTES_MAX)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection.ops, "sql_flush", quickly)
        yield


_EMPTY = """
LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE;
DO $$
DECLARE each regclass;
BEGIN
    FOREACH each IN ARRAY ARRAY[{quoted}]::regclass[] LOOP
        IF pg_relation_size(each) > {most} THEN
            EXECUTE format('TRUNCATE %s', each);
        ELSE
            EXECUTE format('DELETE FROM %s', each);
        END IF;
    END LOOP;
END $$"""
