"""Commands on messages, without a worker: each test plays the worker and the sweeper itself."""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from pytest_django import Settings

from accounts.commands import RegisterUser, register_user
from conversations import responders
from conversations.commands import Accepted, SendMessage, message_id_for, send_message
from eventstore.cause import Cause
from projections.runner import ProjectionRunner
from tests.isolation import forget_the_database

CAUSE = Cause("user:test", "request-1")

Send = Callable[..., Accepted]


@pytest.fixture(autouse=True)
def fresh_process(transactional_db: None, settings: Settings) -> Iterator[None]:
    """What a process remembers of a database belongs to that database alone."""
    forget_the_database()
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    yield
    responders.registered.clear()


@pytest.fixture
def alice() -> UUID:
    return register_user(RegisterUser("alice", "correct horse battery"), CAUSE).user_id


@pytest.fixture
def bob() -> UUID:
    return register_user(RegisterUser("bob", "correct horse battery"), CAUSE).user_id


@pytest.fixture
def send() -> Send:
    """Send a message as a user, with or without a key."""

    def sending(
        user_id: UUID,
        message: str = "hello",
        *,
        key: str | None = None,
        conversation_id: UUID | None = None,
    ) -> Accepted:
        command = SendMessage(
            user_id=user_id,
            conversation_id=conversation_id,
            message_id=message_id_for(user_id, key),
            message=message,
        )
        return send_message(command, CAUSE)

    return sending


def project() -> None:
    """Bring the read models to the end of the log."""
    runner = ProjectionRunner()
    while runner.step():
        pass
