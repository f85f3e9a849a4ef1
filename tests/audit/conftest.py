import os

import pytest

from tests.audit.verifying import PARTS
from tests.eventstore.sealing import fill, seal
from tests.isolation import forget_the_database

if os.environ.get("CHATLEDGER_TEST_PROFILE") == "full":
    # PostgreSQL stores no value of another type than its column's.
    collect_ignore = ["test_verify_malformed.py"]


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Each test begins with an empty database, so with a process that remembers nothing."""
    forget_the_database()


@pytest.fixture
def sealed() -> None:
    """Three checkpoints over twelve events."""
    for number, size in enumerate(PARTS):
        fill(size, seed=number)
        seal()
