"""Whether credentials and users' keys are what the log says of them: no seal covers either."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any
from uuid import UUID

from django.db import connection

from accounts.domain import (
    JwtsRevoked,
    PasswordChanged,
    RoleChanged,
    UserActivated,
    UserDeactivated,
    UserErased,
    UsernameClaimed,
    UserRegistered,
)
from audit.one_instant import one_instant
from audit.stored import UNREADABLE, bounded, stored_id
from eventstore.keys import NAMES_KEY_ID
from eventstore.log import event_log
from eventstore.reading import READ_MAX, RecordedEvent, each_of_topics

#: What changes a credential or a user's key, in the same transaction.
EVENTS = (
    *(UserRegistered, UsernameClaimed, RoleChanged, UserDeactivated, UserActivated),
    *(PasswordChanged, JwtsRevoked, UserErased),
)
_TOPICS = frozenset(event.TOPIC for event in EVENTS)
#: The columns of a credential that the log decides, apart from the name's claim.
_DECIDED = ("role", "active", "jwt_epoch")


class _Account:
    """A user by the log: the fields that the events set, and whether their key was met."""

    __slots__ = (
        *_DECIDED,
        *("claim_id", "default_conversation_id", "erased", "has_key", "tokens"),
    )

    def __init__(self) -> None:
        self.claim_id: UUID | None = None
        self.erased = self.has_key = False


class _Accounts:
    """Every account of the log, folded from the events that matter here, without any text."""

    def __init__(self) -> None:
        self.by_user: dict[UUID, _Account] = {}
        self.unreadable: list[str] = []
        self._claims: dict[UUID, UUID] = {}
        self._log = event_log()
        for event in each_of_topics(_TOPICS):
            try:
                self._apply(event)
            except UNREADABLE:
                self.unreadable.append(f"credentials: event {event.position} cannot be read")
        for user_id, claim_id in self._claims.items():
            if user_id in self.by_user:
                self.by_user[user_id].claim_id = claim_id

    def _apply(self, recorded: RecordedEvent) -> None:
        event = self._log.with_texts_closed(recorded)
        if isinstance(event, UsernameClaimed):
            self._claims[event.user_id] = event.originator_id
            return
        if isinstance(event, UserRegistered):
            self.by_user[event.originator_id] = _Account()
        account = self.by_user.get(event.originator_id)
        if account is not None:
            event.apply(account)


def compare_credentials() -> list[str]:
    """Name each user whose credential or key is not what the log says of them.

    A credential and a key for each account that is not erased, and for no other; the hash of the
    password is nowhere in the log. Nothing is decrypted or written, and all of it is seen as it was
    at one instant, unless the caller has a transaction.
    """
    with nullcontext() if connection.in_atomic_block else one_instant():
        accounts = _Accounts()
        found = defaultdict(list)
        names_key = _meet_keys(accounts.by_user)
        for user_id, difference in _differences(accounts.by_user):
            found[user_id].append(difference)
    lines = accounts.unreadable
    if accounts.by_user and not names_key:
        lines.append("credentials: the key of the names is missing")
    lines += [
        f"credentials: user_id {user_id}: {'; '.join(found[user_id])}"
        for user_id in sorted(found, key=str)
    ]
    return bounded(lines, "credentials")


def _meet_keys(accounts: dict[UUID, _Account]) -> bool:
    """Note whose key is there; returns whether that of the names is."""
    names_key = False
    for (stored,) in _rows(
        "SELECT id FROM eventstore_datakey WHERE wrapped_by IS NULL AND wrapped IS NOT NULL"
    ):
        key_id = stored_id(stored)
        names_key = names_key or key_id == NAMES_KEY_ID
        if key_id in accounts:
            accounts[key_id].has_key = True
    return names_key


def _differences(accounts: dict[UUID, _Account]) -> Iterator[tuple[Any, str]]:
    with_credential = set()
    for stored, *columns in _rows(
        f"SELECT user_id, claim_id, {', '.join(_DECIDED)} FROM accounts_credential"  # noqa: S608 (constants)
    ):
        user_id = stored_id(stored)
        account = accounts.get(user_id) if user_id else None
        if user_id is None or account is None:
            yield user_id or repr(stored), "the log has no such account, and it has a credential"
        elif account.erased:
            yield user_id, "it is erased, and has a credential"
        else:
            with_credential.add(user_id)
            yield from ((user_id, each) for each in _unlike(account, *columns))
    for user_id, account in accounts.items():
        if account.erased and account.has_key:
            yield user_id, "it is erased, and has a key"
        elif not account.erased and not account.has_key:
            yield user_id, "it has no key"
        if not account.erased and user_id not in with_credential:
            yield user_id, "it has no credential"


def _unlike(account: _Account, claim: Any, *decided: Any) -> Iterator[str]:
    stored = dict(zip(_DECIDED, decided, strict=True), claim_id=stored_id(claim) or claim)
    for name, value in stored.items():
        by_the_log = getattr(account, name)
        if value != by_the_log:
            yield f"{name} is {_shown(value)}, by the log {_shown(by_the_log)}"


def _rows(statement: str) -> Iterator[tuple[Any, ...]]:
    with connection.chunked_cursor() as cursor:
        cursor.execute(statement)
        while page := cursor.fetchmany(READ_MAX):
            yield from page


def _shown(value: object) -> str:
    return str(value) if isinstance(value, UUID) else repr(value)
