"""Real processes of both profiles, with services of their own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.services import EmbeddedService, FullService, Service

# These tests start both profiles themselves: in the run on PostgreSQL, and not twice.
if os.environ.get("CHATLEDGER_TEST_PROFILE") != "full":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module", params=["embedded", "full"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """Each profile in turn, with everything as shipped."""
    kind = EmbeddedService if request.param == "embedded" else FullService
    with tempfile.TemporaryDirectory(prefix="chatledger-") as folder, kind(Path(folder)) as running:
        yield running


@pytest.fixture
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullService]:
    """A full stack of one test's own, with two workers."""
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        FullService(Path(folder), workers=2) as running,
    ):
        yield running


@pytest.fixture
def embedded() -> Iterator[EmbeddedService]:
    """An embedded service of one test's own."""
    with (
        tempfile.TemporaryDirectory(prefix="chatledger-") as folder,
        EmbeddedService(Path(folder)) as running,
    ):
        yield running
