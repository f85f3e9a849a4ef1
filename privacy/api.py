"""The HTTP side of privacy: a user's data as a whole, and the end of it."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from django.http import StreamingHttpResponse
from ninja import Router, Status

from accounts.api import in_password_thread
from accounts.api import router as account_router
from accounts.at_once import AtOnce, Held
from accounts.callers import StaffJwt
from accounts.commands import UserNotFound
from accounts.domain import AccountErased
from accounts.guesses import claim_of, counted_guess
from accounts.jwt_auth import ApiRequest
from eventstore.cause import Cause
from eventstore.database import in_thread
from privacy import schemas
from privacy.erasure import EraseUser, erase_user
from privacy.export import export_user, note_export
from projections.progress import shown
from projections.registry import PROJECTIONS

router = Router(tags=["accounts"])

#: Each keeps a thread busy for as long as it is read.
EXPORTS_MAX = 2
exports = AtOnce("exports", EXPORTS_MAX)

_EXPORT: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Everything that is held about the user, as they may save it.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": [
                            "exported_at",
                            "position",
                            "user",
                            "conversations",
                            "messages",
                            "events",
                        ],
                        "properties": {
                            "exported_at": {"type": "string", "format": "date-time"},
                            "position": {"type": "integer"},
                            "user": {"type": "object"},
                            "conversations": {"type": "array", "items": {"type": "object"}},
                            "messages": {"type": "array", "items": {"type": "object"}},
                            "events": {"type": "array", "items": {"type": "object"}},
                        },
                    }
                }
            },
        }
    }
}
_OF_SOMEBODY: dict[str, Any] = {"responses": {404: {}}}


@router.get(
    "/users/me/export/",
    operation_id="export_own_data",
    summary="Export my data",
    openapi_extra={"responses": _EXPORT["responses"] | {429: {}}},
)
async def export_own_data(request: ApiRequest) -> StreamingHttpResponse:
    """Get everything that is held about the caller, out of the log and with its text."""
    user_id = request.auth.user_id
    with ExitStack() as held:
        held.enter_context(exports.one(user_id))
        try:
            return await _export(user_id, held)
        except UserNotFound:
            # Erased since the JWT was looked at.
            raise AccountErased from None


# A path belongs to one router: this one shows the account too.
@account_router.delete(
    "/users/me/",
    operation_id="erase_own_account",
    summary="Erase me",
    response={204: None},
    openapi_extra={"responses": {429: {}}},
)
async def erase_own_account(request: ApiRequest, body: schemas.EraseMe) -> Status[None]:
    """Forget the caller for ever: the account, its conversations and all text in them.

    What is pending is cancelled first. The name is never given out again.
    """
    caller = request.auth
    command = EraseUser(caller.user_id, body.password)
    position = await in_password_thread(_erase, request, command)
    await shown(position, *PROJECTIONS)
    return Status(204, None)


@router.get(
    "/users/{uuid:user_id}/export/",
    auth=StaffJwt(),
    tags=["staff"],
    operation_id="export_user_data",
    summary="Export a user's data",
    openapi_extra={"responses": _EXPORT["responses"] | {404: {}, 429: {}}},
)
async def export_user_data(request: ApiRequest, user_id: UUID) -> StreamingHttpResponse:
    """Get everything that is held about a user who asked for it. The log says that staff did."""
    with ExitStack() as held:
        held.enter_context(exports.one(request.auth.user_id))
        if not request.headers_only:
            cause = Cause(request.auth.staff_actor, request.request_id)
            await in_thread(note_export, user_id, cause)
        return await _export(user_id, held)


@router.delete(
    "/users/{uuid:user_id}/",
    auth=StaffJwt(),
    tags=["staff"],
    operation_id="erase_user",
    summary="Erase a user",
    response={204: None},
    openapi_extra=_OF_SOMEBODY,
)
async def erase_somebody(request: ApiRequest, user_id: UUID) -> Status[None]:
    """Forget a user for ever, as they can themselves. One's own account: `DELETE /users/me/`."""
    caller = request.auth
    cause = Cause(caller.staff_actor, request.request_id)
    command = EraseUser(user_id, staff_id=caller.user_id)
    position = await in_thread(erase_user, command, cause)
    await shown(position, *PROJECTIONS)
    return Status(204, None)


def _erase(request: ApiRequest, command: EraseUser) -> int:
    cause = Cause(request.auth.actor, request.request_id)
    with counted_guess(request, claim_of(command.user_id)):
        return erase_user(command, cause)


async def _export(user_id: UUID, held: ExitStack) -> StreamingHttpResponse:
    """The export; `held` is given back at its end."""
    pieces = await in_thread(export_user, user_id)
    return StreamingHttpResponse(
        Held(_one_by_one(pieces), held.pop_all()),
        content_type="application/json",
        headers={"Content-Disposition": f'attachment; filename="chatledger-{user_id}.json"'},
    )


async def _one_by_one(pieces: Iterator[bytes]) -> AsyncGenerator[bytes]:
    while (piece := await in_thread(next, pieces, None)) is not None:
        yield piece
