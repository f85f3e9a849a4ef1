"""Real processes of the service, shared by the tests that leave them as they were."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.client import Api, User
from tests.attacks.serving import unlimited
from tests.stack.services import EmbeddedService

# They start the service themselves: in the run on PostgreSQL, and not twice.
if os.environ.get("CHATLEDGER_TEST_PROFILE") != "full":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="package")
def service() -> Iterator[EmbeddedService]:
    """The embedded service, shared by the tests that leave it as it was."""
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        unlimited(Path(folder)) as running,
    ):
        yield running


@pytest.fixture(scope="package")
def api(service: EmbeddedService) -> Iterator[Api]:
    """A client that holds every answer against the OpenAPI document."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield Api(client)


@pytest.fixture(scope="package")
def alice(api: Api) -> User:
    """Somebody for many tests; `spent` says what one of them cost."""
    return api.new_user("alice")


@pytest.fixture(scope="package")
def bob(api: Api) -> User:
    """Somebody else."""
    return api.new_user("bob")


@pytest.fixture(scope="package")
def staff(service: EmbeddedService, api: Api) -> User:
    """A member of staff."""
    user = api.new_user("staff")
    assert service.run("manage.py", "set_role", "staff", "staff").returncode == 0
    return user


@pytest.fixture
def spent(api: Api, alice: User) -> Callable[[], int]:
    """How many tokens of alice's this test has cost so far."""
    before = api.balance(alice)
    return lambda: before - api.balance(alice)
