"""Fixtures of every test."""

import pytest

from tests.faults.counts import FULL, SEED
from tests.figures import figure, pytest_terminal_summary

__all__ = ["figure", "pytest_terminal_summary"]


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Leave the test database to the end of its services: threads may still be connected to it."""
    return True


def pytest_report_header() -> str:
    return f"chatledger: faults {'in full' if FULL else 'in short'}, CHATLEDGER_SEED={SEED}"
