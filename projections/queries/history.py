"""Messages: one, or a page of a conversation."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from eventstore.clock import to_datetime
from eventstore.direct import Row
from eventstore.keys import read_texts
from eventstore.reading import as_uuid
from projections.history import SENT
from projections.queries.conversations import POSITION_MAX, own_conversation
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

#: Text on one page, in bytes: a page of very long ones has fewer messages, and a next page.
PAGE_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class MessageRow:
    id: UUID
    conversation_id: UUID
    message: str | None
    response: str | None
    status: str
    cost: int
    model: str | None
    created_at: datetime
    responded_at: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Messages in time order, and whether the conversation has others before or after them."""

    rows: list[MessageRow]
    more_before: bool
    more_after: bool


def message(user_id: UUID, message_id: UUID) -> MessageRow | None:
    """A message of the user's own, None for any other. Raises `ReadModelParked`."""
    row = one(MESSAGE, [message_id, message_id])
    if row is None:
        return None
    owner, error, *columns = row
    if is_own(user_id, owner, error, projection="history", stream_id=message_id):
        return _messages([tuple(columns)])[0]
    return None


def messages(
    user_id: UUID,
    conversation_id: UUID,
    *,
    after: UUID | None,
    before: UUID | None,
    limit: int,
    latest: bool = False,
) -> MessagePage | None:
    """At most `limit` messages of the user's own conversation, None for any other or a deleted one.

    Those right behind `after` (and before `before`), or else those right before `before`; without
    either the first ones, or the last ones with `latest`. What a page costs does not depend on how
    long the conversation is. Raises `UnknownCursor` when there is no such message in it, and
    `ReadModelParked` when one that belongs on the page is parked.
    """
    if own_conversation(user_id, conversation_id) is None:
        return None
    # What is parked first: if a rebuild swaps the rows in between, the page is whole all the same.
    low, high, is_any_parked = _bounds(conversation_id, after, before)
    backwards = after is None and (before is not None or latest)
    rows = every(PAGE_BACKWARDS if backwards else PAGE, [conversation_id, low, high, limit + 1])
    shown = _that_fit(rows[:limit])
    are_more, rows = len(rows) > len(shown), shown
    if backwards:
        rows.reverse()
    if is_any_parked:
        if are_more:
            low, high = (rows[0][0] - 1, high) if backwards else (low, rows[-1][0] + 1)
        _refuse_parked(conversation_id, low, high)
    return MessagePage(
        _messages([row[1:] for row in rows]),
        more_before=are_more if backwards else after is not None,
        more_after=before is not None or (are_more and not backwards),
    )


def _that_fit(rows: Sequence[Row]) -> list[Row]:
    """The first rows, as many as one answer can carry, and at least one."""
    room = PAGE_BYTES_MAX
    for number, row in enumerate(rows):
        room -= sum(len(text or b"") for text in row[3:5])
        if room < 0:
            return list(rows[: max(1, number)])
    return list(rows)


def _bounds(
    conversation_id: UUID, after: UUID | None, before: UUID | None
) -> tuple[int, int, bool]:
    """The positions between which a page lies, and whether anything is parked at all."""
    parameters = [conversation_id, after, conversation_id, before]
    low, high, is_any_parked = one(BOUNDS, parameters) or (None, None, False)
    for cursor, position in ((after, low), (before, high)):
        if cursor is not None and position is None:
            raise UnknownCursor(cursor)
    return low or 0, POSITION_MAX if high is None else high, bool(is_any_parked)


def _refuse_parked(conversation_id: UUID, low: int, high: int) -> None:
    """Raise `ReadModelParked` if a message between two positions is parked, shown or missing."""
    refuse("history", one(_PARKED_SHOWN, [conversation_id, conversation_id, low, high]))
    missing = every(_PARKED_UNKNOWN, [low, high, LOOKED_UP_MAX + 1])
    refuse_if_of("history", missing, "conversation_id", conversation_id)


def _messages(rows: Sequence[Row]) -> list[MessageRow]:
    texts = read_texts([text for row in rows for text in row[2:4]])
    return [
        MessageRow(
            id=as_uuid(message_id),
            conversation_id=as_uuid(conversation_id),
            message=said,
            response=answered,
            status=status,
            cost=cost,
            model=model,
            created_at=to_datetime(at),
            responded_at=None if responded_at is None else to_datetime(responded_at),
            reason=reason,
        )
        for (message_id, conversation_id, _, _, status, cost, model, at, responded_at, reason), (
            said,
            answered,
        ) in zip(rows, zip(texts[::2], texts[1::2], strict=True), strict=True)
    ]


_COLUMNS = """
history.message_id, history.conversation_id, history.message, history.response, history.status,
history.cost, history.model, history.created_at, history.responded_at, history.reason"""

MESSAGE = f"""
SELECT history.user_id, {ERROR}, {_COLUMNS}
FROM projections_pointer pointer
LEFT JOIN projections_history history
  ON history.generation = pointer.generation AND history.message_id = %s
WHERE pointer.name = 'history'"""  # noqa: S608 (constants)

_POSITION = """
(SELECT position FROM projections_history history
 WHERE history.generation = pointer.generation
   AND history.conversation_id = %s AND history.message_id = %s)"""

BOUNDS = f"""
SELECT {_POSITION}, {_POSITION}, {ANY}
FROM projections_pointer pointer WHERE pointer.name = 'history'"""  # noqa: S608 (constants)

PAGE = f"""
SELECT history.position, {_COLUMNS} FROM projections_history history
WHERE generation = {live("history")} AND conversation_id = %s AND position > %s AND position < %s
ORDER BY position LIMIT %s"""  # noqa: S608 (constants)
PAGE_BACKWARDS = PAGE.replace("ORDER BY position", "ORDER BY position DESC")

_PARKED = f"""
SELECT parked.stream_id, parked.position, parked.error
FROM projections_parked parked
LEFT JOIN projections_history history
  ON history.generation = parked.generation AND history.message_id = parked.stream_id
WHERE parked.projection = 'history' AND parked.generation = {live("history")}"""  # noqa: S608 (constants)
# The conversation's own stream is parked when its deletion is.
_PARKED_SHOWN = f"""{_PARKED}
  AND (parked.stream_id = %s OR history.conversation_id = %s
       AND history.position > %s AND history.position < %s)
ORDER BY parked.position LIMIT 1"""
# Those that never reached the read model: where they belong, only the log can tell.
_PARKED_UNKNOWN = f"""{_PARKED}
  AND history.message_id IS NULL AND parked.topic = '{SENT}'
  AND parked.position > %s AND parked.position < %s
ORDER BY parked.position LIMIT %s"""
