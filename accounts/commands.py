"""Commands on accounts: each loads, asks the domain, and appends once."""

from dataclasses import dataclass, field
from typing import Any, Never
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import IntegrityError as DatabaseIntegrityError
from eventsourcing.persistence import IntegrityError

from accounts.domain import Account, AccountErased, UsernameClaim
from accounts.jwt_auth import issue_jwt
from accounts.models import Credential
from accounts.names import claim_id
from accounts.passwords import hash_password, is_outdated, is_password
from eventstore import keys
from eventstore.cause import Cause
from eventstore.database import writing
from eventstore.decisions import decide
from eventstore.domain import Refused
from eventstore.log import event_log, one_at_a_time, transaction_with_log


class UsernameTaken(Refused):
    """Somebody has, or had, this name or one that casefolds to it."""


class UserNotFound(Refused):
    """There is no such user."""


class WeakPassword(Refused):
    """The password is refused; `messages` say why."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__(" ".join(messages))
        self.messages = messages


class WrongCredentials(Refused):
    """The name or the password is wrong, or the account is deactivated: nobody is told which."""


class WrongPassword(Refused):
    """The current password is another one."""


@dataclass(frozen=True)
class RegisterUser:
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Registered:
    user_id: UUID
    username: str
    tokens: int
    position: int


@dataclass(frozen=True)
class LogIn:
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class LoggedIn:
    user_id: UUID
    jwt: str = field(repr=False)
    expires_in: int


@dataclass(frozen=True)
class ChangePassword:
    user_id: UUID
    current_password: str = field(repr=False)
    new_password: str = field(repr=False)


@dataclass(frozen=True)
class RevokeJwts:
    user_id: UUID


def register_user(command: RegisterUser, cause: Cause) -> Registered:
    """Open an account with its name, credential, keys and signup grant, all of it or nothing.

    Raises `UsernameTaken` and `WeakPassword`.
    """
    _refuse_weak(command.password, command.username)
    name_claim = claim_id(command.username)
    if Credential.objects.filter(claim_id=name_claim).exists():
        # Only a shortcut before the costly hash: the claim below is what decides.
        raise UsernameTaken(command.username)
    password_hash = hash_password(command.password)
    user_id, conversation_id = uuid4(), uuid4()
    try:
        with transaction_with_log():
            keys.create_key(user_id)
            keys.create_key(conversation_id, wrapped_by=user_id)
            Credential.objects.create(
                user_id=user_id, claim_id=name_claim, password_hash=password_hash
            )
            account = Account.register(
                user_id,
                username=command.username,
                default_conversation_id=conversation_id,
                grant=settings.SIGNUP_TOKENS,
            )
            claim = UsernameClaim.claim(name_claim, user_id=user_id)
            position = event_log().append(claim, account, cause=cause)
    except (IntegrityError, DatabaseIntegrityError) as error:
        raise UsernameTaken(command.username) from error
    return Registered(user_id, command.username, account.tokens, position)


def log_in(command: LogIn) -> LoggedIn:
    """Check a name and a password and issue a JWT. Raises `WrongCredentials`.

    It hashes once whatever is wrong, so that the time says nothing about the name. A hash that was
    made with other parameters than today's is replaced.
    """
    credential = Credential.objects.filter(claim_id=claim_id(command.username)).first()
    if credential is None:
        hash_password(command.password)
        raise WrongCredentials
    before = credential.password_hash
    if not is_password(command.password, before) or not credential.active:
        raise WrongCredentials
    if is_outdated(before):
        # Of two who change it at once the other one wins: this is the same password.
        _replace_hash(credential.user_id, before, hash_password(command.password))
    jwt = issue_jwt(credential.user_id, credential.jwt_epoch)
    return LoggedIn(credential.user_id, jwt, settings.JWT_LIFETIME_MINUTES * 60)


def change_password(command: ChangePassword, cause: Cause) -> int:
    """Set another password; every JWT issued before stops working. Returns the position.

    Raises `WrongPassword`, `WeakPassword` and `AccountErased`.
    """
    _refuse_weak(command.new_password)
    before = Credential.objects.filter(user_id=command.user_id).first()
    if before is None:
        raise AccountErased
    if not is_password(command.current_password, before.password_hash):
        raise WrongPassword
    password_hash = hash_password(command.new_password)

    def decision(*, fresh: bool) -> int:
        account = _own_account(command.user_id, fresh=fresh)
        account.change_password()
        with transaction_with_log():
            # Of two changes that checked the same old password, one must lose.
            changed = Credential.objects.filter(
                user_id=command.user_id, password_hash=before.password_hash
            ).update(password_hash=password_hash, jwt_epoch=account.jwt_epoch)
            if not changed:
                raise WrongPassword
            return event_log().append(account, cause=cause)

    with one_at_a_time(command.user_id):
        return decide(decision)


def revoke_jwts(command: RevokeJwts, cause: Cause) -> int:
    """Make every JWT issued before stop working. Returns the position. Raises `AccountErased`."""

    def decision(*, fresh: bool) -> int:
        account = _own_account(command.user_id, fresh=fresh)
        account.revoke_jwts()
        with transaction_with_log():
            Credential.objects.filter(user_id=command.user_id).update(jwt_epoch=account.jwt_epoch)
            return event_log().append(account, cause=cause)

    with one_at_a_time(command.user_id):
        return decide(decision)


def load_account(user_id: UUID, *, fresh: bool) -> Account:
    """The account that a command is about. Raises `UserNotFound`."""
    account = event_log().find(Account, user_id, fresh=fresh)
    if account is None or account.erased:
        raise UserNotFound(str(user_id))
    return account


def _own_account(user_id: UUID, *, fresh: bool) -> Account:
    """The account of whoever gives the command. Raises `AccountErased`, if it was meanwhile."""
    try:
        return load_account(user_id, fresh=fresh)
    except UserNotFound:
        raise AccountErased from None


def _replace_hash(user_id: UUID, before: str, after: str) -> None:
    with writing():
        Credential.objects.filter(user_id=user_id, password_hash=before).update(password_hash=after)


class _Named:
    """What Django's check for likeness to a name asks of a user."""

    class _meta:  # noqa: N801 (Django's own name)
        @staticmethod
        def get_field(name: str) -> Never:
            raise FieldDoesNotExist(name)

    def __init__(self, username: str) -> None:
        self.username = username


def _refuse_weak(password: str, username: str = "") -> None:
    user: Any = _Named(username)
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise WeakPassword(list(error.messages)) from error
