"""Real processes of the service, shared by the tests that leave them as they were."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stack.client import User
from tests.stack.services import EmbeddedService

# Here one address tries more than anybody may; the limits themselves are tested elsewhere.
UNLIMITED = dict.fromkeys(("RATE_LIMIT_LOGIN", "RATE_LIMIT_REGISTER", "RATE_LIMIT_SEND"), "off")
UNLIMITED["SIGNUP_TOKENS"] = "1000000"

# They start the service themselves: in the run on PostgreSQL, and not twice.
if os.environ.get("CHATLEDGER_TEST_PROFILE") != "full":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="package")
def service() -> Iterator[EmbeddedService]:
    """The embedded service as shipped, but for its rate limits."""
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        EmbeddedService(Path(folder), **UNLIMITED) as running,
    ):
        yield running


@pytest.fixture(scope="package")
def alice(service: EmbeddedService) -> User:
    """Somebody for many tests; `spent` says what one of them cost."""
    return service.user("alice")


@pytest.fixture
def spent(alice: User) -> Callable[[], int]:
    """How many tokens of alice's this test has cost so far."""
    before = alice.tokens()
    return lambda: before - alice.tokens()
