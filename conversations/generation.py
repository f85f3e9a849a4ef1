"""What the worker does with a message: take it, ask the responder, publish the text, write the end.

May be run any number of times at once for one message: the lease saves the work, and the exchange's
version 2, which can be written once, decides.
"""

import logging
from uuid import UUID, uuid4

from conversations.commands import fail_message, respond_to_message
from conversations.domain import Exchange
from conversations.reply_streams import (
    Delta,
    End,
    Item,
    ReplyStreamsUnavailable,
    Restart,
    reply_streams,
)
from conversations.responders import Prompt, ResponderFailed, make_responder
from eventstore.cause import Cause
from eventstore.leases import holding
from eventstore.log import event_log
from eventstore.reading import read_stream

logger = logging.getLogger(__name__)

#: Attempts at one response: a second one after a worker's death, no third.
ATTEMPTS_MAX = 2


def lease_name(message_id: UUID) -> str:
    """The lease of whoever works on a message."""
    return f"message:{message_id}"


def generate(message_id: UUID) -> None:
    """Bring a message to its end, unless it has one or somebody else is at it."""
    with holding(lease_name(message_id), f"worker:{uuid4().hex}") as attempt:
        if not attempt:
            return
        sent = read_stream(message_id)
        if len(sent) != 1:
            return
        cause = Cause("worker", sent[0].request_id, sent[0].event_id)
        if attempt > ATTEMPTS_MAX:
            end_with_failure(message_id, "worker_lost", cause)
            return
        if attempt > 1:
            _publish(message_id, Restart())
        _respond(event_log().evolved(sent), cause)


def end_with_failure(message_id: UUID, reason: str, cause: Cause) -> None:
    """Fail a message, refund it, and tell whoever waits."""
    ended = fail_message(message_id, reason, cause)
    if ended is not None:
        _publish(message_id, End(ended))


def _respond(exchange: Exchange, cause: Cause) -> None:
    message_id = exchange.id
    responder = make_responder()
    pieces: list[str] = []
    try:
        for piece in responder.respond(Prompt(message_id, exchange.message)):
            pieces.append(piece)
            _publish(message_id, Delta(piece))
    except ResponderFailed as error:
        logger.warning("message %s got no response: %s", message_id, error)
        end_with_failure(message_id, "responder", cause)
        return
    except Exception:
        logger.exception("the responder broke on message %s", message_id)
        end_with_failure(message_id, "responder", cause)
        return
    ended = respond_to_message(
        exchange, "".join(pieces), cost=exchange.price, model=responder.model, cause=cause
    )
    if ended is not None:
        _publish(message_id, End(ended))


def _publish(message_id: UUID, *items: Item) -> None:
    try:
        reply_streams().publish(message_id, *items)
    except ReplyStreamsUnavailable as error:
        logger.warning("message %s: nobody can be told of its text now: %s", message_id, error)
