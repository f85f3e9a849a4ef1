"""What was said in a conversation, for the model's context and for forgetting it."""

from dataclasses import dataclass
from uuid import UUID

from eventstore.keys import read_texts
from eventstore.reading import as_uuid
from projections.queries.conversations import POSITION_MAX
from projections.queries.statements import every, live

#: Messages that `recently_ended` names at most.
RECENTLY_ENDED_MAX = 5_000


@dataclass(frozen=True, slots=True)
class TurnRow:
    """A message with its response, whole or as far as it came; `position` is where it was sent."""

    position: int
    message: str
    response: str


def turns_before(
    conversation_id: UUID, message_id: UUID, position: int | None, limit: int
) -> list[TurnRow]:
    """At most `limit` exchanges that were sent before a message and have a response, newest first.

    `position` is that of the last one of the page before. Where the message itself has not reached
    the read model yet, everything there was sent before it. A parked message is left out: it is no
    answer to anybody, only a gap in what the model is told.
    """
    rows = every(TURNS, [conversation_id, position, message_id, POSITION_MAX, limit])
    texts = read_texts([text for row in rows for text in row[1:]])
    return [
        TurnRow(place, said or "", answered or "")
        for (place, _, _), said, answered in zip(rows, texts[::2], texts[1::2], strict=True)
    ]


def recently_ended(conversation_id: UUID, since_microseconds: int) -> list[UUID]:
    """The messages of a conversation that ended at a time or later, newest first.

    At most `RECENTLY_ENDED_MAX`. To be asked before the conversation is deleted; it looks through
    all of its messages.
    """
    rows = every(RECENTLY_ENDED, [conversation_id, since_microseconds, RECENTLY_ENDED_MAX])
    return [as_uuid(message_id) for (message_id,) in rows]


TURNS = f"""
SELECT position, message, response FROM projections_history
WHERE generation = {live("history")} AND conversation_id = %s
  AND status IN ('done', 'cancelled') AND response IS NOT NULL
  AND position < coalesce(%s, (SELECT position FROM projections_history
                               WHERE generation = {live("history")} AND message_id = %s), %s)
ORDER BY position DESC LIMIT %s"""  # noqa: S608 (constants)

RECENTLY_ENDED = f"""
SELECT message_id FROM projections_history
WHERE generation = {live("history")} AND conversation_id = %s AND responded_at >= %s
ORDER BY position DESC LIMIT %s"""  # noqa: S608 (constants)
