"""How far the read models are, as far as this process knows: what an answer waits for.

The runner says so itself in its own process and by a notification in all others; a look at the
positions once a second makes up for notifications that were lost.
"""

import asyncio
import time
from collections.abc import Mapping

from eventstore import notifications
from eventstore.marker import Marker
from projections import positions
from projections.registry import PROJECTIONS

#: How often a process without a listener looks.
LOOK_EVERY_SECONDS = 0.02

#: About what a runner applies while an answer waits. What is further behind will not be there in
#: time, as a read model that is new to this database, and nobody waits for it.
CATCH_UP_EVENTS_MAX = 20_000

_markers = {name: Marker() for name in PROJECTIONS}


async def shown(position: int, *names: str, timeout_seconds: float = 2.0) -> bool:
    """Wait until the named projections have reached `position`; False when one of them has not.

    One that is so far behind that it cannot be there in time is not waited for, all others are.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_seconds
    awaited = [name for name in names if not _is_far_behind(_markers[name].value, position)]
    for name in awaited:
        left = max(0.0, until - loop.time())
        if not await _markers[name].reached(position, left):
            return False
    return len(awaited) == len(names)


def wait_until_shown(position: int, *names: str, timeout_seconds: float = 2.0) -> bool:
    """The same for a process that hears of no runner, as a command in a shell: it looks itself."""
    until = time.monotonic() + timeout_seconds
    while True:
        places = positions.live()
        reached = [places[name].position if name in places else 0 for name in names]
        late = [each for each in reached if each < position]
        if not late:
            return True
        if time.monotonic() >= until or all(_is_far_behind(each, position) for each in late):
            return False
        time.sleep(LOOK_EVERY_SECONDS)


def _is_far_behind(reached: int, position: int) -> bool:
    """Whether it cannot be there in time; 0 may just mean that this process has not heard yet."""
    return reached > 0 and position - reached > CATCH_UP_EVENTS_MAX


def advance(reached: Mapping[str, int]) -> None:
    """Note, once it is committed, which position each projection has reached."""
    for name, position in reached.items():
        if marker := _markers.get(name):
            marker.advance(position)


def look() -> None:
    """Read the positions from the database."""
    advance({place.name: place.position for place in positions.live().values()})


def hear(payload: str) -> None:
    """Take `name:position[,name:position…]` from another process's runner."""
    pairs = (pair.rpartition(":") for pair in payload.split(","))
    advance({name: int(position) for name, _, position in pairs})


def listen() -> None:
    """Hear the runners of other processes through this process's listener."""
    notifications.on(positions.PROJECTED_CHANNEL, hear)
    notifications.on_poll(look)
