"""The requester's side: hand the message to a worker, and follow it to its end."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import Self
from uuid import UUID

from conversations.actors import generate_response
from conversations.ends import Ended, end_of, ended_among
from conversations.reply_streams import End, Item, reply_streams
from eventstore.database import StoreUnavailable, in_thread

logger = logging.getLogger(__name__)

#: How often a process looks into the log for ends that the reply streams have lost.
LOOK_SECONDS = 1.0


def enqueue(message_id: UUID) -> bool:
    """Hand a message to the workers. Never raises: the sweeper brings what the broker misses."""
    try:
        generate_response.send(str(message_id))
    except Exception as error:  # noqa: BLE001 (whatever is wrong with the broker)
        logger.warning("message %s waits for the sweeper: %s", message_id, error)
        return False
    return True


@asynccontextmanager
async def following(
    message_id: UUID, *, only_end: bool = False
) -> AsyncIterator[asyncio.Queue[Item]]:
    """All that is said of a message's response, from its beginning to its end, or only that.

    What comes may be late, double or lost, as in `ReplyStreams.follow`, but the end comes: if not
    from the stream, then from the log a second later.
    """
    look = _look_of_this_loop()
    async with reply_streams().follow(message_id, only_end=only_end) as said:
        look.add(message_id, said)
        try:
            yield said
        finally:
            look.remove(message_id, said)


class Waiting:
    """Waiting for a message's end. Listening begins at once, so that it may begin before the send.

    A context manager on the event loop; its exit ends the listening.
    """

    def __init__(self, message_id: UUID, seconds: float) -> None:
        self._seconds = seconds
        self._end = asyncio.create_task(_end(message_id)) if seconds else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._end:
            self._end.cancel()

    async def end(self) -> Ended | None:
        """How the message ended, or None when the time runs out first."""
        if self._end is None:
            return None
        stop = _stopping()
        done, _ = await asyncio.wait(
            (self._end, stop), timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED
        )
        return self._end.result() if self._end in done else None


def stop_waiting() -> None:
    """Let nobody of this process wait any longer, since it stops: the messages go on."""
    stop = _stopping()
    if not stop.done():
        stop.set_result(None)


_stops: list[asyncio.Future[None]] = []


def _stopping() -> asyncio.Future[None]:
    """What comes true on this loop when the process stops."""
    loop = asyncio.get_running_loop()
    if not _stops or _stops[0].get_loop() is not loop:
        _stops[:] = [loop.create_future()]
    return _stops[0]


async def _end(message_id: UUID) -> Ended:
    async with following(message_id, only_end=True) as said:
        while not isinstance(item := await said.get(), End):
            pass
    return item.ended


class _Look:
    """One task that looks into the log for the ends of all messages that a loop follows."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._followed: dict[UUID, set[asyncio.Queue[Item]]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    def add(self, message_id: UUID, said: asyncio.Queue[Item]) -> None:
        self._followed[message_id].add(said)
        if self._task is None:
            # Not in the context of the request that comes first, whose ids its lines would carry.
            self._task = self.loop.create_task(self._run(), context=Context())

    def remove(self, message_id: UUID, said: asyncio.Queue[Item]) -> None:
        self._followed[message_id].discard(said)
        if not self._followed[message_id]:
            del self._followed[message_id]

    async def _run(self) -> None:
        while True:
            before = set(self._followed)
            await asyncio.sleep(LOOK_SECONDS)
            # What was not followed yet a second ago has lost nothing that matters by now.
            await self._look(before & self._followed.keys())

    async def _look(self, message_ids: set[UUID]) -> None:
        try:
            ended = await in_thread(ended_among, message_ids) if message_ids else ()
            for message_id in ended:
                end = await in_thread(end_of, message_id)
                for said in self._followed.get(message_id, ()):
                    if end is not None:
                        said.put_nowait(End(end))
        except StoreUnavailable as error:
            logger.debug("nobody knows whether messages have ended: %s", error)
        except Exception:
            logger.exception("nobody knows whether messages have ended")


_looks: list[_Look] = []


def _look_of_this_loop() -> _Look:
    loop = asyncio.get_running_loop()
    with suppress(IndexError):
        if _looks[-1].loop is loop:
            return _looks[-1]
    _looks[:] = [_Look(loop)]
    return _looks[0]
