"""Commands on a user's data as a whole, without a server and without a worker."""

from pathlib import Path

import pytest
from pytest_django import Settings

from tests.conversations.conftest import alice, bob, fresh_process, send

__all__ = ["alice", "bob", "erasures", "fresh_process", "send"]


@pytest.fixture(autouse=True)
def erasures(settings: Settings, tmp_path: Path) -> Path:
    """The file of erasures, empty for each test."""
    settings.ERASURES_FILE = tmp_path / "lists" / "erasures.jsonl"
    path: Path = settings.ERASURES_FILE
    return path
