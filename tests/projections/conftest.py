from collections.abc import Iterator

import pytest

from eventstore import keys
from eventstore.marker import Marker
from projections import progress


@pytest.fixture(autouse=True)
def new_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins with an empty database, so with a process that remembers nothing."""
    monkeypatch.setattr(progress, "_markers", {name: Marker() for name in progress._markers})
    keys.forget()
    yield
    keys.forget()
