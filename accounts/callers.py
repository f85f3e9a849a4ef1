"""Who a request comes from: its JWT, and what the database says of its account at that moment.

The accounts of all requests that come while some are being read are read together, once
(`eventstore.shared_reads`), and with them what such requests want to know beside their callers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.http import HttpRequest
from ninja.security import HttpBearer
from structlog.contextvars import bind_contextvars

from accounts.domain import STAFF
from accounts.jwt_auth import Caller, Login, find_callers, read_jwt
from accounts.rate_limits import SEND
from eventstore.shared_reads import SharedReads
from projections import queries


class NotAuthenticated(Exception):
    """The request brings no JWT."""


class InvalidJwt(Exception):
    """The request brings a JWT that is not good, or not good any more."""


class NotStaff(Exception):
    """The caller is no member of staff."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that says who it comes from, in words that were signed here."""

    request: HttpRequest
    login: Login


class BearerJwt(HttpBearer):
    """`Authorization: Bearer <JWT>` (RFC 6750); raises `NotAuthenticated` or `InvalidJwt`."""

    openapi_bearerFormat = "JWT"  # noqa: N815 (Ninja copies the name into the document)

    def __init__(self) -> None:
        super().__init__()
        self._callers = SharedReads(self.look_up)

    async def __call__(self, request: HttpRequest) -> Caller:
        scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        token = credentials.strip(" ")
        if scheme.lower() != self.openapi_scheme or not token:
            raise NotAuthenticated
        return await self.authenticate(request, token)

    async def authenticate(self, request: HttpRequest, token: str) -> Caller:
        """Return the caller; a JWT that was not issued here does not get as far as a thread."""
        login = read_jwt(token)
        if login is None:
            raise InvalidJwt
        caller = await self._callers.ask(Asked(request, login))
        bind_contextvars(user_id=caller.user_id)
        return caller

    def look_up(self, asked: Sequence[Asked]) -> list[Caller | Exception]:
        """Return the callers, out of the database, or what is to be raised for them.

        What a request wants to know beside its caller is read here too: once a thread reads the
        database anyway, a second statement for all of them costs next to nothing.
        """
        callers = find_callers([each.login for each in asked])
        return [InvalidJwt() if caller is None else caller for caller in callers]


class SenderJwt(BearerJwt):
    """The same for who sends a message; raises `RateLimited` for who does so too often."""

    def look_up(self, asked: Sequence[Asked]) -> list[Caller | Exception]:
        """Look up the callers, and count the sends of those who are good."""
        found = super().look_up(asked)
        good = [number for number, caller in enumerate(found) if isinstance(caller, Caller)]
        refusals = SEND.take_each(
            [(asked[number].request, str(asked[number].login.user_id)) for number in good]
        )
        for number, refusal in zip(good, refusals, strict=True):
            if refusal is not None:
                found[number] = refusal
        return found


class BalanceJwt(BearerJwt):
    """The same for who wants to see a balance, which is noted as `request.balance`."""

    def look_up(self, asked: Sequence[Asked]) -> list[Caller | Exception]:
        """Look up the callers, and then their balances."""
        found = super().look_up(asked)
        balances = queries.balances({each.login.user_id for each in asked})
        for each in asked:
            each.request.balance = balances.get(each.login.user_id)  # type: ignore[attr-defined]  # ApiRequest
        return found


class StaffJwt(BearerJwt):
    """The same for what only staff may do; raises `NotStaff` for all others."""

    async def authenticate(self, request: HttpRequest, token: str) -> Caller:
        caller = await super().authenticate(request, token)
        if caller.role != STAFF:
            raise NotStaff
        return caller
