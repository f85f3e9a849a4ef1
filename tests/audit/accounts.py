"""Accounts to which everything has happened that changes a credential or a key."""

from uuid import UUID

from accounts.commands import (
    ChangePassword,
    RegisterUser,
    RevokeJwts,
    change_password,
    register_user,
    revoke_jwts,
)
from accounts.staff_commands import (
    ActivateUser,
    DeactivateUser,
    SetRole,
    activate_user,
    deactivate_user,
    set_role,
)
from eventstore.cause import Cause
from privacy.erasure import EraseUser, erase_user

CAUSE = Cause("shell:test")
PASSWORD = "correct horse battery"


def register(name: str) -> UUID:
    """A user who may log in."""
    return register_user(RegisterUser(name, PASSWORD), CAUSE).user_id


def live_through(user: UUID) -> None:
    """Seven changes, to staff with the epoch 3; the account's versions go from 3 to 9."""
    change_password(ChangePassword(user, PASSWORD, PASSWORD[::-1]), CAUSE)
    deactivate_user(DeactivateUser(user), CAUSE)
    activate_user(ActivateUser(user), CAUSE)
    set_role(SetRole(user, "staff"), CAUSE)
    set_role(SetRole(user, "member"), CAUSE)
    set_role(SetRole(user, "staff", "once more"), CAUSE)
    revoke_jwts(RevokeJwts(user), CAUSE)


def erase(user: UUID) -> None:
    """Forget a user."""
    erase_user(EraseUser(user), CAUSE)
