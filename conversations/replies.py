"""The requester's side: hand the message to a worker, and wait for its end."""

import asyncio
import logging
from typing import Self
from uuid import UUID

from conversations.actors import generate_response
from conversations.ends import end_position
from conversations.reply_streams import End, ReplyStreamsUnavailable, reply_streams
from eventstore.database import in_thread

logger = logging.getLogger(__name__)

#: How often a waiting request looks into the log, in case its reply stream lost something.
LOOK_SECONDS = 1.0
LOOK_SECONDS_MAX = 5.0


def enqueue(message_id: UUID) -> None:
    """Hand a message to the workers. Never raises: the sweeper brings what the broker misses."""
    try:
        generate_response.send(str(message_id))
    except Exception as error:  # noqa: BLE001 (whatever is wrong with the broker)
        logger.warning("message %s waits for the sweeper: %s", message_id, error)


class Waiting:
    """Waiting for a message's end: listening begins at once, so that it may begin before the send.

    Used as a context manager on the event loop, whose exit ends the listening.
    """

    def __init__(self, message_id: UUID) -> None:
        self._message_id = message_id
        self._heard = asyncio.create_task(_hear(message_id))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._heard.cancel()

    async def end(self, timeout_seconds: float) -> int | None:
        """The position of the event that ends the message, or None when the time runs out first."""
        seen = asyncio.create_task(_look(self._message_id))
        try:
            done, _ = await asyncio.wait(
                (self._heard, seen), timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            return done.pop().result() if done else None
        finally:
            seen.cancel()


async def _hear(message_id: UUID) -> int:
    """Wait for the end in the reply stream; without one, leave it to the log."""
    try:
        async with reply_streams().follow(message_id) as items:
            async for item in items:
                if isinstance(item, End):
                    return item.position
    except ReplyStreamsUnavailable as error:
        logger.warning("message %s is awaited without its reply stream: %s", message_id, error)
    never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    return await never


async def _look(message_id: UUID) -> int:
    pause = LOOK_SECONDS
    while True:
        await asyncio.sleep(pause)
        position = await in_thread(end_position, message_id)
        if position is not None:
            return position
        pause = min(pause * 1.5, LOOK_SECONDS_MAX)
