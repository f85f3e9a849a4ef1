"""Faults tried for real: processes that die, services that go away, connections that are cut."""

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.faults.counts import SEED
from tests.faults.proxied import ProxiedService

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say with each failure what makes the same choices again."""
    report = yield
    if report.failed:
        again = f"CHATLEDGER_SEED={SEED} CHATLEDGER_TEST_PROFILE=full pytest '{item.nodeid}'"
        report.sections.append(("the same choices again", again))
    return report
