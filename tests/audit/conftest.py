import pytest

from tests.isolation import forget_the_database


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    """Each test begins with an empty database, so with a process that remembers nothing."""
    forget_the_database()
