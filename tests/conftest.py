"""Fixtures of every test."""

import pytest


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Leave the test database to the end of its services: threads may still be connected to it."""
    return True
