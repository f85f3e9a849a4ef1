from collections.abc import Iterator

import pytest

from eventstore import keys
from projections import progress


@pytest.fixture(autouse=True)
def new_memory() -> Iterator[None]:
    """Each test begins with an empty database, so with a process that remembers nothing."""
    progress.forget()
    keys.forget()
    yield
    keys.forget()
