"""What the worker does with a message whose responder knows its response at once.

There is no work here that could be saved, so much of what `generation` does is left out. No lease:
whoever else comes to the message meanwhile has the response at once too, and the exchange's version
2, which can be written once, decides. No attempts to count: a process that dies of a message each
time is brought it by the sweeper, ever more seldom, until its deadline. No pieces: the end carries
the text. And no wait: the thread hands the end to the shared writer and goes on.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

from accounts.domain import Account
from conversations.cancelling import tell
from conversations.commands import responding
from conversations.domain import Exchange
from conversations.ends import Ended
from conversations.generation import attempt_of, end_with_failure
from conversations.metrics import GENERATING, GENERATION_SECONDS
from conversations.prices import estimated_usage, tokens_estimated
from conversations.responders import InstantResponder
from eventstore.cause import Cause
from eventstore.database import StoreUnavailable
from eventstore.log import event_log
from eventstore.reading import READ_MAX, RecordedEvent, read_streams_now
from eventstore.writer import Command, shared_writer

logger = logging.getLogger(__name__)

#: Ends that the writer may owe this process's worker threads; then they wait for it.
OWED_MAX = 1_024
#: Messages that are known to come, or were read before they came; one too many is read alone.
EXPECTED_MAX = 10_000

Stream = tuple[list[RecordedEvent], int]


def answer(message_id: UUID, responder: InstantResponder) -> None:
    """Bring a message to its end soon, unless it has one. Raises `StoreUnavailable`."""
    began = time.perf_counter()
    sent, now = _ahead.take(message_id)
    if len(sent) != 1:
        return
    cause = Cause("worker", sent[0].request_id, sent[0].event_id)
    exchange: Exchange = event_log().evolved(sent)
    try:
        text = responder.answer(exchange.message)
    except Exception:
        logger.exception("the responder broke on message %s", message_id)
        end_with_failure(message_id, "responder", cause)
        return
    usage = None
    if exchange.usage_prices is not None:
        usage = estimated_usage(tokens_estimated(exchange.message), text)
    attempt = attempt_of(max(0, now - sent[0].at), taken=1)
    decision = responding(
        exchange, text, usage=usage, attempt=attempt, model=responder.model, cause=cause
    )
    # Web writes to the account too; the end does so where something may be refunded.
    streams = [(Account, exchange.user_id)] if exchange.usage_prices is not None else []
    command = Command(decision, Future(), partial(_tell, message_id), streams)
    _owed.hand_over(message_id, command, began)


def expect(message_ids: Iterable[UUID]) -> None:
    """Say which messages come next, so that one look into the log is enough for all of them."""
    _ahead.expect(message_ids)


@contextmanager
def together() -> Iterator[None]:
    """What this thread answers in the block is committed at its end, in one go, and by this thread.

    Unless another is committing, which then commits this too.
    """
    ends = _here.ends = []
    try:
        yield
    finally:
        _here.ends = None
        if ends:
            shared_writer.carry_out_here(ends)


def flush(timeout_seconds: float) -> None:
    """Wait until the writer owes no end any more, but not for ever."""
    _owed.flush(timeout_seconds)


def _tell(message_id: UUID, ended: Ended | None) -> None:
    if ended is not None:
        tell(message_id, ended)


class _Here(threading.local):
    """The ends that this thread is to commit itself, while it is to."""

    ends: "list[Command[Ended | None]] | None" = None


class _Owed:
    """The ends that were handed to the writer and are not committed yet."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0

    def hand_over(self, message_id: UUID, command: "Command[Ended | None]", began: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._number < OWED_MAX)
            self._number += 1
        GENERATING.inc()
        command.done.add_done_callback(partial(self._settle, message_id, began))
        if _here.ends is not None:
            _here.ends.append(command)
            return
        try:
            shared_writer.submit(command)
        except StoreUnavailable as error:
            command.done.set_exception(error)

    def flush(self, timeout_seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._number, timeout_seconds)

    def _settle(self, message_id: UUID, began: float, done: "Future[Ended | None]") -> None:
        with self._changed:
            self._number -= 1
            if self._number in (0, OWED_MAX - 1):
                self._changed.notify_all()
        GENERATING.dec()
        GENERATION_SECONDS.observe(time.perf_counter() - began)
        error = done.exception()
        # Nothing is lost: the sweeper brings the message again, or fails it at its deadline.
        if isinstance(error, StoreUnavailable):
            logger.warning("message %s could not be worked on: %s", message_id, error)
        elif error is not None:
            logger.error("message %s could not be worked on", message_id, exc_info=error)


class _ReadAhead:
    """Reads a message together with all those that are known to come next, in one query."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._reading = threading.Lock()
        # Dictionaries for their order: what came first is read first, and dropped first.
        self._expected: dict[UUID, None] = {}
        self._read: dict[UUID, Stream] = {}

    def expect(self, message_ids: Iterable[UUID]) -> None:
        with self._guard:
            self._expected.update(dict.fromkeys(message_ids))
            _bound(self._expected)

    def take(self, message_id: UUID) -> Stream:
        # Whoever comes while another reads finds here what was read with it.
        with self._reading:
            if message_id not in self._read:
                with self._guard:
                    some = list({message_id: None} | self._expected)[:READ_MAX]
                    for each in some:
                        self._expected.pop(each, None)
                streams, now = read_streams_now(some)
                self._read |= {each: (events, now) for each, events in streams.items()}
                _bound(self._read)
            return self._read.pop(message_id)


def _bound(kept: dict[UUID, Any]) -> None:
    while len(kept) > EXPECTED_MAX:
        del kept[next(iter(kept))]


_here = _Here()
_ahead = _ReadAhead()
_owed = _Owed()
