import pytest

from tests.isolation import forget_the_database


@pytest.fixture(autouse=True)
def fresh_process() -> None:
    forget_the_database()
