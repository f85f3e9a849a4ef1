"""The Dramatiq actors. They carry ids only: what a message says stays in the log."""

import logging
from uuid import UUID

import dramatiq

from conversations import instant
from conversations.broker import broker
from conversations.generation import generate
from conversations.metrics import GENERATING, GENERATION_SECONDS
from conversations.responders import InstantResponder, make_responder
from eventstore.database import StoreUnavailable, guarded

logger = logging.getLogger(__name__)


@dramatiq.actor(broker=broker)
def generate_response(message_id: str) -> None:
    """Bring a message to its end, unless it has one or somebody else is at it."""
    responder = make_responder()
    try:
        if isinstance(responder, InstantResponder):
            guarded(instant.answer, UUID(message_id), responder)
            return
        with GENERATING.track_inprogress(), GENERATION_SECONDS.time():
            guarded(generate, UUID(message_id))
    # Nothing is lost: the sweeper brings the message again, or fails it at its deadline.
    except StoreUnavailable as error:
        logger.warning("message %s could not be worked on: %s", message_id, error)
    except Exception:
        logger.exception("message %s could not be worked on", message_id)
