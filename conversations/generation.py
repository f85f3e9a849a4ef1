"""What the worker does with a message: take it, ask the responder, publish the text, write the end.

May be run any number of times at once for one message: the lease saves the work, and the exchange's
version 2, which can be written once, decides.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any
from uuid import UUID, uuid4

from structlog.contextvars import bind_contextvars

from conversations.cancelling import tell
from conversations.commands import fail_message, respond_to_message
from conversations.domain import Exchange, Usage
from conversations.prices import estimated_usage, tokens_estimated
from conversations.reply_streams import Delta, Restart, reply_streams
from conversations.responders import (
    DeadlinePassed,
    Prompt,
    Responder,
    ResponderFailed,
    Stopped,
    Turn,
    make_responder,
)
from conversations.watching import stopped_when_ended
from eventstore.cause import Cause
from eventstore.database import in_shared_thread
from eventstore.leases import holding
from eventstore.log import event_log
from eventstore.reading import read_stream_now
from projections import queries

logger = logging.getLogger(__name__)

#: Attempts at one response: a second one after a worker's death, no third.
ATTEMPTS_MAX = 2
#: Messages of before that one look into the history brings.
TURNS_A_PAGE = 20


def lease_name(message_id: UUID) -> str:
    """The lease of whoever works on a message."""
    return f"message:{message_id}"


def generate(message_id: UUID) -> None:
    """Bring a message to its end, unless it has one or somebody else is at it."""
    # What is logged meanwhile carries its ids, and what this thread logs next does not.
    copy_context().run(_generate, message_id)


def _generate(message_id: UUID) -> None:
    bind_contextvars(message_id=message_id)
    responder = make_responder()
    run = in_shared_thread if responder.waits else _run_here
    with holding(lease_name(message_id), f"worker:{uuid4().hex}") as taken:
        if not taken:
            return
        sent, now = run(read_stream_now, message_id)
        if len(sent) != 1:
            return
        cause = Cause("worker", sent[0].request_id, sent[0].event_id)
        bind_contextvars(request_id=cause.request_id)
        if taken > ATTEMPTS_MAX:
            run(end_with_failure, message_id, "worker_lost", cause)
            return
        exchange = run(event_log().evolved, sent)
        bind_contextvars(user_id=exchange.user_id)
        age = max(0, now - sent[0].at)
        attempt = attempt_of(age, taken)
        if taken > 1:
            reply_streams().publish(message_id, Restart(attempt))
        reply = _Reply(message_id, attempt, tokens_estimated(exchange.message))
        seconds_left = exchange.deadline_seconds - age / 1_000_000
        prompt = Prompt(message_id, exchange.message, seconds_left, lambda: _earlier(exchange, run))
        with stopped_when_ended(message_id, reply.stop):
            end = _respond(responder, exchange, prompt, reply, cause)
        if end is not None:
            run(end)


def end_with_failure(message_id: UUID, reason: str, cause: Cause) -> None:
    """Fail a message, refund it, and tell whoever waits."""
    ended = fail_message(message_id, reason, cause)
    if ended is not None:
        tell(message_id, ended)


def _respond(
    responder: Responder, exchange: Exchange, prompt: Prompt, reply: "_Reply", cause: Cause
) -> Callable[[], None] | None:
    """Ask the responder; returns how to write the end, or None when there is one already."""
    message_id = exchange.id
    name = f"message {message_id} of request {cause.request_id}"
    try:
        usage = responder.respond(prompt, reply)
    except Stopped:
        return None
    except DeadlinePassed as error:
        logger.warning("%s is past its deadline: %s", name, error)
        return lambda: end_with_failure(message_id, "deadline", cause)
    except ResponderFailed as error:
        logger.warning("%s got no response: %s", name, error)
        return lambda: end_with_failure(message_id, "responder", cause)
    except Exception:
        logger.exception("the responder broke on %s", name)
        return lambda: end_with_failure(message_id, "responder", cause)
    return lambda: _end_with_response(exchange, reply, usage, responder.model, cause)


def _end_with_response(
    exchange: Exchange, reply: "_Reply", usage: Usage | None, model: str, cause: Cause
) -> None:
    text = reply.text
    if exchange.usage_prices is None:
        usage = None
    elif usage is None:
        usage = estimated_usage(reply.prompt_tokens, text)
    ended = respond_to_message(
        exchange, text, usage=usage, attempt=reply.attempt, model=model, cause=cause
    )
    if ended is not None:
        tell(exchange.id, ended)


class _Reply:
    """Publishes what a responder says, until the message has ended otherwise."""

    def __init__(self, message_id: UUID, attempt: int, prompt_tokens: int) -> None:
        self.attempt = attempt
        self.prompt_tokens = prompt_tokens
        self._message_id = message_id
        self._pieces: list[str] = []
        self._characters = 0
        self._guard = threading.Lock()
        self._stopped = False
        self._stops: list[Callable[[], object]] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def say(self, text: str) -> None:
        if self._stopped:
            raise Stopped
        at, prompt_tokens = self._characters, 0 if self._characters else self.prompt_tokens
        self._pieces.append(text)
        self._characters += len(text)
        delta = Delta(self.attempt, at, text, prompt_tokens)
        reply_streams().publish(self._message_id, delta)

    def on_stop(self, stop: Callable[[], object]) -> None:
        with self._guard:
            if not self._stopped:
                self._stops.append(stop)
                return
        stop()

    def stop(self) -> None:
        with self._guard:
            self._stopped = True
            stops, self._stops = self._stops, []
        for stop in stops:
            stop()


def attempt_of(age: int, taken: int) -> int:
    """Number a generation by when it begins, in ms after the message was sent.

    So a later one has a higher number, even if everybody has forgotten the one before; `taken`, the
    count of the lease, still tells them apart when the database's clock was set back.
    """
    return age // 1000 + taken


def _earlier(exchange: Exchange, run: Callable[..., Any]) -> Iterator[Turn]:
    """The conversation before a message, newest first, read a page at a time."""
    position: int | None = None
    while True:
        page = run(
            queries.turns_before, exchange.conversation_id, exchange.id, position, TURNS_A_PAGE
        )
        for turn in page:
            yield Turn(turn.message, turn.response)
        if len(page) < TURNS_A_PAGE:
            return
        position = page[-1].position


def _run_here(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)
