"""The HTTP side of what only staff may do with other people's accounts."""

from typing import Any
from uuid import UUID

from ninja import Router, Status

from accounts import schemas, staff_commands
from accounts.callers import StaffJwt
from accounts.idempotency import idempotency_key, idempotency_parameter
from accounts.jwt_auth import ApiRequest
from eventstore.cause import Cause
from eventstore.database import in_thread
from projections.progress import shown

router = Router(tags=["staff"], auth=StaffJwt())

_ONE: dict[str, Any] = {"responses": {404: {}}}


@router.post(
    "/users/{uuid:user_id}/grants/",
    operation_id="grant_tokens",
    summary="Grant tokens",
    response={201: schemas.Grant},
    openapi_extra=_ONE
    | {
        "parameters": [
            idempotency_parameter("A repeat with the same key grants nothing and gets the same.")
        ]
    },
)
async def grant_tokens(
    request: ApiRequest, user_id: UUID, body: schemas.GrantTokens
) -> Status[schemas.Grant]:
    """Give a user tokens, and say why. A deactivated user may be given some too."""
    caller = request.auth
    grant_id = staff_commands.grant_id_for(caller.user_id, idempotency_key(request))
    command = staff_commands.GrantTokens(grant_id, user_id, body.amount, body.reason)
    granted = await in_thread(staff_commands.grant_tokens, command, _cause(request))
    await shown(granted.position, *staff_commands.SHOWING_GRANT)
    answer = schemas.Grant(id=grant_id, user_id=user_id, amount=body.amount, reason=body.reason)
    return Status(201, answer)


# No read model shows whether an account is active: the next request reads its credential.
@router.post(
    "/users/{uuid:user_id}/deactivate/",
    operation_id="deactivate_user",
    summary="Deactivate a user",
    response={204: None},
    openapi_extra=_ONE,
)
async def deactivate_user(
    request: ApiRequest, user_id: UUID, body: schemas.Because = schemas.NO_REASON
) -> Status[None]:
    """Stop a user's logins, and every JWT issued before, for good.

    What is pending is finished and charged.
    """
    command = staff_commands.DeactivateUser(user_id, body.reason)
    await in_thread(staff_commands.deactivate_user, command, _cause(request))
    return Status(204, None)


@router.post(
    "/users/{uuid:user_id}/activate/",
    operation_id="activate_user",
    summary="Activate a user",
    response={204: None},
    openapi_extra=_ONE,
)
async def activate_user(
    request: ApiRequest, user_id: UUID, body: schemas.Because = schemas.NO_REASON
) -> Status[None]:
    """Let a deactivated user log in again. JWTs of before stay void."""
    command = staff_commands.ActivateUser(user_id, body.reason)
    await in_thread(staff_commands.activate_user, command, _cause(request))
    return Status(204, None)


def _cause(request: ApiRequest) -> Cause:
    return Cause(request.auth.staff_actor, request.request_id)
