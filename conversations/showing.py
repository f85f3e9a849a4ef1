"""What the read models show of messages and conversations, and what they do not show yet."""

from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from accounts.api import NotShownYet
from conversations.domain import ConversationStarted, MessageSent
from eventstore.reading import read_stream_after
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
    if found is None and _is_in_log(user_id, stream_id):
        # Shown since, or deleted: whoever looked before a follower was done looks once more.
        found = look(user_id, stream_id)
    if found is None:
        raise missing
    return found


def _is_in_log(user_id: UUID, stream_id: UUID) -> bool:
    """Whether the log has it, and the read model, too; raises `NotShownYet` if the log alone."""
    first = read_stream_after(stream_id, 0, limit=1)
    if not first or (name := _SHOWN_IN.get(first[0].topic)) is None:
        return False
    (begun,) = first
    if begun.data["user_id"] != str(user_id):
        return False
    if begun.position > positions.live()[name].position:
        raise NotShownYet
    return True
