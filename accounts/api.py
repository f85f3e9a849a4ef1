"""The HTTP side of accounts: registration, login, balance and the account itself."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from typing import Annotated, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpResponse
from ninja import P, QueryEx, Router, Status
from pydantic import WithJsonSchema

from accounts import commands, schemas
from accounts.addresses import client_address
from accounts.at_once import AtOnce
from accounts.callers import BalanceJwt
from accounts.domain import AccountErased
from accounts.guesses import claim_of, counted_guess
from accounts.jwt_auth import ApiRequest
from accounts.metrics import HASHES_WAITING
from accounts.models import Credential
from accounts.names import claim_id
from accounts.rate_limits import REGISTER
from eventstore.cause import Cause
from eventstore.clock import to_datetime
from eventstore.database import guarded, in_thread, while_it_answers
from eventstore.instants import parse_instant, rfc3339, settle
from projections import queries
from projections.progress import shown

C = TypeVar("C")
R = TypeVar("R")

PAGE_DEFAULT = 100
PAGE_MAX = 1000
#: Commands with a password at a time; most of their time they wait for their turn to hash.
PASSWORD_THREADS_MAX = 2
#: Requests that wait for their turn at that: more of them would wait for many seconds.
PASSWORDS_WAITING_MAX = 128
#: Of all these one address may have so many: half of the places are left to others.
PASSWORDS_AN_ADDRESS_MAX = 64

router = Router(tags=["accounts"])


_NEXT = {"Link": {"description": "the next page", "schema": {"type": "string"}}}
_InstantText = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
_INSTANT = P(
    description="a time with an offset (RFC 3339); a `+` in it is written `%2B`",
    example="2026-11-22T10:00:00Z",
)


class NotShownYet(Exception):
    """The read model does not show yet what the log holds."""


class BeforeRegistration(Exception):
    """The account did not exist then; `registered` is when it was opened, in microseconds."""

    def __init__(self, registered: int) -> None:
        super().__init__(f"the account was opened at {rfc3339(registered)}")
        self.registered = registered


class PasswordsBusy(Exception):
    """So many passwords are being checked that one more is not worth waiting for."""


@router.post(
    "/users/register/",
    auth=None,
    operation_id="register_user",
    summary="Register",
    response={201: schemas.Registered},
    openapi_extra={"responses": {409: {}, 429: {}}},
)
async def register_user(request: ApiRequest, body: schemas.Register) -> Status[schemas.Registered]:
    """Open an account with its signup grant."""
    command = commands.RegisterUser(username=body.username, password=body.password)
    registered = await in_password_thread(_register, request, command)
    await shown(registered.position, "users", "balances", "statement")
    answer = schemas.Registered(
        id=registered.user_id, username=registered.username, tokens=registered.tokens
    )
    return Status(201, answer)


@router.post(
    "/users/login/",
    auth=None,
    operation_id="log_in",
    summary="Log in",
    response=schemas.LoggedIn,
    openapi_extra={"responses": {401: {}, 429: {}}},
)
async def log_in(request: ApiRequest, body: schemas.LogIn) -> schemas.LoggedIn:
    """Get a JWT for a name and a password."""
    command = commands.LogIn(username=body.username, password=body.password)
    done = await in_password_thread(_log_in, request, command)
    return schemas.LoggedIn(token=done.jwt, expires_in=done.expires_in)


@router.get(
    "/users/",
    operation_id="list_users",
    summary="List users",
    response=list[schemas.User],
    openapi_extra={"responses": {200: {"headers": _NEXT}}},
)
async def list_users(
    request: ApiRequest,
    response: HttpResponse,
    limit: QueryEx[int, P(ge=1, le=PAGE_MAX, description="users a page")] = PAGE_DEFAULT,
    after: QueryEx[UUID | None, P(description="the last id of the page before")] = None,
) -> list[queries.UserRow]:
    """List all users, oldest first, a page at a time; `Link` leads to the next page."""
    page = await in_thread(queries.list_users, after, limit)
    if len(page) == limit:
        query = urlencode({"limit": limit, "after": page[-1].id})
        response["Link"] = f'<{request.path}?{query}>; rel="next"'
    return page


@router.get(
    "/users/me/", operation_id="get_own_account", summary="Show my account", response=schemas.Me
)
async def get_own_account(request: ApiRequest) -> schemas.Me:
    """Show the caller's own account."""
    caller = request.auth
    user, tokens = await in_thread(_user_and_balance, caller.user_id)
    return schemas.Me(
        id=user.id,
        username=user.username,
        created_at=user.created_at,
        tokens=tokens,
        role=caller.role,
    )


@router.post(
    "/users/password/",
    operation_id="change_password",
    summary="Change my password",
    response={204: None},
    openapi_extra={"responses": {429: {}}},
)
async def change_password(request: ApiRequest, body: schemas.ChangePassword) -> Status[None]:
    """Set another password. Every JWT issued before stops working."""
    caller = request.auth
    command = commands.ChangePassword(
        user_id=caller.user_id,
        current_password=body.current_password,
        new_password=body.new_password,
    )
    await in_password_thread(_change_password, request, command)
    return Status(204, None)


@router.post(
    "/users/logout/", operation_id="log_out", summary="Log out everywhere", response={204: None}
)
async def log_out(request: ApiRequest) -> Status[None]:
    """Make every JWT of the caller's stop working."""
    caller = request.auth
    cause = Cause(caller.actor, request.request_id)
    await in_thread(commands.revoke_jwts, commands.RevokeJwts(caller.user_id), cause)
    return Status(204, None)


@router.get(
    "/token/",
    auth=BalanceJwt(),
    operation_id="get_token_balance",
    summary="Show my balance",
    response=schemas.BalanceAt | schemas.Balance,
    openapi_extra={"responses": {404: {}}},
)
async def get_token_balance(
    request: ApiRequest, at: QueryEx[_InstantText | None, _INSTANT] = None
) -> schemas.Balance:
    """Show how many tokens the caller has, or had `at` a time since they registered."""
    if at is not None:
        return await _balance_at(request.auth.user_id, parse_instant(at))
    tokens = request.balance
    if isinstance(tokens, queries.ReadModelParked):
        raise tokens
    if tokens is None:
        raise NotShownYet
    return schemas.Balance(tokens=tokens)


@router.get(
    "/token/statement/",
    operation_id="get_statement",
    summary="Show my statement",
    response=list[schemas.StatementEntry],
    openapi_extra={"responses": {200: {"headers": _NEXT}}},
)
async def get_statement(
    request: ApiRequest,
    response: HttpResponse,
    limit: QueryEx[int, P(ge=1, le=PAGE_MAX, description="entries a page")] = PAGE_DEFAULT,
    before: QueryEx[
        int | None, P(ge=1, le=queries.ENTRY_MAX, description="an entry: those right before it")
    ] = None,
) -> list[queries.StatementRow]:
    """List what the caller's tokens came from and went to, newest first.

    `Link` leads to the next page. An entry's balance is the one after it.
    """
    rows = await in_thread(_statement, request.auth.user_id, before, limit + 1)
    page = rows[:limit]
    if len(rows) > limit:
        query = urlencode({"limit": limit, "before": page[-1].entry})
        response["Link"] = f'<{request.path}?{query}>; rel="next"'
    return page


async def _balance_at(user_id: UUID, at: int) -> schemas.BalanceAt:
    end = await in_thread(settle, at)
    # A balance of the past is the same whenever it is asked for: never one that is not yet shown.
    if not await shown(end, "users", "statement"):
        raise NotShownYet
    tokens = await in_thread(_balance_since_registration, user_id, at)
    return schemas.BalanceAt(tokens=tokens, at=to_datetime(at))


def _balance_since_registration(user_id: UUID, at: int) -> int:
    registered = queries.registered_at(user_id)
    if registered is None:
        # Erased since the JWT was looked at: the rows go with the event.
        raise NotShownYet if Credential.objects.filter(user_id=user_id).exists() else AccountErased
    if at < registered:
        raise BeforeRegistration(registered)
    return queries.balance_at(user_id, at)


def _statement(user_id: UUID, before: int | None, limit: int) -> list[queries.StatementRow]:
    rows = queries.statement(user_id, before, limit)
    if not rows and before is None and queries.balance(user_id) is None:
        raise NotShownYet
    return rows


def _user_and_balance(user_id: UUID) -> tuple[queries.UserRow, int]:
    user, tokens = queries.user(user_id), queries.balance(user_id)
    if user is None or tokens is None:
        raise NotShownYet
    return user, tokens


def _register(request: ApiRequest, command: commands.RegisterUser) -> commands.Registered:
    give_back = REGISTER.take(request, client_address(request))
    try:
        return commands.register_user(command, Cause("anonymous", request.request_id))
    except BaseException:
        give_back()
        raise


def _log_in(request: ApiRequest, command: commands.LogIn) -> commands.LoggedIn:
    with counted_guess(request, claim_id(command.username)):
        return commands.log_in(command)


def _change_password(request: ApiRequest, command: commands.ChangePassword) -> int:
    cause = Cause(request.auth.actor, request.request_id)
    with counted_guess(request, claim_of(command.user_id)):
        return commands.change_password(command, cause)


async def in_password_thread(
    function: Callable[[ApiRequest, C], R], request: ApiRequest, command: C
) -> R:
    """Run what hashes a password where it keeps no other request waiting.

    Raises `TooManyAtOnce` for an address that has its share waiting already, `PasswordsBusy` when
    all places are taken, and `StoreUnavailable` as `in_thread` does.
    """
    with ExitStack() as held:
        held.enter_context(passwords.one(client_address(request)))
        if not _places.acquire(blocking=False):
            raise PasswordsBusy
        held.callback(_places.release)
        call = partial(guarded, function, request, command)
        running = _password_threads.submit(copy_context().run, call)
        give_back = held.pop_all().close
    # Its place is taken until it has run, whether or not anybody still waits for it: so nobody
    # who gives up may cancel it.
    running.add_done_callback(lambda _: give_back())
    return await while_it_answers(asyncio.shield(asyncio.wrap_future(running)))


_password_threads = ThreadPoolExecutor(PASSWORD_THREADS_MAX, thread_name_prefix="password")
_places = threading.BoundedSemaphore(PASSWORD_THREADS_MAX + PASSWORDS_WAITING_MAX)
passwords = AtOnce("passwords", PASSWORDS_AN_ADDRESS_MAX)
HASHES_WAITING.set_function(_password_threads._work_queue.qsize)  # noqa: SLF001 (counting beside it would miss who gave up)
