import os
from uuid import UUID

import pytest
from pytest_django import Settings

from accounts.commands import RegisterUser, register_user
from tests.eventstore.making import CAUSE
from tests.isolation import forget_the_database

# SQLite tells nobody anything.
if os.environ.get("CHATLEDGER_TEST_PROFILE") != "full":
    collect_ignore = ["test_notifications.py"]


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    forget_the_database()


@pytest.fixture
def alice(settings: Settings) -> UUID:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return register_user(RegisterUser("alice", "correct horse battery"), CAUSE).user_id


@pytest.fixture
def bob(settings: Settings) -> UUID:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return register_user(RegisterUser("bob", "correct horse battery"), CAUSE).user_id
