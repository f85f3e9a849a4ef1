"""Commands on accounts, without a server."""

from uuid import UUID

import pytest
from pytest_django import Settings

from accounts.commands import RegisterUser, register_user
from eventstore.cause import Cause
from tests.isolation import forget_the_database

PASSWORD = "correct horse battery"
CAUSE = Cause("staff:test", "request-1")


@pytest.fixture(autouse=True)
def fresh_process(transactional_db: None, settings: Settings) -> None:
    """What a process remembers of a database belongs to that database alone."""
    forget_the_database()
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def alice() -> UUID:
    return register_user(RegisterUser("Alice", PASSWORD), CAUSE).user_id


@pytest.fixture
def bob() -> UUID:
    return register_user(RegisterUser("bob", PASSWORD), CAUSE).user_id
