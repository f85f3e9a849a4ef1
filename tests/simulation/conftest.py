"""The simulation makes a database of its own: once is enough, whatever the profile of the run."""

import os
from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests.simulation import rounds

if os.environ.get("CHATLEDGER_TEST_PROFILE", "embedded") != "embedded":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module", autouse=True)
def database(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """A database in memory, in the place of Django's."""
    with django_db_blocker.unblock(), rounds.simulated():
        yield
