"""A user's statement, and the balance at an instant of the past."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from eventstore.clock import to_datetime
from eventstore.keys import read_texts
from eventstore.reading import as_uuid
from projections.queries.errors import ReadModelParked
from projections.queries.parked import ERROR
from projections.queries.statements import every, live, one

#: Beyond any number that an entry can have.
ENTRY_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StatementRow:
    """A movement of tokens; `reason` is a grant's text, or the code of a refund."""

    entry: int
    at: datetime
    kind: str
    amount: int
    balance: int
    message_id: UUID | None
    reason: str | None


def statement(user_id: UUID, before: int | None, limit: int) -> list[StatementRow]:
    """At most `limit` of a user's entries, those right before the entry `before`, newest first.

    Raises `ReadModelParked`.
    """
    # What is parked first: if a rebuild swaps the rows in between, the page is whole all the same.
    _refuse_parked(user_id)
    bound = ENTRY_MAX if before is None else before
    rows = every(STATEMENT, [user_id, bound, limit])
    texts = read_texts([row[6] for row in rows])
    return [
        StatementRow(
            entry,
            to_datetime(at),
            kind,
            amount,
            balance,
            None if message_id is None else as_uuid(message_id),
            text if code is None else code,
        )
        for (entry, at, kind, amount, balance, message_id, _, code), text in zip(
            rows, texts, strict=True
        )
    ]


def balance_at(user_id: UUID, at: int) -> int:
    """A user's tokens after all that happened up to `at` (microseconds since the epoch, UTC).

    They are none before the first entry, and also before the user registered. Raises
    `ReadModelParked`.
    """
    _refuse_parked(user_id)
    row = one(BALANCE_AT, [user_id, user_id, at, user_id])
    return 0 if row is None else int(row[0])


def _refuse_parked(user_id: UUID) -> None:
    row = one(PARKED, [user_id])
    if row is not None and row[0] is not None:
        raise ReadModelParked("statement", user_id, row[0])


PARKED = f"SELECT {ERROR} FROM projections_pointer pointer WHERE pointer.name = 'statement'"  # noqa: S608 (constants)

STATEMENT = f"""
SELECT entry, at, kind, amount, balance, message_id, reason, code FROM projections_statement
WHERE generation = {live("statement")} AND user_id = %s AND entry < %s
ORDER BY entry DESC LIMIT %s"""  # noqa: S608 (constants)

# Entries are numbered without a gap, and their times never go back: so the last one up to an
# instant is found by halving. It is one of `low` to `low + size`; 0 stands for none.
BALANCE_AT = f"""
WITH RECURSIVE search(low, size) AS (
  SELECT CAST(0 AS bigint), coalesce(
    (SELECT entry FROM projections_statement
     WHERE generation = {live("statement")} AND user_id = %s ORDER BY entry DESC LIMIT 1), 0)
  UNION ALL
  SELECT low + CASE WHEN
           (SELECT at FROM projections_statement
            WHERE generation = {live("statement")} AND user_id = %s
              AND entry = low + (size + 1) / 2) <= %s
         THEN (size + 1) / 2 ELSE 0 END, size / 2
  FROM search WHERE size > 0)
SELECT balance FROM projections_statement
WHERE generation = {live("statement")} AND user_id = %s
  AND entry = (SELECT low FROM search WHERE size = 0)"""  # noqa: S608 (constants)
