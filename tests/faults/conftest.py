"""Faults tried for real: processes that die, services that go away, connections that are cut."""

import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devstack.model_scripts import MODEL
from devstack.model_server import ModelServer
from tests.faults.counts import SEED, SIGNUP_TOKENS
from tests.faults.proxied import ProxiedService
from tests.stack.services import FullService

#: Within which every message of `told` ends.
TOLD_DEADLINE_SECONDS = 8

# Each test here starts what it breaks itself: in the run on PostgreSQL, and not twice.
if os.environ.get("CHATLEDGER_TEST_PROFILE") != "full":
    collect_ignore_glob = ["test_*.py"]


#: So much credit that nobody runs out while a fault is tried, and no limit on how often.
SETTINGS = {
    "MESSAGE_PRICE": "1",
    "SIGNUP_TOKENS": str(SIGNUP_TOKENS),
    **{f"RATE_LIMIT_{what}": "off" for what in ("LOGIN", "REGISTER", "SEND")},
}
FAILED = pytest.StashKey[bool]()


class Shared:
    """One stack for all tests that leave it as they found it; a failed test leaves none."""

    def __init__(self) -> None:
        self._exits = ExitStack()
        self._running: ProxiedService | None = None

    def running(self) -> ProxiedService:
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
def shared() -> Iterator[Shared]:
    sharing = Shared()
    yield sharing
    sharing.close()


@pytest.fixture
def proxied(shared: Shared, request: pytest.FixtureRequest) -> Iterator[ProxiedService]:
    """A full stack of two processes of each kind, each with proxies of its own before it.

    Other tests use the same one, so users' names are a test's own, and what it broke runs again.
    """
    yield shared.running()
    if request.node.stash.get(FAILED, False):
        shared.close()


@pytest.fixture(scope="session")
def model() -> Iterator[ModelServer]:
    """The upstream of `told`, which misbehaves as it is told."""
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="session")
def told(model: ModelServer) -> Iterator[FullService]:
    """A full stack that asks `model`; shared, since nothing of it is broken for long."""
    env = {
        "RESPONDER": "openai",
        "OPENAI_BASE_URL": model.url,
        "OPENAI_MODEL": MODEL,
        "RESPONSE_DEADLINE_SECONDS": str(TOLD_DEADLINE_SECONDS),
    }
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        FullService(Path(folder), extra_env=env) as running,
    ):
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with each failure what makes the same choices again."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        again = f"CHATLEDGER_SEED={SEED} CHATLEDGER_TEST_PROFILE=full pytest '{item.nodeid}'"
        report.sections.append(("the same choices again", again))
    return report
