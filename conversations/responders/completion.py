"""What a streamed completion says: its text, how it ended, and what it took.

Whatever the upstream sends, what is said is valid text, and not more of it than one response has.
"""

import asyncio
from typing import Any

import openai
from django.conf import settings

from conversations.domain import Usage
from conversations.responders import Reply, ResponderFailed

#: What a response may have in characters. A token stands for 2 to 5 of them in most languages; one
#: of 32 on the average is not what was asked for.
RESPONSE_CHARACTERS_FLOOR = 65_536
RESPONSE_CHARACTERS_PER_TOKEN = 32
#: A count of tokens beyond this is none.
COUNT_MAX = 10**9
#: How long a stream whose text is complete may take to end and to say what it took.
TAIL_SECONDS = 2.0
#: How long before the deadline a complete text is taken as it is.
BEFORE_SECONDS = 0.1


class AttemptFailed(Exception):
    """One attempt came to nothing. `again`: whether another one may come to more."""

    def __init__(self, cause: str, *, again: bool, after_seconds: float = 0.0) -> None:
        super().__init__(cause)
        self.again = again
        self.after_seconds = after_seconds


class CompletionStream:
    """What one attempt's stream has said so far."""

    def __init__(self, text: "Text") -> None:
        self.text = text
        self.chunks = 0
        self.kind = "of no content type"
        self.finish_reason: str | None = None
        self.usage: Usage | None = None

    async def read(
        self, events: "openai.AsyncStream[Any]", patience: asyncio.Timeout, deadline: float
    ) -> None:
        """Say the text as it comes; `patience` is what is left of it, and closes the stream."""
        now = asyncio.get_running_loop().time
        # Leaving the block in whatever way closes the connection, unless it was read to its end.
        async with events:
            self.kind = events.response.headers.get("content-type", self.kind)
            async for chunk in events:
                self.chunks += 1
                was_complete = self.finish_reason is not None
                self._take(chunk)
                if self.finish_reason is None:
                    patience.reschedule(now() + settings.OPENAI_SILENCE_SECONDS)
                elif not was_complete:
                    # Whatever comes from here on, the text is there before the deadline.
                    patience.reschedule(min(now() + TAIL_SECONDS, deadline - BEFORE_SECONDS))

    def _take(self, chunk: Any) -> None:
        try:
            choices, usage = chunk.get("choices"), chunk.get("usage")
            first = [each for each in choices or () if each.get("index", 0) == 0]
            choice = first[0] if first else {}
            delta = choice.get("delta") or {}
            content, finish_reason = delta.get("content"), choice.get("finish_reason")
        except (AttributeError, LookupError, TypeError):
            raise AttemptFailed("an event that is no part of a response", again=False) from None
        if content:
            if not isinstance(content, str):
                raise AttemptFailed("an event whose text is no text", again=False)
            self.text.add(content)
        if finish_reason:
            self.finish_reason = str(finish_reason)
        if usage is not None:
            self.usage = _usage(usage)


class Text:
    """Says pieces as valid text: an emoji that a server cut in two is put together again."""

    def __init__(self, reply: Reply) -> None:
        self.said = False
        self._reply = reply
        self._characters = 0
        self._held = ""

    def begin(self) -> None:
        """Forget half an emoji of an attempt that came to nothing."""
        self._held = ""

    def add(self, piece: str) -> None:
        piece, self._held = self._held + piece, ""
        if "\ud800" <= piece[-1] <= "\udbff":
            piece, self._held = piece[:-1], piece[-1]
        if piece:
            self._say(joined(piece))

    def end(self) -> None:
        if self._held:
            self._say(joined(self._held))

    def _say(self, piece: str) -> None:
        self._characters += len(piece)
        if self._characters > response_characters_max():
            raise ResponderFailed(f"a response of more than {response_characters_max()} characters")
        self.said = True
        self._reply.say(piece)


def joined(text: str) -> str:
    """The text with its surrogate pairs joined and each lone surrogate as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _usage(said: Any) -> Usage | None:
    """What the upstream counted, if it is what a count can be."""
    match said:
        case {"prompt_tokens": int(prompt), "completion_tokens": int(completion)} if not any(
            isinstance(count, bool) for count in (prompt, completion)
        ):
            # It stands behind a text, so there was at least one token.
            if 0 <= prompt <= COUNT_MAX and 0 < completion <= COUNT_MAX:
                return Usage(prompt_tokens=prompt, completion_tokens=completion, estimated=False)
    return None


def response_characters_max() -> int:
    """The most characters that one response may have."""
    return max(
        RESPONSE_CHARACTERS_FLOOR, RESPONSE_CHARACTERS_PER_TOKEN * settings.RESPONSE_TOKENS_MAX
    )
