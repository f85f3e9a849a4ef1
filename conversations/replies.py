"""The requester's side: hand the message to a worker, and wait for its end."""

import asyncio
import logging
from typing import Self
from uuid import UUID

from conversations.actors import generate_response
from conversations.ends import Ended, end_of
from conversations.reply_streams import End, ReplyStreamsUnavailable, reply_streams
from eventstore.database import in_thread

logger = logging.getLogger(__name__)

#: How often a waiting request looks into the log, in case its reply stream lost something.
LOOK_SECONDS = 1.0
LOOK_SECONDS_MAX = 5.0


def enqueue(message_id: UUID) -> bool:
    """Hand a message to the workers. Never raises: the sweeper brings what the broker misses."""
    try:
        generate_response.send(str(message_id))
    except Exception as error:  # noqa: BLE001 (whatever is wrong with the broker)
        logger.warning("message %s waits for the sweeper: %s", message_id, error)
        return False
    return True


class Waiting:
    """Waiting for a message's end. Listening begins at once, so that it may begin before the send.

    A context manager on the event loop; its exit ends the listening.
    """

    def __init__(self, message_id: UUID, seconds: float) -> None:
        self._message_id = message_id
        self._seconds = seconds
        self._heard = asyncio.create_task(_hear(message_id)) if seconds else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._heard:
            self._heard.cancel()

    async def end(self) -> Ended | None:
        """How the message ended, or None when the time runs out first."""
        if self._heard is None:
            return None
        seen = asyncio.create_task(_look(self._message_id))
        try:
            done, _ = await asyncio.wait(
                (self._heard, seen), timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED
            )
            return done.pop().result() if done else None
        finally:
            seen.cancel()


async def _hear(message_id: UUID) -> Ended:
    """Wait for the end in the reply stream; without one, leave it to the log."""
    try:
        async with reply_streams().follow(message_id) as items:
            async for item in items:
                if isinstance(item, End):
                    return item.ended
    except ReplyStreamsUnavailable as error:
        logger.warning("message %s is awaited without its reply stream: %s", message_id, error)
    except Exception:
        # The message is accepted and paid for: whatever is wrong here, the log has its end.
        logger.exception("message %s is awaited without its reply stream", message_id)
    never: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    return await never


async def _look(message_id: UUID) -> Ended:
    pause = LOOK_SECONDS
    while True:
        await asyncio.sleep(pause)
        ended = await in_thread(end_of, message_id)
        if ended is not None:
            return ended
        pause = min(pause * 1.5, LOOK_SECONDS_MAX)
