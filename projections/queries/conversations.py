"""A user's conversations."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from eventstore.clock import to_datetime
from eventstore.direct import Row
from eventstore.keys import read_texts
from eventstore.reading import as_uuid
from projections.queries.errors import UnknownCursor
from projections.queries.parked import (
    ANY,
    ERROR,
    LOOKED_UP_MAX,
    is_own,
    refuse,
    refuse_if_of,
)
from projections.queries.statements import every, live, one


@dataclass(frozen=True, slots=True)
class ConversationRow:
    id: UUID
    title: str | None
    created_at: datetime


def conversation(user_id: UUID, conversation_id: UUID) -> ConversationRow | None:
    """A conversation of the user's own, None for any other or a deleted one.

    Raises `ReadModelParked`.
    """
    row = own_conversation(user_id, conversation_id)
    return None if row is None else _conversations([row])[0]


def own_conversation(user_id: UUID, conversation_id: UUID) -> Row | None:
    """The same as a row of (conversation_id, title, created_at), the title still encrypted."""
    row = one(CONVERSATION, [conversation_id, conversation_id])
    if row is None:
        return None
    owner, title, created_at, error = row
    if is_own(user_id, owner, error, projection="conversations", stream_id=conversation_id):
        return conversation_id, title, created_at
    return None


def list_conversations(user_id: UUID, after: UUID | None, limit: int) -> list[ConversationRow]:
    """At most `limit` of the user's conversations, the most recently active first.

    `after` is the last one of the page before; raises `UnknownCursor` when that is not the user's
    or is deleted, and `ReadModelParked` when one of the user's conversations is parked.
    """
    # What is parked first: if a rebuild swaps the rows in between, the page is whole all the same.
    active, is_any_parked = one(CURSOR, [user_id, after]) or (None, False)
    if after is not None and active is None:
        raise UnknownCursor(after)
    if is_any_parked:
        refuse("conversations", one(_PARKED_OF_USER, [user_id]))
        unknown = every(_PARKED_UNKNOWN, [LOOKED_UP_MAX + 1])
        refuse_if_of("conversations", unknown, "user_id", user_id)
    bound = POSITION_MAX if active is None else active
    return _conversations(every(CONVERSATIONS, [user_id, bound, limit]))


def _conversations(rows: Sequence[Sequence[Any]]) -> list[ConversationRow]:
    titles = read_texts([title for _, title, _ in rows])
    return [
        ConversationRow(as_uuid(conversation_id), title, to_datetime(at))
        for (conversation_id, _, at), title in zip(rows, titles, strict=True)
    ]


#: Beyond any position that an event can have.
POSITION_MAX = 2**63 - 1

CONVERSATION = f"""
SELECT conversation.user_id, conversation.title, conversation.created_at, {ERROR}
FROM projections_pointer pointer
LEFT JOIN projections_conversations conversation
  ON conversation.generation = pointer.generation AND conversation.conversation_id = %s
WHERE pointer.name = 'conversations'"""  # noqa: S608 (constants)

CURSOR = f"""
SELECT (SELECT active FROM projections_conversations conversation
        WHERE conversation.generation = pointer.generation
          AND conversation.user_id = %s AND conversation.conversation_id = %s), {ANY}
FROM projections_pointer pointer WHERE pointer.name = 'conversations'"""  # noqa: S608 (constants)

CONVERSATIONS = f"""
SELECT conversation_id, title, created_at FROM projections_conversations
WHERE generation = {live("conversations")} AND user_id = %s AND active < %s
ORDER BY active DESC LIMIT %s"""  # noqa: S608 (constants)

_PARKED = f"""
SELECT parked.stream_id, parked.position, parked.error
FROM projections_parked parked
LEFT JOIN projections_conversations conversation
  ON conversation.generation = parked.generation
 AND conversation.conversation_id = parked.stream_id
WHERE parked.projection = 'conversations'
  AND parked.generation = {live("conversations")}"""  # noqa: S608 (constants)
_PARKED_OF_USER = f"{_PARKED} AND conversation.user_id = %s ORDER BY parked.position LIMIT 1"
# Those that never reached the read model: whose they are, only the log can tell.
_PARKED_UNKNOWN = f"""{_PARKED}
  AND conversation.user_id IS NULL ORDER BY parked.position LIMIT %s"""
