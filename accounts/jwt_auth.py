"""JWTs: issued at login, and believed only while the account's credential agrees."""

import contextlib
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import jwt
from django.conf import settings
from django.http import HttpRequest

from accounts.models import Credential
from accounts.rate_limits import Standing
from eventstore.direct import execute
from eventstore.reading import any_of, as_uuid
from projections.queries import ReadModelParked

#: A JWT of ours has some 400 bytes; nothing longer is looked at.
JWT_BYTES_MAX = 4096
#: How far ahead the clock of another host that issued a JWT may be.
CLOCK_SKEW_SECONDS = 5
#: JWTs whose signature need not be computed again.
VERIFIED_MAX = 10_000

ALGORITHM = "HS256"
ISSUER = AUDIENCE = "chatledger"
USE = "login"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from, as its JWT and its credential agree."""

    user_id: UUID
    role: str

    @property
    def actor(self) -> str:
        """The caller as the log names it."""
        return f"user:{self.user_id}"

    @property
    def staff_actor(self) -> str:
        """The caller as the log names it for what only staff may do."""
        return f"staff:{self.user_id}"


class ApiRequest(HttpRequest):
    """A request as an endpoint sees it: with its ids, and with its caller where one is needed.

    `balance` is there where `BalanceJwt` read it with the caller: an error is to be raised.

    `headers_only`: it is a HEAD that looks like a GET, so nothing of the body reaches the client.
    """

    request_id: str
    shown_request_id: str
    headers_only: bool
    auth: Caller
    rate_limit: Standing
    balance: int | ReadModelParked | None


def issue_jwt(user_id: UUID, epoch: int) -> str:
    """Return a JWT that is good for a login until it expires or the account's epoch moves on."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "use": USE,
        "sub": str(user_id),
        "jti": uuid4().hex,
        "iat": now,
        "exp": now + settings.JWT_LIFETIME_MINUTES * 60,
        "epoch": epoch,
    }
    return _jwt.encode(claims, settings.JWT_SIGNING_KEY, algorithm=ALGORITHM)


def authenticate_jwt(token: str) -> Caller | None:
    """Return whom a JWT speaks for, or None; one read by primary key, and so never out of date."""
    login = read_jwt(token)
    return None if login is None else find_callers([login])[0]


@dataclass(frozen=True, slots=True)
class Login:
    """What a JWT of ours says; whether it is good any more, only the account's credential knows."""

    user_id: UUID
    epoch: int
    expires_at: float


def read_jwt(token: str) -> Login | None:
    """Return what a JWT says if it was issued here and has not expired; reads no database."""
    keys = (settings.JWT_SIGNING_KEY, *settings.JWT_SIGNING_KEYS_PREVIOUS)
    try:
        login = _verify(token, keys)
    except (jwt.PyJWTError, ValueError, TypeError):
        # Beside its own errors PyJWT lets out what some hostile headers provoke.
        return None
    return None if login.expires_at <= time.time() else login


def find_callers(logins: Sequence[Login]) -> list[Caller | None]:
    """Return whom each login speaks for, None where the credential disagrees; one statement."""
    condition, values = any_of({login.user_id for login in logins})
    rows = execute(
        f"SELECT user_id, jwt_epoch, active, role FROM {_TABLE} WHERE user_id {condition}",  # noqa: S608 (constants)
        values,
    )
    credentials = {as_uuid(user_id): rest for user_id, *rest in rows}
    return [_caller(login, credentials.get(login.user_id)) for login in logins]


def _caller(login: Login, credential: Sequence[Any] | None) -> Caller | None:
    if credential is None:
        return None
    epoch, active, role = credential
    return Caller(login.user_id, role) if active and epoch == login.epoch else None


@functools.lru_cache(VERIFIED_MAX)
def _verify(token: str, keys: tuple[bytes, ...]) -> Login:
    """Return what a JWT of ours says; it stays true until it expires. Refusals are not kept."""
    if len(token) > JWT_BYTES_MAX:
        raise jwt.InvalidTokenError("too long")
    claims = _decode(token, keys)
    issued_at, epoch = claims["iat"], claims["epoch"]
    if claims["use"] != USE or type(issued_at) is not int or type(epoch) is not int:
        raise jwt.InvalidTokenError("not a login of ours")
    if issued_at > time.time() + CLOCK_SKEW_SECONDS:
        raise jwt.ImmatureSignatureError("not valid yet")
    return Login(UUID(claims["sub"]), epoch, float(claims["exp"]))


def _decode(token: str, keys: tuple[bytes, ...]) -> dict[str, Any]:
    for key in keys:
        with contextlib.suppress(jwt.InvalidSignatureError):
            return _jwt.decode(token, key, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER)
    raise jwt.InvalidSignatureError("signed with another key")


_TABLE = Credential._meta.db_table  # noqa: SLF001 (public but for its name)
_jwt = jwt.PyJWT(
    options={
        "require": ["exp", "iat", "sub", "jti", "aud", "iss", "use", "epoch"],
        # Checked here instead: hosts' clocks differ, and PyJWT's leeway would also move `exp`.
        "verify_iat": False,
        "strict_aud": True,
        "enforce_minimum_key_length": True,
    }
)
