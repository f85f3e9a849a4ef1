"""Commands of staff and of the shell on other people's accounts; each appends once.

They are rare, and a repeat appends nothing: so no conflict would tell that what this process
remembers is out of date. They decide on fresh state, under the append lock.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from accounts.commands import load_account
from accounts.domain import Account
from accounts.grants import Grant
from accounts.models import Credential
from eventstore.cause import Cause
from eventstore.database import guarded
from eventstore.decisions import decide
from eventstore.domain import Refused
from eventstore.log import event_log, one_at_a_time, transaction_with_log
from eventstore.reading import max_position

R = TypeVar("R")

#: Who gives what is granted in a shell: all who work there share their keys.
SHELL = uuid5(NAMESPACE_URL, "chatledger:shell")

#: The read models that show a grant.
SHOWING_GRANT = ("balances", "statement")


class GrantKeyReused(Refused):
    """The key belongs to a grant to another user, of another amount or for another reason."""


@dataclass(frozen=True)
class GrantTokens:
    """`amount` in tokens, 1 to `GRANT_TOKENS_MAX`."""

    grant_id: UUID
    user_id: UUID
    amount: int
    reason: str = field(repr=False)


@dataclass(frozen=True)
class Granted:
    """The grant is in the log; `repeated` when an earlier command made it. `balance` is today's."""

    balance: int
    position: int
    repeated: bool


@dataclass(frozen=True)
class SetRole:
    """`role` is one of `accounts.domain.ROLES`."""

    user_id: UUID
    role: str
    reason: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class DeactivateUser:
    user_id: UUID
    reason: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ActivateUser:
    user_id: UUID
    reason: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Changed:
    """The account is as it was to be; not `changed` when it had been so before."""

    changed: bool
    position: int


def grant_id_for(giver_id: UUID, idempotency_key: str | None) -> UUID:
    """The id of a grant: made from who gives it and their key, so that a repeat finds the first."""
    if idempotency_key is None:
        return uuid4()
    return uuid5(giver_id, f"grant:{idempotency_key}")


def grant_tokens(command: GrantTokens, cause: Cause) -> Granted:
    """Give tokens for a reason, once whatever the number of repeats.

    Raises `UserNotFound` and `GrantKeyReused`.
    """
    user_id, amount, reason = command.user_id, command.amount, command.reason

    def decision() -> Granted:
        log = event_log()
        account = load_account(user_id, fresh=True)
        made = log.find(Grant, command.grant_id)
        if made is not None:
            if not made.gives(user_id=user_id, amount=amount, reason=reason):
                raise GrantKeyReused("the key belongs to another grant")
            return Granted(account.tokens, max_position(), repeated=True)
        account.grant(amount, reason=reason, grant_id=command.grant_id)
        grant = Grant.make(command.grant_id, user_id=user_id, amount=amount, reason=reason)
        # The grant comes last: whoever finds it has the tokens behind it.
        position = log.append(account, grant, cause=cause)
        return Granted(account.tokens, position, repeated=False)

    return _decide(user_id, decision)


def set_role(command: SetRole, cause: Cause) -> Changed:
    """Make somebody staff, or a member again; it counts at their next request.

    Raises `UserNotFound`.
    """
    return _change(
        command.user_id,
        lambda account: account.change_role(command.role, reason=command.reason),
        cause,
    )


def deactivate_user(command: DeactivateUser, cause: Cause) -> Changed:
    """Stop a user's logins and, at the next request, every JWT issued before, for good.

    What is pending goes on to its end and is paid for. Raises `UserNotFound`.
    """
    return _change(
        command.user_id, lambda account: account.deactivate(reason=command.reason), cause
    )


def activate_user(command: ActivateUser, cause: Cause) -> Changed:
    """Let a deactivated user log in again. Raises `UserNotFound`."""
    return _change(command.user_id, lambda account: account.activate(reason=command.reason), cause)


def _change(user_id: UUID, change: Callable[[Account], None], cause: Cause) -> Changed:
    """Change an account, and its credential with it."""

    def decision() -> Changed:
        account = load_account(user_id, fresh=True)
        before = account.version
        change(account)
        if account.version == before:
            return Changed(changed=False, position=max_position())
        Credential.objects.filter(user_id=user_id).update(
            active=account.active, role=account.role, jwt_epoch=account.jwt_epoch
        )
        return Changed(changed=True, position=event_log().append(account, cause=cause))

    return _decide(user_id, decision)


def _decide(user_id: UUID, decision: Callable[[], R]) -> R:
    """Decide while nobody else writes; again when the connection was lost and the fate unknown."""

    def alone() -> R:
        with transaction_with_log():
            return decision()

    with one_at_a_time(user_id):
        # A second try finds what the first one may have written.
        return decide(lambda *, fresh: guarded(alone))
