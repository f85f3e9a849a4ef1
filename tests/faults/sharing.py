"""One full stack for all tests that leave it as they found it; a failed test leaves none."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.counts import SIGNUP_TOKENS
from tests.faults.proxied import ProxiedService

#: Set in the stash of a test that failed.
FAILED = pytest.StashKey[bool]()
#: So much of each process's log is shown with a failure.
LOG_CHARACTERS_MAX = 2_000
#: So much credit that nobody runs out while a fault is tried, and no limit on how often.
SETTINGS = {
    "MESSAGE_PRICE": "1",
    "SIGNUP_TOKENS": str(SIGNUP_TOKENS),
    **{f"RATE_LIMIT_{what}": "off" for what in ("LOGIN", "REGISTER", "SEND")},
}


class Sharing:
    """Starts the stack when a test first asks for it."""

    def __init__(self) -> None:
        self._exits = ExitStack()
        self._running: ProxiedService | None = None

    def running(self) -> ProxiedService:
        """The stack, which knows of no users yet."""
        if self._running is None:
            folder = self._exits.enter_context(tempfile.TemporaryDirectory(prefix="chatledger-"))
            service = ProxiedService(
                Path(folder), webs=2, workers=2, followers=2, extra_env=SETTINGS
            )
            self._running = self._exits.enter_context(service)
        self._running.users.clear()
        return self._running

    def close(self) -> None:
        self._running = None
        self._exits.close()


@pytest.fixture(scope="session")
def sharing() -> Iterator[Sharing]:
    begun = Sharing()
    yield begun
    begun.close()


@pytest.fixture
def shared(sharing: Sharing, request: pytest.FixtureRequest) -> Iterator[ProxiedService]:
    """A full stack of two processes of each kind, each with proxies of its own before it.

    Other tests use the same one: users' names are a test's own, and what it broke runs again.
    """
    service = sharing.running()
    yield service
    if request.node.stash.get(FAILED, False):
        for child in service.stack.processes.values():
            how = "runs" if child.running else f"ended ({child.how_it_ended})"
            print(f"{child.name} {how}: {child.log_tail()[-LOG_CHARACTERS_MAX:]}")  # noqa: T201  # pytest shows it with the failure
        sharing.close()
