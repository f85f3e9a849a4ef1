"""Reply streams: the text of a response on its way from the worker to whoever waits for it.

A hint like everything outside the log: what is lost here is read from the log a little later. A
stream holds what was published from the first item on, until 60 s after its end.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

import msgspec
from django.conf import settings

from conversations.ends import Ended
from eventstore.once import once

#: How long a stream that has ended, or has fallen silent, is kept.
KEPT_SECONDS = 60
SILENT_SECONDS_MAX = 90


class Delta(msgspec.Struct, tag="delta", frozen=True):
    """More of the response."""

    text: str


class Restart(msgspec.Struct, tag="restart", frozen=True):
    """Generation began again: what came before is void."""


class End(msgspec.Struct, tag="end", frozen=True):
    """The message has ended, as the log says; whoever waits needs to look no further."""

    ended: Ended


Item = Delta | Restart | End


class ReplyStreamsUnavailable(Exception):
    """The streams cannot be reached now; the log still has, or will have, the end."""


class ReplyStreams(Protocol):
    """One stream a message; several may read it, each from its first item."""

    def publish(self, message_id: UUID, *items: Item) -> None:
        """Add items, from any thread. Raises `ReplyStreamsUnavailable`."""
        ...

    def follow(self, message_id: UUID) -> AbstractAsyncContextManager[AsyncIterator[Item]]:
        """Read the stream on the event loop: what is there, then what comes.

        Raises `ReplyStreamsUnavailable`.
        """
        ...


@once
def reply_streams() -> ReplyStreams:
    """The process's reply streams: in Redis where there is one, else in memory."""
    if settings.REDIS_URL:
        from conversations.reply_streams.redis import RedisReplyStreams

        return RedisReplyStreams(settings.REDIS_URL)
    from conversations.reply_streams.memory import MemoryReplyStreams

    return MemoryReplyStreams()
