"""How a message ended: what the log says, and what whoever waits for it is told."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from eventstore.keys import ERASED, decrypt_all
from eventstore.reading import as_uuid, id_parameter, read_stream

#: Messages that one look asks for; SQLite takes no more than some thousands of parameters.
LOOKED_AT_MAX = 500


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a message: `done`, `cancelled` with the text so far, or `failed` with a reason.

    `attempt` is the generation that the text comes from.
    """

    position: int
    status: str
    cost: int
    refunded: int
    response: str | None = None
    reason: str | None = None
    attempt: int = 0


def end_of(message_id: UUID) -> Ended | None:
    """The end of a message by the log; None while it is pending or unknown."""
    events = read_stream(message_id)
    if len(events) < 2:
        return None
    sent, end = events
    cost = end.data["cost"]
    refunded = sent.data["price"] - cost
    if "reason" in end.data:
        return Ended(end.position, "failed", cost, refunded, reason=end.data["reason"])
    (response,) = decrypt_all([end.data["response"]])
    if response is ERASED:
        # Whoever follows it is told that there is no text, not one that stands for it.
        response = None
    status = "cancelled" if end.topic.endswith("ResponseCancelled") else "done"
    attempt = end.data.get("attempt", 0)
    return Ended(end.position, status, cost, refunded, response=response, attempt=attempt)


def ended_among(message_ids: Collection[UUID]) -> set[UUID]:
    """Those of the messages that have ended, in one look for all of them."""
    return {ended for some in _portions(list(message_ids)) for ended in _ended_among(some)}


def _portions(message_ids: list[UUID]) -> Iterator[list[UUID]]:
    for start in range(0, len(message_ids), LOOKED_AT_MAX):
        yield message_ids[start : start + LOOKED_AT_MAX]


def _ended_among(message_ids: list[UUID]) -> list[UUID]:
    marks = ", ".join(["%s"] * len(message_ids))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT stream_id FROM eventstore_event WHERE version = 2 AND stream_id IN ({marks})",  # noqa: S608 (marks)
            list(map(id_parameter, message_ids)),
        )
        return [as_uuid(stream_id) for (stream_id,) in cursor.fetchall()]
