import os

import pytest

from tests.isolation import forget_the_database

# SQLite tells nobody anything.
if os.environ.get("CHATLEDGER_TEST_PROFILE") != "full":
    collect_ignore = ["test_notifications.py"]


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    forget_the_database()
