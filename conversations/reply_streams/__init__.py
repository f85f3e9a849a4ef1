"""Reply streams: the text of a response on its way from the worker to whoever waits for it.

A hint like everything outside the log: what is lost here is read from the log a little later. A
stream holds what was published from the first item on, until 60 s after its end. Each piece says
where it belongs, so a reader puts the text together whatever is lost, comes twice or comes late.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol
from uuid import UUID

import msgspec
from django.conf import settings

from conversations.ends import Ended
from eventstore.once import once

#: How long a stream that has ended is kept.
KEPT_SECONDS = 60
#: How long one is kept that has fallen silent: its message has an end by its deadline.
SILENT_AFTER_DEADLINE_SECONDS = 30


class Delta(msgspec.Struct, tag="delta", frozen=True, omit_defaults=True):
    """More of the response: `text` stands behind the first `at` characters of its attempt.

    `prompt_tokens`, in the first piece, is what the prompt is taken to have cost.
    """

    attempt: int
    at: int
    text: str
    prompt_tokens: int = 0


class Restart(msgspec.Struct, tag="restart", frozen=True):
    """Generation began again, as a later attempt: what came before is void."""

    attempt: int


class Closed(msgspec.Struct, tag="closed", frozen=True):
    """Nothing but the end comes after this: somebody has cancelled the message."""


class Forgotten(msgspec.Struct, tag="forgotten", frozen=True):
    """The text was deleted with its conversation: nothing comes after this, not even an end."""


class End(msgspec.Struct, tag="end", frozen=True):
    """The message has ended, as the log says; whoever waits needs to look no further."""

    ended: Ended


Item = Delta | Restart | Closed | Forgotten | End


class ReplyStreamsUnavailable(Exception):
    """The streams cannot be reached now; the log still has, or will have, the end."""


class ReplyStreams(Protocol):
    """One stream a message; several may read it, each from its first item."""

    def publish(self, message_id: UUID, *items: Item) -> None:
        """Add items, from any thread, in the order of the calls. Never waits, never raises."""
        ...

    def close(self, message_id: UUID) -> Sequence[Item]:
        """Let nothing but the end be added from now on, and return what is there.

        Raises `ReplyStreamsUnavailable`.
        """
        ...

    def forget(self, message_ids: Iterable[UUID]) -> None:
        """Remove the text of streams for good: nothing is added to them any more.

        Raises `ReplyStreamsUnavailable`.
        """
        ...

    def listening(
        self, message_id: UUID, *, only_end: bool = False
    ) -> AbstractContextManager[asyncio.Queue[Item]]:
        """Have what is said from now on put into a queue of the event loop.

        It begins before anything else happens on the loop: nothing falls between this and what the
        caller does next. With `only_end` nothing but the end comes.
        """
        ...

    def follow(self, message_id: UUID) -> AbstractAsyncContextManager[asyncio.Queue[Item]]:
        """As `listening`, and what was said before as well.

        An item may come twice, and what comes may overtake what is there; a `Transcript` puts them
        in order.
        """
        ...


class Transcript:
    """The text of the latest attempt, as far as its pieces are there without a gap."""

    def __init__(self) -> None:
        self.attempt = 0
        self.characters = 0
        self.prompt_tokens = 0
        self._text = ""
        # Joined when they are asked for: adding each to the text would copy the text each time.
        self._pieces: list[str] = []
        self._early: dict[int, str] = {}

    @property
    def text(self) -> str:
        if self._pieces:
            self._text = "".join((self._text, *self._pieces))
            self._pieces.clear()
        return self._text

    def delta(self, characters: int) -> Delta:
        """What stands behind the first `characters`, as one piece."""
        return Delta(self.attempt, characters, self.text[characters:], self.prompt_tokens)

    def take(self, item: Item) -> None:
        """Add what an item says; an earlier attempt's says nothing any more."""
        if not isinstance(item, Delta | Restart) or item.attempt < self.attempt:
            return
        if item.attempt > self.attempt:
            self.attempt, self.characters, self.prompt_tokens = item.attempt, 0, 0
            self._text = ""
            self._pieces.clear()
            self._early.clear()
        if isinstance(item, Delta) and item.at >= self.characters:
            self._early[item.at] = item.text
            self.prompt_tokens = self.prompt_tokens or item.prompt_tokens
            while (piece := self._early.pop(self.characters, None)) is not None:
                self._pieces.append(piece)
                self.characters += len(piece)


def silent_seconds_max() -> int:
    """How long a stream that has fallen silent, and has no end, is kept."""
    return int(settings.RESPONSE_DEADLINE_SECONDS) + SILENT_AFTER_DEADLINE_SECONDS


@once
def reply_streams() -> ReplyStreams:
    """The process's reply streams: in Redis where there is one, else in memory."""
    if settings.REDIS_URL:
        from conversations.reply_streams.redis import RedisReplyStreams

        return RedisReplyStreams(settings.REDIS_URL)
    from conversations.reply_streams.memory import MemoryReplyStreams

    return MemoryReplyStreams()
