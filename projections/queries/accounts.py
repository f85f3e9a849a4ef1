"""Users and balances."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from eventstore.clock import to_datetime
from eventstore.direct import Row
from eventstore.keys import read_texts
from eventstore.reading import POSITION_MAX, any_of, as_uuid
from projections.queries.errors import ReadModelParked, UnknownCursor
from projections.queries.parked import ERROR
from projections.queries.statements import every, live, one


@dataclass(frozen=True, slots=True)
class UserRow:
    id: UUID
    username: str
    created_at: datetime


def balance(user_id: UUID) -> int | None:
    """A user's tokens, None for nobody's; one statement. Raises `ReadModelParked`."""
    found = balances([user_id]).get(user_id)
    if isinstance(found, ReadModelParked):
        raise found
    return found


def balances(user_ids: Collection[UUID]) -> dict[UUID, int | ReadModelParked]:
    """The tokens of users, as far as there are any; one statement.

    Of whom is parked the error that is to be raised.
    """
    condition, parameters = any_of(user_ids)
    found: dict[UUID, int | ReadModelParked] = {}
    parked_at: dict[UUID, int] = {}
    for key, amount, position, error in every(
        BALANCES.format(condition), [*parameters, *parameters]
    ):
        user_id = as_uuid(key)
        if error is None:
            found.setdefault(user_id, int(amount))
        elif position < parked_at.get(user_id, POSITION_MAX):
            parked_at[user_id] = position
            found[user_id] = ReadModelParked("balances", user_id, error)
    return found


def user(user_id: UUID) -> UserRow | None:
    """A user by id, None when there is none. Raises `ReadModelParked`."""
    row = _user(user_id)
    return None if row is None else _users([row])[0]


def registered_at(user_id: UUID) -> int | None:
    """When a user registered, None when there is none. Raises `ReadModelParked`.

    In microseconds since the epoch, UTC.
    """
    row = _user(user_id)
    return None if row is None else int(row[2])


def list_users(after: UUID | None, limit: int) -> list[UserRow]:
    """At most `limit` users behind `after`, oldest first; `after` may have been erased since.

    Raises `UnknownCursor`, and `ReadModelParked` when one of them is parked, or one who belongs
    among them.
    """
    start = 0 if after is None else _registered_where(after)
    # The parked ones first: if a rebuild swaps the rows in between, the page is whole all the same.
    parked = one(_FIRST_PARKED_USER, [start])
    rows = every(USERS, [start, limit])
    if parked is not None:
        stream_id, position, error = parked
        if len(rows) < limit or position <= rows[-1][1]:
            raise ReadModelParked("users", as_uuid(stream_id), error)
    return _users([(user_id, username, at) for user_id, _, username, at in rows])


def _registered_where(user_id: UUID) -> int:
    """The position by which a user is listed, by the log: an erasure takes the row away."""
    row = one(POSITION_OF_USER, [user_id])
    if row is None:
        raise UnknownCursor(user_id)
    position: int = row[0]
    return position


def _user(user_id: UUID) -> Row | None:
    row = one(USER, [user_id, user_id])
    if row is None:
        return None
    *columns, error = row
    if error is not None:
        raise ReadModelParked("users", user_id, error)
    return None if columns[0] is None else tuple(columns)


def _users(rows: Sequence[Sequence[Any]]) -> list[UserRow]:
    names = read_texts([username for _, username, _ in rows])
    return [
        UserRow(as_uuid(user_id), name or "", to_datetime(at))
        for (user_id, _, at), name in zip(rows, names, strict=True)
    ]


POSITION_OF_USER = """
SELECT position FROM eventstore_event WHERE stream_id = %s AND version = 1
AND topic = 'chatledger.accounts.UserRegistered'"""

# Balances, and what is parked of them.
BALANCES = f"""
SELECT user_id, amount, 0 AS position, NULL AS error FROM projections_balances
WHERE generation = {live("balances")} AND user_id {{0}}
UNION ALL
SELECT stream_id, 0, position, error FROM projections_parked
WHERE projection = 'balances' AND generation = {live("balances")} AND stream_id {{0}}"""  # noqa: S608 (constants)

USER = f"""
SELECT member.user_id, member.username, member.created_at, {ERROR}
FROM projections_pointer pointer
LEFT JOIN projections_users member
  ON member.generation = pointer.generation AND member.user_id = %s
WHERE pointer.name = 'users'"""  # noqa: S608 (constants)

USERS = f"""
SELECT user_id, position, username, created_at FROM projections_users
WHERE generation = {live("users")} AND position > %s
ORDER BY position LIMIT %s"""  # noqa: S608 (constants)

# Where a parked user stands in the list, or would stand.
_FIRST_PARKED_USER = f"""
SELECT parked.stream_id, coalesce(member.position, parked.position) AS place, parked.error
FROM projections_parked parked
LEFT JOIN projections_users member
  ON member.generation = parked.generation AND member.user_id = parked.stream_id
WHERE parked.projection = 'users' AND parked.generation = {live("users")}
  AND coalesce(member.position, parked.position) > %s
ORDER BY place, parked.position LIMIT 1"""  # noqa: S608 (constants)
