"""The requester's side: hand the message to a worker, and follow it to its end."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from contextvars import Context
from typing import Self
from uuid import UUID

from conversations.actors import generate_response
from conversations.ends import Ended, end_of, ended_among
from conversations.reply_streams import End, Forgotten, Item, reply_streams
from eventstore.database import StoreUnavailable, in_thread

logger = logging.getLogger(__name__)

#: How often a process looks into the log for ends that the reply streams have lost.
LOOK_SECONDS = 1.0
#: What one who waits hears when the process stops.
_STOPPED = Forgotten()


def enqueue(message_id: UUID) -> bool:
    """Hand a message to the workers. Never raises: the sweeper brings what the broker misses."""
    try:
        generate_response.send(str(message_id))
    except Exception as error:  # noqa: BLE001 (whatever is wrong with the broker)
        logger.warning("message %s waits for the sweeper: %s", message_id, error)
        return False
    return True


@asynccontextmanager
async def following(message_id: UUID) -> AsyncIterator[asyncio.Queue[Item]]:
    """All that is said of a message's response, from its beginning to its end.

    What comes may be late, double or lost, as in `ReplyStreams.follow`, but the end comes: if not
    from the stream, then from the log a second later.
    """
    async with reply_streams().follow(message_id) as said:
        with _look_of_this_loop().beside(message_id, said):
            yield said


class Waiting:
    """Waiting for a message's end. Listening begins at once, so that it may begin before the send.

    So nobody needs to ask what was said before: of a message that is sent after this nothing was,
    and the end of one that was sent before stands in the log, where its repeat looks.

    A context manager on the event loop; its exit ends the listening.
    """

    def __init__(self, message_id: UUID, seconds: float) -> None:
        self._seconds = seconds
        self._listening = ExitStack()
        self._said: asyncio.Queue[Item] | None = None
        if seconds:
            listening = reply_streams().listening(message_id, only_end=True)
            said = self._said = self._listening.enter_context(listening)
            look = _look_of_this_loop()
            self._listening.enter_context(look.beside(message_id, said, until_stopped=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    async def end(self) -> Ended | None:
        """How the message ended, or None when the time runs out first."""
        if self._said is None:
            return None
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                item = await self._said.get()
                return item.ended if isinstance(item, End) else None
        return None


def stop_waiting() -> None:
    """Let nobody of this process wait any longer, since it stops: the messages go on."""
    _look_of_this_loop().stop_waiting()


class _Look:
    """One task that looks into the log for the ends of all messages that a loop follows."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._followed: dict[UUID, set[asyncio.Queue[Item]]] = defaultdict(set)
        self._until_stopped: set[asyncio.Queue[Item]] = set()
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def beside(
        self, message_id: UUID, said: asyncio.Queue[Item], *, until_stopped: bool = False
    ) -> Iterator[None]:
        """Look for the end of a message while somebody follows it, in vain once all are stopped."""
        if self._task is None:
            # Not in the context of the request that comes first, whose ids its lines would carry.
            self._task = self.loop.create_task(self._run(), context=Context())
        self._followed[message_id].add(said)
        if until_stopped:
            self._until_stopped.add(said)
            if self._stopped:
                said.put_nowait(_STOPPED)
        try:
            yield
        finally:
            self._until_stopped.discard(said)
            self._followed[message_id].discard(said)
            if not self._followed[message_id]:
                del self._followed[message_id]

    def stop_waiting(self) -> None:
        self._stopped = True
        for said in self._until_stopped:
            said.put_nowait(_STOPPED)

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
