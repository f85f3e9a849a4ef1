"""How far the read models are, as far as this process knows: what an answer waits for.

The runner says so itself in its own process and by a notification in all others; a look at the
positions once a second makes up for notifications that were lost.
"""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eventstore import notifications
from projections import positions
from projections.registry import PROJECTIONS

#: How often a process without a listener looks.
LOOK_EVERY_SECONDS = 0.02

#: About what a runner applies while an answer waits. What is further behind will not be there in
#: time, as a read model that is new to this database, and nobody waits for it.
CATCH_UP_EVENTS_MAX = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """A coroutine that waits for all of some projections to reach a position."""

    position: int
    names: list[str]
    future: "asyncio.Future[bool]"


_reached = dict.fromkeys(PROJECTIONS, 0)
_waiters: set[_Waiter] = set()
_guard = threading.Lock()


async def shown(position: int, *names: str, timeout_seconds: float = 2.0) -> bool:
    """Wait until the named projections have reached `position`; False when one of them has not.

    One that is so far behind that it cannot be there in time is not waited for, all others are.
    """
    loop = asyncio.get_running_loop()
    with _guard:
        awaited = [name for name in names if not _is_far_behind(_reached[name], position)]
        if _have_reached(position, awaited):
            return len(awaited) == len(names)
        waiter = _Waiter(position, awaited, loop.create_future())
        _waiters.add(waiter)
    too_late = loop.call_later(timeout_seconds, _resolve, [waiter.future], False)  # noqa: FBT003 (its result)
    try:
        return await waiter.future and len(awaited) == len(names)
    finally:
        too_late.cancel()
        with _guard:
            _waiters.discard(waiter)


def _have_reached(position: int, names: Iterable[str]) -> bool:
    return all(_reached[name] >= position for name in names)


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
    """Note, once it is committed, which position each projection has reached.

    Each event loop is woken once, however many wait on it.
    """
    due: dict[asyncio.AbstractEventLoop, list[asyncio.Future[bool]]] = defaultdict(list)
    with _guard:
        for name, position in reached.items():
            if position > _reached.get(name, position):
                _reached[name] = position
        for waiter in [each for each in _waiters if _have_reached(each.position, each.names)]:
            _waiters.remove(waiter)
            due[waiter.future.get_loop()].append(waiter.future)
    for loop, futures in due.items():
        loop.call_soon_threadsafe(_resolve, futures, True)  # noqa: FBT003 (their result)


def _resolve(futures: Iterable["asyncio.Future[bool]"], result: bool) -> None:  # noqa: FBT001 (the same)
    for future in futures:
        if not future.done():
            future.set_result(result)


def forget() -> None:
    """Know nothing any more: what is read next belongs to another database."""
    with _guard:
        _reached.update(dict.fromkeys(_reached, 0))


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
