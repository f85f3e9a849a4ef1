"""What the read models show of messages and conversations, and what they do not show yet."""

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from accounts.api import NotShownYet
from conversations.domain import ConversationStarted, MessageSent
from eventstore.reading import RecordedEvent, read_stream_after
from projections import positions

R = TypeVar("R")

#: The read models that show a message or a conversation, and what they did to the user's tokens.
SHOWING = ("history", "balances", "statement", "conversations")
#: The read model in which each is looked for, by the event that it begins with.
_SHOWN_IN = {MessageSent.TOPIC: "history", ConversationStarted.TOPIC: "conversations"}


def find(
    look: Callable[[UUID, UUID], R | None],
    user_id: UUID,
    stream_id: UUID,
    missing: type[Exception],
) -> R:
    """What `look` finds in a read model of this message or conversation of the user's.

    Raises `NotShownYet` while the log has it and the read model has not come to it, which is so for
    as long as no follower runs; otherwise, what is not found is `missing`.
    """
    found = look(user_id, stream_id)
    if found is None and (begun := _beginning(user_id, stream_id)) is not None:
        place = positions.live().get(_SHOWN_IN[begun.topic])
        if place is None or place.position < begun.position:
            raise NotShownYet
        # Shown since, or deleted: whoever looked before a follower was done looks once more.
        found = look(user_id, stream_id)
    if found is None:
        raise missing
    return found


def _beginning(user_id: UUID, stream_id: UUID) -> RecordedEvent | None:
    """The event with which a message or conversation of the user's begins, if the log has it."""
    for begun in read_stream_after(stream_id, 0, limit=1):
        if begun.topic in _SHOWN_IN and begun.data["user_id"] == str(user_id):
            return begun
    return None
