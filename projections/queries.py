"""What the APIs read: the live generation of each read model, personal text decrypted.

A page that would show a parked stream is not shown: it would be wrong without saying so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from eventstore.clock import to_datetime
from eventstore.keys import read_texts
from eventstore.reading import as_uuid, id_parameter, max_position, read_stream
from projections import positions


class ReadModelParked(Exception):
    """What was asked for waits behind an event that a projection could not handle."""

    def __init__(self, projection: str, stream_id: UUID, error: str) -> None:
        super().__init__(f"{projection} has parked stream {stream_id}: {error}")
        self.projection = projection
        self.stream_id = stream_id
        self.error = error


@dataclass(frozen=True, slots=True)
class UserRow:
    id: UUID
    username: str
    created_at: datetime


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


def balance(user_id: UUID) -> int | None:
    """A user's tokens, None for nobody's; one statement. Raises `ReadModelParked`."""
    parameter = id_parameter(user_id)
    row = _row(_BALANCE, [parameter, parameter])
    if row is None:
        return None
    amount, error = row
    if error is not None:
        raise ReadModelParked("balances", user_id, error)
    return None if amount is None else int(amount)


def user(user_id: UUID) -> UserRow | None:
    """A user by id, None when there is none. Raises `ReadModelParked`."""
    parameter = id_parameter(user_id)
    row = _row(_USER, [parameter, parameter])
    if row is None:
        return None
    *columns, error = row
    if error is not None:
        raise ReadModelParked("users", user_id, error)
    return None if columns[0] is None else _users([columns])[0]


def list_users(after: UUID | None, limit: int) -> list[UserRow]:
    """At most `limit` users behind `after`, oldest first; none behind a user who is not there.

    Raises `ReadModelParked` when one of them, or one who belongs among them, is parked.
    """
    start, parameters = ("0", []) if after is None else (_POSITION_OF_USER, [id_parameter(after)])
    # The parked ones first: if a rebuild swaps the rows in between, the page is whole all the same.
    parked = _row(_FIRST_PARKED_USER.format(start=start), parameters)
    with connection.cursor() as cursor:
        cursor.execute(_USERS.format(start=start), [*parameters, limit])
        rows = cursor.fetchall()
    if parked is not None:
        stream_id, position, error = parked
        if len(rows) < limit or position <= rows[-1][1]:
            raise ReadModelParked("users", as_uuid(stream_id), error)
    return _users([(user_id, username, at) for user_id, _, username, at in rows])


def message(user_id: UUID, message_id: UUID) -> MessageRow | None:
    """A message of the user's own, None for any other. Raises `ReadModelParked`."""
    parameter = id_parameter(message_id)
    row = _row(_MESSAGE, [parameter, parameter])
    if row is None:
        return None
    *columns, error = row
    owner = _owner(message_id) if columns[0] is None and error else columns[0]
    if owner is None or as_uuid(owner) != user_id:
        return None
    if error is not None:
        raise ReadModelParked("history", message_id, error)
    _, conversation_id, text, response, status, cost, model, at, responded_at, reason = columns
    said, answered = read_texts([text, response])
    return MessageRow(
        id=message_id,
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


def parked_count() -> int:
    """Events that wait for `retry_parked`, over all read models."""
    row = _row(_PARKED_COUNT, [])
    return int(row[0]) if row else 0


def lag() -> int:
    """How many events the slowest projection is behind the log."""
    last = max_position()
    places = positions.live().values()
    return last - min((place.position for place in places), default=0)


def _row(sql: str, parameters: list[Any]) -> tuple[Any, ...] | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        row: tuple[Any, ...] | None = cursor.fetchone()
        return row


def _users(rows: Sequence[Sequence[Any]]) -> list[UserRow]:
    names = read_texts([username for _, username, _ in rows])
    return [
        UserRow(as_uuid(user_id), name or "", to_datetime(at))
        for (user_id, _, at), name in zip(rows, names, strict=True)
    ]


def _owner(message_id: UUID) -> str | None:
    """Whose message it is that never reached the read model, by the log."""
    owners = [event.data.get("user_id") for event in read_stream(message_id)]
    return next((owner for owner in owners if isinstance(owner, str)), None)


_LIVE_USERS = "(SELECT generation FROM projections_pointer WHERE name = 'users')"
_POSITION_OF_USER = f"""
(SELECT position FROM projections_users
 WHERE generation = {_LIVE_USERS} AND user_id = %s)"""  # noqa: S608 (constants)

# The error of a stream that is parked; every query of one stream asks for it too.
_ERROR = """
(SELECT error FROM projections_parked parked
 WHERE parked.projection = pointer.name AND parked.generation = pointer.generation
   AND parked.stream_id = %s
 ORDER BY parked.position LIMIT 1)"""

# Subqueries, since they plan a quarter faster than a join does.
_BALANCE = f"""
SELECT (SELECT amount FROM projections_balances balance
        WHERE balance.generation = pointer.generation AND balance.user_id = %s), {_ERROR}
FROM projections_pointer pointer WHERE pointer.name = 'balances'"""  # noqa: S608 (constants)

_USER = f"""
SELECT member.user_id, member.username, member.created_at, {_ERROR}
FROM projections_pointer pointer
LEFT JOIN projections_users member
  ON member.generation = pointer.generation AND member.user_id = %s
WHERE pointer.name = 'users'"""  # noqa: S608 (constants)

_MESSAGE = f"""
SELECT history.user_id, history.conversation_id, history.message, history.response,
       history.status, history.cost, history.model, history.created_at, history.responded_at,
       history.reason, {_ERROR}
FROM projections_pointer pointer
LEFT JOIN projections_history history
  ON history.generation = pointer.generation AND history.message_id = %s
WHERE pointer.name = 'history'"""  # noqa: S608 (constants)

_USERS = f"""
SELECT user_id, position, username, created_at FROM projections_users
WHERE generation = {_LIVE_USERS} AND position > {{start}}
ORDER BY position LIMIT %s"""  # noqa: S608 (constants)

# Where a parked user stands in the list, or would stand.
_FIRST_PARKED_USER = f"""
SELECT parked.stream_id, coalesce(member.position, parked.position) AS place, parked.error
FROM projections_parked parked
LEFT JOIN projections_users member
  ON member.generation = parked.generation AND member.user_id = parked.stream_id
WHERE parked.projection = 'users' AND parked.generation = {_LIVE_USERS}
  AND coalesce(member.position, parked.position) > {{start}}
ORDER BY place, parked.position LIMIT 1"""  # noqa: S608 (constants)

_PARKED_COUNT = """
SELECT count(*) FROM projections_parked parked JOIN projections_pointer pointer
  ON pointer.name = parked.projection AND pointer.generation = parked.generation"""
