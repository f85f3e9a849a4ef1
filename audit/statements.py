"""A user's statement out of the log alone, and whether the read models say the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from accounts.names import AmbiguousUser, claim_id, whom
from eventstore import keys
from eventstore.encrypted import EncryptedText
from eventstore.instants import rfc3339, settle
from eventstore.reading import (
    READ_MAX,
    RecordedEvent,
    as_uuid,
    clock_now,
    each_of_stream,
    max_position,
)
from projections.queries.parked import ERROR
from projections.queries.statements import every, one

#: How often rows are read again when rebuilt ones are swapped in meanwhile.
TRIES_MAX = 3

REGISTERED = "chatledger.accounts.UserRegistered"
CLAIMED = "chatledger.accounts.UsernameClaimed"
ERASED = "chatledger.accounts.UserErased"
#: What moves a balance: the word for it, and its sign.
MOVEMENTS = {
    "chatledger.accounts.TokensGranted": ("granted", 1),
    "chatledger.accounts.TokensDebited": ("debited", -1),
    "chatledger.accounts.TokensRefunded": ("refunded", 1),
}


class CannotAudit(Exception):
    """There is nothing to show; the text is one line that says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """A movement of tokens: the event at `position`, and the balance after it.

    `reason` is a grant's text or a refund's code, `stored_reason` the text as it stands in the log.
    """

    position: int
    entry: int
    at: int
    kind: str
    amount: int
    balance: int
    message_id: UUID | None
    reason: str | None
    stored_reason: bytes | None


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the log has it, the oldest line first; times in microseconds, UTC.

    A read model that has come to `erased_position` has no row of it any more.
    """

    user_id: UUID
    username: str
    registered_at: int
    registered_position: int
    erased_position: int | None
    lines: list[Line]

    def is_shown_at(self, position: int) -> bool:
        """Whether a read model at this position has rows of the account."""
        erased = self.erased_position is not None and self.erased_position <= position
        return self.registered_position <= position and not erased

    def last_line(self, *, position: int | None = None, at: int | None = None) -> Line | None:
        """The last line up to a position, or up to a time."""
        for line in reversed(self.lines):
            if (position is None or line.position <= position) and (at is None or line.at <= at):
                return line
        return None


@dataclass(frozen=True, slots=True)
class Audit:
    """An account, its balance at a time, and what the read models say otherwise.

    `positions` are where the read models stand; what is behind those was not compared.
    """

    account: Account
    at: int
    last_line: Line | None
    positions: dict[str, int]
    differences: list[str]

    @property
    def balance(self) -> int:
        return self.last_line.balance if self.last_line else 0


def audit(user: str, at: int | None = None) -> Audit:
    """Read a user's account, by id or by name, and compare the read models with it.

    `at` is the time of the balance, by default now. Raises `CannotAudit`, and `InTheFuture`.
    """
    if at is not None:
        settle(at)
    user_id = find_user(user)
    # The read models before the log: so the log is never behind them.
    shown: list[_ShownBalance | _ShownStatement]
    shown = [_shown_balance(user_id), _shown_statement(user_id)]
    account = read_account(user_id)
    if at is None:
        at = max(clock_now(), account.registered_at, *(line.at for line in account.lines[-1:]))
    elif at < account.registered_at:
        raise CannotAudit(f"the account was opened at {rfc3339(account.registered_at)}, not before")
    return Audit(
        account,
        at,
        account.last_line(at=at),
        positions={each.name: each.position for each in shown},
        differences=[line for each in shown for line in each.differences(account)],
    )


def find_user(user: str) -> UUID:
    """The id of a user who is named by it or by their name, as `accounts.names.whom` has it.

    A name leads to its user for ever, also when the user has been erased. Raises `CannotAudit`.
    """
    try:
        found = whom(user, with_id=_registered, with_name=_claimed)
    except AmbiguousUser as error:
        raise CannotAudit(str(error)) from error
    if found is None:
        raise CannotAudit(f"there is no user {user!r}")
    return found


def _registered(user_id: UUID) -> UUID | None:
    return user_id if _first_of(user_id, REGISTERED) else None


def _claimed(username: str) -> UUID | None:
    # No name is taken in an empty log, and to ask would make the secret that names need.
    claim = _first_of(claim_id(username), CLAIMED) if max_position() else None
    return UUID(claim.data["user_id"]) if claim else None


def read_account(user_id: UUID) -> Account:
    """An account from its stream, a page of events at a time. Raises `CannotAudit`."""
    events = each_of_stream(user_id)
    registered = next(events)
    lines: list[Line] = []
    balance = 0
    erased_position = None
    for page in _pages(event for event in events if event.topic in {*MOVEMENTS, ERASED}):
        texts = keys.decrypt_all([_text_of(event) for event in page])
        for event, text in zip(page, texts, strict=True):
            if event.topic == ERASED:
                erased_position = event.position
                continue
            try:
                line = _line(event, text, entry=len(lines) + 1, balance=balance)
            except (KeyError, TypeError, ValueError) as error:
                raise CannotAudit(
                    f"event {event.position} ({event.topic}) does not say what it should: {error!r}"
                ) from error
            lines.append(line)
            balance = line.balance
    (username,) = keys.decrypt_all([registered.data["username"]])
    return Account(
        user_id, username or "", registered.at, registered.position, erased_position, lines
    )


def _line(event: RecordedEvent, text: str | None, *, entry: int, balance: int) -> Line:
    kind, sign = MOVEMENTS[event.topic]
    data, sealed = event.data, _text_of(event)
    amount, message_id = data["amount"], data.get("message_id")
    return Line(
        event.position,
        entry,
        event.at,
        kind,
        amount,
        balance + sign * amount,
        None if message_id is None else UUID(message_id),
        data.get("reason") if sealed is None else text,
        None if sealed is None else sealed.pack(),
    )


def _text_of(event: RecordedEvent) -> EncryptedText | None:
    reason = event.data.get("reason")
    return reason if isinstance(reason, EncryptedText) else None


def _pages(events: Iterator[RecordedEvent]) -> Iterator[list[RecordedEvent]]:
    page: list[RecordedEvent] = []
    for event in events:
        page.append(event)
        if len(page) == READ_MAX:
            yield page
            page = []
    yield page


def _first_of(stream_id: UUID, topic: str) -> RecordedEvent | None:
    first = next(each_of_stream(stream_id), None)
    return first if first is not None and first.topic == topic else None


@dataclass(frozen=True, slots=True)
class _ShownBalance:
    """What the read model `balances` shows, and where it stands."""

    position: int
    error: str | None
    amount: int | None
    name: str = "balances"

    def differences(self, account: Account) -> Iterator[str]:
        if self.error is not None:
            yield f"{self.name}: the account is parked: {self.error}"
            return
        by_the_log = None
        if account.is_shown_at(self.position):
            last = account.last_line(position=self.position)
            by_the_log = last.balance if last else 0
        if self.amount != by_the_log:
            yield f"{self.name}: amount is {_said(self.amount)}, by the log {_said(by_the_log)}"


@dataclass(frozen=True, slots=True)
class _ShownStatement:
    """What the read model `statement` shows, by position, and where it stands."""

    position: int
    error: str | None
    rows: dict[int, tuple[Any, ...]]
    name: str = "statement"

    def differences(self, account: Account) -> Iterator[str]:
        if self.error is not None:
            yield f"{self.name}: the account is parked: {self.error}"
            return
        left = dict(self.rows)
        lines = account.lines if account.is_shown_at(self.position) else []
        for line in lines:
            if line.position > self.position:
                break
            where = f"{self.name}: entry {line.entry} (position {line.position})"
            row = left.pop(line.position, None)
            if row is None:
                yield f"{where} is missing"
            elif said := _other_than(line, row):
                yield f"{where}: {said}"
        erased = lines != account.lines
        why = "is still there, by the log the account is erased" if erased else "is not in the log"
        for position, row in sorted(left.items()):
            yield f"{self.name}: entry {row[0]} (position {position}) {why}"


def _shown_balance(user_id: UUID) -> _ShownBalance:
    position, error, amount = one(_BALANCE, [user_id, user_id]) or (0, None, None)
    return _ShownBalance(position, error, amount)


def _shown_statement(user_id: UUID) -> _ShownStatement:
    for _ in range(TRIES_MAX):
        generation, position, error = one(_PLACE, [user_id]) or (0, 0, None)
        rows: dict[int, tuple[Any, ...]] = {}
        entry = 0
        # What has come since the position was read is not compared.
        while page := every(_ROWS, [generation, user_id, entry, position, READ_MAX]):
            rows.update((row[0], row[1:]) for row in page)
            entry = page[-1][1]
        if generation == (one(_PLACE, [user_id]) or (0,))[0]:
            return _ShownStatement(position, error, rows)
        # Rebuilt rows were swapped in meanwhile, and these may have been removed already.
    raise CannotAudit("the read model statement is being rebuilt: try again")


def _other_than(line: Line, row: tuple[Any, ...]) -> str:
    entry, at, kind, amount, balance, message_id, reason, code = row
    is_text = line.stored_reason is not None
    pairs = {
        "entry": (entry, line.entry),
        "at": (_time(at), _time(line.at)),
        "kind": (kind, line.kind),
        "amount": (amount, line.amount),
        "balance": (balance, line.balance),
        "message_id": (None if message_id is None else as_uuid(message_id), line.message_id),
        "code": (code, None if is_text else line.reason),
    }
    said = [
        f"{name} is {_said(shown)}, by the log {_said(by_the_log)}"
        for name, (shown, by_the_log) in pairs.items()
        if shown != by_the_log
    ]
    # An erased text may be gone from a row.
    stored = None if reason is None else bytes(reason)
    if stored != line.stored_reason and line.reason != keys.ERASED:
        said.append("reason is another text than in the log")
    return "; ".join(said)


def _time(microseconds: int) -> str:
    try:
        return rfc3339(microseconds)
    except (OverflowError, ValueError):  # a row may hold any number
        return str(microseconds)


def _said(value: object) -> str:
    return "nothing" if value is None else str(value)


_LIVE = """
FROM projections_pointer pointer JOIN projections_position place
  ON place.name = pointer.name AND place.generation = pointer.generation"""

# In one statement, so that the amount is the one at that position.
_BALANCE = f"""
SELECT place.position, {ERROR},
  (SELECT amount FROM projections_balances balance
   WHERE balance.generation = pointer.generation AND balance.user_id = %s)
{_LIVE} WHERE pointer.name = 'balances'"""  # noqa: S608 (constants)

_PLACE = f"""
SELECT pointer.generation, place.position, {ERROR}
{_LIVE} WHERE pointer.name = 'statement'"""

_ROWS = """
SELECT position, entry, at, kind, amount, balance, message_id, reason, code
FROM projections_statement
WHERE generation = %s AND user_id = %s AND entry > %s AND position <= %s
ORDER BY entry LIMIT %s"""
