"""One real server for all of these tests, with its workers and followers, in this process."""

import gc
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection, connections
from django.test import override_settings

from accounts.domain import STAFF
from accounts.staff_commands import SetRole, set_role
from config import runtime, serving
from config.http_protocol import LimitedHttpProtocol
from conversations import responders
from eventstore.cause import Cause
from tests.api.client import Api, User
from tests.api.responder import ScriptedResponder
from tests.isolation import forget_the_database

START_SECONDS_MAX = 20
#: Argon2 is tested with the commands; here it would only take time.
SETTINGS = {
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
    "RESPONDER": "scripted",
}

_numbers = count(1)


@pytest.fixture(scope="package")
def db(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The test database, for all of these tests.

    pytest-django's fixture of this name would hide what a test does from the server's threads.
    """
    with django_db_blocker.unblock():
        _empty_database()
        yield
        _empty_database()


@pytest.fixture(scope="package")
def server(db: None) -> Iterator[str]:
    """The address of the running service."""
    with ExitStack() as stack:
        stack.enter_context(override_settings(**SETTINGS))
        responders.registered["scripted"] = ScriptedResponder
        stack.callback(responders.registered.pop, "scripted")
        yield stack.enter_context(_running())


@pytest.fixture(scope="package")
def api(server: str) -> Iterator[Api]:
    """A client that holds every answer against the OpenAPI document."""
    with httpx.Client(base_url=server, timeout=30) as client:
        yield Api(client)


@pytest.fixture
def make_user(api: Api) -> Callable[[], User]:
    """Register and log in somebody new."""
    return lambda: api.new_user(f"user-{next(_numbers)}")


@pytest.fixture
def alice(make_user: Callable[[], User]) -> User:
    """Somebody with 4,000 tokens and no message yet."""
    return make_user()


@pytest.fixture
def bob(make_user: Callable[[], User]) -> User:
    """Somebody else."""
    return make_user()


@pytest.fixture
def make_staff(make_user: Callable[[], User]) -> Callable[[], User]:
    """Register somebody new, make them staff and log them in."""

    def make() -> User:
        user = make_user()
        set_role(SetRole(UUID(user.id), STAFF), Cause("shell:test"))
        return user

    return make


@pytest.fixture
def staff(make_staff: Callable[[], User]) -> User:
    """A member of staff with 4,000 tokens."""
    return make_staff()


@pytest.fixture
def held(server: str) -> Iterator[threading.Event]:
    """While it is not set, messages that begin with "hold" get no response."""
    ScriptedResponder.released.clear()
    yield ScriptedResponder.released
    ScriptedResponder.released.set()


@contextmanager
def _running() -> Iterator[str]:
    parts = runtime.Runtime()
    config = uvicorn.Config(
        serving.APPLICATION,
        http=LimitedHttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        # As `serve` has it without TRUSTED_PROXIES: uvicorn's default believes this very machine.
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    listener = serving.listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],), name="server")
    thread.start()
    try:
        if not django_settings.EMBEDDED:
            parts.start((runtime.start_worker, runtime.start_followers))
        _wait_for(lambda: server.started or not thread.is_alive())
        assert server.started, "the server did not start"
        yield f"http://localhost:{listener.getsockname()[1]}"
    finally:
        with warnings.catch_warnings():
            # Threads that end leave their connections to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            server.should_exit = True
            thread.join(START_SECONDS_MAX)
            parts.stop()
            listener.close()
            gc.collect()


def _wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + START_SECONDS_MAX
    while not condition():
        assert time.monotonic() < until, "the server took too long"
        time.sleep(0.01)


def _empty_database() -> None:
    """Leave nothing behind, in the tables or in this process's memory of them."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    call_command("flush", interactive=False, verbosity=0, inhibit_post_migrate=True)
    connections.close_all()
    forget_the_database()
