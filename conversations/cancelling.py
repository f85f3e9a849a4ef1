"""What a cancel needs of the reply stream: the text so far, and that nothing comes behind it."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from conversations.domain import Exchange, Usage
from conversations.ends import Ended
from conversations.prices import estimated_usage
from conversations.reply_streams import End, ReplyStreamsUnavailable, Transcript, reply_streams

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SoFar:
    """What a message's readers have seen of its response, and what that is taken to have used."""

    text: str
    attempt: int
    usage: Usage | None


def text_so_far(exchange: Exchange) -> SoFar:
    """Close a message's reply stream and return what it holds.

    Where the stream is lost, so is the text, and the message costs nothing.
    """
    transcript = Transcript()
    try:
        for item in reply_streams().close(exchange.id):
            transcript.take(item)
    except ReplyStreamsUnavailable as error:
        logger.warning("message %s is cancelled without its text: %s", exchange.id, error)
    usage = None
    if exchange.usage_prices is not None:
        usage = estimated_usage(transcript.prompt_tokens, transcript.text)
    return SoFar(transcript.text, transcript.attempt, usage)


def tell(message_id: UUID, ended: Ended) -> None:
    """Tell whoever follows a message how it ended."""
    reply_streams().publish(message_id, End(ended))


def forget_streams(message_ids: Collection[UUID]) -> None:
    """Remove the text of messages from their reply streams."""
    if not message_ids:
        return
    try:
        reply_streams().forget(message_ids)
    except ReplyStreamsUnavailable as error:
        logger.warning("%d reply streams expire by themselves: %s", len(message_ids), error)
