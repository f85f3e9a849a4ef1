"""Faults tried for real: processes that die, services that go away, connections that are cut."""

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from devstack.model_scripts import MODEL
from devstack.model_server import ModelServer
from tests.faults.counts import SEED
from tests.faults.proxied import ProxiedService
from tests.faults.sharing import FAILED, shared, sharing
from tests.stack.services import FullService

__all__ = ["shared", "sharing"]

#: Within which every message of `told` ends.
TOLD_DEADLINE_SECONDS = 8

# Each test here starts what it breaks itself: in the run on PostgreSQL, and not twice.
if os.environ.get("CHATLEDGER_TEST_PROFILE") != "full":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def proxied() -> Iterator[ProxiedService]:
    """A full stack of one test's own, with a proxy in front of all that a process reaches."""
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        ProxiedService(Path(folder)) as running,
    ):
        yield running


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
