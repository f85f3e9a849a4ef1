"""Asks a model behind the OpenAI chat-completions protocol, and streams what it says.

The worker's thread puts the conversation together and waits; the process's one `Upstream` loop
talks to the upstream. The first piece that was said settles a message: only before it an attempt
may be made again.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import groupby
from typing import Any
from uuid import UUID

import httpx2
import openai
from django.conf import settings

from conversations.domain import Usage
from conversations.prices import context_room, tokens_estimated, tokens_max
from conversations.responders import DeadlinePassed, Prompt, Reply, ResponderFailed, Stopped
from conversations.responders.completion import AttemptFailed, CompletionStream, Text
from conversations.responders.upstream import Upstream, upstream

logger = logging.getLogger(__name__)

#: Attempts at one response, and the pauses between them, which double.
ATTEMPTS_MAX = 4
BACKOFF_SECONDS = 0.5
BACKOFF_SECONDS_MAX = 8.0
#: What is worth another attempt besides 5xx: a timeout, a lock, a limit of the rate.
STATUSES_TO_RETRY = frozenset({408, 409, 429})
#: How much longer than its deadline a response is waited for, if the loop should be stuck.
GRACE_SECONDS = 5.0
PROBE_SECONDS = 10.0
#: What an operator's log gets of an upstream's error.
CAUSE_CHARACTERS_MAX = 500

#: What of an error is looked at, and what in it counts as a quotation of the conversation.
QUOTED_CHARACTERS_MAX = 1_000
SAID_CHARACTERS_MAX = 20_000
QUOTED_RUN = 12
QUOTED = "[…]"

ChatMessage = dict[str, str]


class OpenAiResponder:
    """Asks `OPENAI_MODEL` at `OPENAI_BASE_URL`."""

    waits = True

    def __init__(self) -> None:
        self.model: str = settings.OPENAI_MODEL

    def respond(self, prompt: Prompt, reply: Reply) -> Usage | None:
        messages = chat_messages(prompt)
        reply.prompt_tokens = sum(tokens_estimated(message["content"]) for message in messages)
        call = _Call(upstream(), prompt.message_id, messages, reply)
        asking = call.upstream.submit(call.run(prompt.seconds_left))
        reply.on_stop(asking.cancel)
        try:
            return asking.result(prompt.seconds_left + GRACE_SECONDS)
        except CancelledError:
            raise Stopped from None
        except TimeoutError:
            raise DeadlinePassed("the loop of the upstream is stuck") from None
        finally:
            asking.cancel()


def chat_messages(prompt: Prompt) -> list[ChatMessage]:
    """The system prompt, as many of the latest turns as fit, and the message, in time order."""
    said: list[ChatMessage] = [{"role": "user", "content": prompt.message}]
    room = context_room(prompt.message)
    for turn in prompt.earlier():
        room -= tokens_max(turn.message) + tokens_max(turn.response)
        if room < 0:
            break
        said.append({"role": "assistant", "content": turn.response})
        said.append({"role": "user", "content": turn.message})
    if settings.SYSTEM_PROMPT:
        said.append({"role": "system", "content": settings.SYSTEM_PROMPT})
    return said[::-1]


@dataclass
class _Call:
    """One response, from the first attempt to its last piece; everything runs on the loop."""

    upstream: Upstream
    message_id: UUID
    messages: list[ChatMessage]
    reply: Reply

    def __post_init__(self) -> None:
        self._text = Text(self.reply)

    async def run(self, seconds_left: float) -> Usage | None:
        deadline = asyncio.get_running_loop().time() + seconds_left
        try:
            async with asyncio.timeout_at(deadline):
                return await self._attempts(deadline)
        except TimeoutError:
            raise DeadlinePassed("the response was not complete in time") from None

    async def _attempts(self, deadline: float) -> Usage | None:
        attempt = 1
        while True:
            limit_name = self.upstream.limit_name
            try:
                return await self._attempt(limit_name, deadline)
            except _LimitMisnamed:
                self.upstream.limit_name = "max_completion_tokens"
            except AttemptFailed as error:
                cause = self._cause(str(error))
                if not error.again or self._text.said or attempt == ATTEMPTS_MAX:
                    raise ResponderFailed(cause) from None
                pause = max(error.after_seconds, _backoff_seconds(attempt))
                left = deadline - asyncio.get_running_loop().time()
                if pause >= left:
                    due = f"{left:.1f} s are left and the next attempt is due in {pause:.1f} s"
                    raise ResponderFailed(f"{due}: {cause}") from None
                logger.info(
                    "message %s: attempt %s of %s failed: %s",
                    *(self.message_id, attempt, ATTEMPTS_MAX, cause),
                )
                attempt += 1
                await asyncio.sleep(pause)

    def _cause(self, text: str) -> str:
        said: list[str] = []
        room = SAID_CHARACTERS_MAX
        # The latest first: that is what most servers complain of.
        for message in reversed(self.messages):
            if message["role"] != "system" and room > 0:
                said.append(message["content"][:room])
                room -= len(message["content"])
        return _cause(without(text[:QUOTED_CHARACTERS_MAX], said))

    async def _attempt(self, limit_name: str, deadline: float) -> Usage | None:
        self._text.begin()
        stream = CompletionStream(self._text)
        try:
            async with asyncio.timeout(settings.OPENAI_FIRST_BYTE_SECONDS) as patience:
                await stream.read(await self._open(limit_name), patience, deadline)
            failure = AttemptFailed(f"half a stream ({stream.kind})", again=False)
        except ResponderFailed:
            # It has more bytes or lines than a response can have.
            if stream.finish_reason is None:
                raise
        except _ATTEMPT_ERRORS as error:
            failure = _failure(error, stream, limit_name)
        # Whatever may come behind the end of the text, the text is there.
        if stream.finish_reason is None:
            raise failure
        self._text.end()
        if not self._text.said:
            raise AttemptFailed(f"an empty response ({stream.finish_reason})", again=False)
        return stream.usage

    async def _open(self, limit_name: str) -> "openai.AsyncStream[object]":
        body: dict[str, Any] = {
            "model": settings.OPENAI_MODEL,
            "messages": self.messages,
            "stream": True,
            limit_name: settings.RESPONSE_TOKENS_MAX,
        }
        if settings.PRICING == "usage":
            body["stream_options"] = {"include_usage": True}
        # Not `completions.create`: making its typed objects takes 80 of the 100 microseconds that
        # the library needs for a piece, and they are not checked anyway.
        return await self.upstream.client.post(
            "/chat/completions",
            cast_to=object,
            body=body,
            options={"headers": self.upstream.headers},
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )


_ATTEMPT_ERRORS = (
    AttemptFailed,
    TimeoutError,
    openai.OpenAIError,
    httpx2.HTTPError,
    # JSON or UTF-8 that is none, and JSON that is too deep.
    ValueError,
    RecursionError,
)


class _LimitMisnamed(AttemptFailed):
    """The model wants `max_completion_tokens` instead of `max_tokens`."""


def _failure(error: Exception, stream: CompletionStream, limit_name: str) -> AttemptFailed:
    """What an error during an attempt means."""
    match error:
        case AttemptFailed():
            return error
        case TimeoutError() if stream.chunks:
            silence = settings.OPENAI_SILENCE_SECONDS
            return AttemptFailed(f"the upstream fell silent for {silence:g} s", again=False)
        case TimeoutError():
            patience = settings.OPENAI_FIRST_BYTE_SECONDS
            return AttemptFailed(f"no response began within {patience:g} s", again=True)
        case openai.BadRequestError() if limit_name == "max_tokens" and _misnames_limit(error):
            return _LimitMisnamed(error.message, again=True)
        case openai.APIStatusError():
            return _refused(error)
        case openai.APIConnectionError():
            return AttemptFailed(f"connection: {_reason(error)}", again=True)
        case openai.APIError():
            return AttemptFailed(f"an error in the stream: {error.message}", again=False)
        case openai.OpenAIError() | httpx2.HTTPError():
            return AttemptFailed(_reason(error), again=False)
    return AttemptFailed("an event that is not JSON in UTF-8", again=False)


def _misnames_limit(error: openai.APIStatusError) -> bool:
    named = f"{error.param} {error.message}"
    return error.code == "unsupported_parameter" and "max_tokens" in named


def _refused(error: openai.APIStatusError) -> AttemptFailed:
    status, headers, body = error.status_code, error.response.headers, error.body
    message = body.get("message") if isinstance(body, dict) else None
    return AttemptFailed(
        f"status {status}: {message or error.message}",
        again=(status in STATUSES_TO_RETRY or status >= 500)
        and headers.get("x-should-retry") != "false",
        after_seconds=retry_after_seconds(headers.get("retry-after", "")),
    )


def retry_after_seconds(value: str) -> float:
    """Read a `Retry-After` (RFC 9110): seconds or a date; what is neither says nothing."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    # In this order NaN, which is not above anything, becomes 0 too.
    return max(0.0, seconds)


def _backoff_seconds(attempt: int) -> float:
    longest = min(BACKOFF_SECONDS * 2.0 ** (attempt - 1), BACKOFF_SECONDS_MAX)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (it spreads retries, no more)


def _reason(error: Exception) -> str:
    """What lies under an error of the library, whose own texts say little."""
    reason = error.__cause__ or error
    return f"{type(reason).__name__} {reason}".strip()


def _cause(text: str) -> str:
    """A cause for the operator's log: one line, bounded, and never with the key."""
    if settings.OPENAI_API_KEY:
        text = text.replace(settings.OPENAI_API_KEY, "***")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:CAUSE_CHARACTERS_MAX]


def without(text: str, said: Sequence[str]) -> str:
    """A text without what it quotes of others: many servers repeat what they were asked.

    Runs of `QUOTED_RUN` characters and more are left out, and shorter ones that are all of it, as
    they are and as JSON and Python write them.
    """
    kept = _without_runs(text, said)
    for short in sorted({each for each in said if 4 <= len(each) < QUOTED_RUN}, key=len)[::-1]:
        kept = kept.replace(short, QUOTED)
    return kept


def _without_runs(text: str, said: Sequence[str]) -> str:
    """One walk through what was said, with the text's runs at hand; both are bounded."""
    places: dict[str, list[int]] = {}
    for start in range(len(text) - QUOTED_RUN + 1):
        places.setdefault(text[start : start + QUOTED_RUN], []).append(start)
    quoted: set[int] = set()
    for each in said:
        written = {each, json.dumps(each), json.dumps(each, ensure_ascii=False), repr(each)}
        for form in written if places else ():
            for start in range(len(form) - QUOTED_RUN + 1):
                for place in places.get(form[start : start + QUOTED_RUN], ()):
                    quoted.update(range(place, place + QUOTED_RUN))
    runs = groupby(range(len(text)), key=quoted.__contains__)
    return "".join(QUOTED if hidden else "".join(text[i] for i in run) for hidden, run in runs)


def probe() -> None:
    """Say in one line of the log whether the upstream is there and knows the model."""
    where, model = settings.OPENAI_BASE_URL, settings.OPENAI_MODEL
    asked = upstream()
    try:
        listed = asked.submit(_models(asked)).result(PROBE_SECONDS + GRACE_SECONDS)
    except CancelledError:
        return
    except (AttemptFailed, ResponderFailed, TimeoutError) as error:
        logger.warning("the upstream %s: %s", where, _cause(str(error)) or "no answer in time")
        return
    if model in listed:
        logger.info("the upstream %s knows the model %s", where, model)
    else:
        some = ", ".join(sorted(listed)[:10]) or "none"
        logger.warning(
            "the upstream %s does not list the model %s; it lists: %s", where, model, some
        )


async def _models(asked: Upstream) -> set[str]:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            page = await asked.client.models.list(extra_headers=asked.headers)
            return {str(model.id) for model in page.data}
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise AttemptFailed(f"OPENAI_API_KEY is refused: {_refused(error)}", again=False) from None
    except openai.APIStatusError as error:
        raise _refused(error) from None
    except (openai.OpenAIError, httpx2.HTTPError) as error:
        raise AttemptFailed(f"is not reachable: {_reason(error)}", again=False) from None
    except (AttributeError, TypeError, ValueError):
        raise AttemptFailed("its list of models is none", again=False) from None
