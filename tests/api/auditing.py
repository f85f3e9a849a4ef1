"""Seals in tests of the API: the server's own sealer makes them."""

import time

from eventstore.reading import max_position
from eventstore.seals.checkpoints import latest

SEAL_SECONDS_MAX = 10


def sealed() -> int:
    """Wait until all that is in the log by now is sealed; its last position."""
    position, until = max_position(), time.monotonic() + SEAL_SECONDS_MAX
    while (last := latest()) is None or last.last < position:
        assert time.monotonic() < until, "nothing seals the log"
        time.sleep(0.02)
    return position
