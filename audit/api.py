"""The HTTP side of the audit, for staff: the log to read, and the proof of it."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import P, QueryEx, Router

from accounts.api import PAGE_DEFAULT, PAGE_MAX
from accounts.callers import StaffJwt
from accounts.jwt_auth import ApiRequest
from audit import proofs, schemas
from audit.cloudevents import MEDIA_TYPE
from audit.feed import POSITION_MAX, read_page
from eventstore.database import in_thread

#: No topic is longer.
TOPIC_CHARACTERS_MAX = 200

router = Router(tags=["audit"], auth=StaffJwt())

_LINK = {"Link": {"description": "the next page", "schema": {"type": "string"}}}
_LISTED: dict[str, Any] = {"responses": {200: {"headers": _LINK}}}
_BATCH: dict[str, Any] = {
    MEDIA_TYPE: {
        "schema": {"title": "Events", "type": "array", "items": schemas.CLOUD_EVENT},
    }
}


@router.get(
    "/audit/events/",
    operation_id="list_events",
    summary="Read the log",
    response={200: None},
    openapi_extra={"responses": {200: {"headers": _LINK, "content": _BATCH}}},
)
async def list_events(
    request: ApiRequest,
    limit: QueryEx[int, P(ge=1, le=PAGE_MAX, description="events a page")] = PAGE_DEFAULT,
    after: QueryEx[int, P(ge=0, le=POSITION_MAX, description="the position to go on behind")] = 0,
    topic: QueryEx[
        str | None,
        P(
            alias="type",
            min_length=1,
            max_length=TOPIC_CHARACTERS_MAX,
            pattern=r"^[A-Za-z0-9_.-]+$",
            description="only events of this type",
        ),
    ] = None,
    subject: QueryEx[UUID | None, P(description="only events of this stream")] = None,
) -> HttpResponse:
    """Read the log in order as a batch of CloudEvents 1.0, without personal text.

    `Link` leads on. With `type` or `subject` a page may hold less than `limit`, even nothing, and
    still lead on: one request looks through 10,000 events at most.
    """
    page = await in_thread(read_page, after, limit, topic=topic, stream_id=subject)
    response = HttpResponse(page.body, content_type=MEDIA_TYPE)
    if page.next_after is not None:
        query = {"limit": limit, "after": page.next_after, "type": topic, "subject": subject}
        response["Link"] = _next(request, query)
    return response


@router.get(
    "/audit/events/{int:position}/proof/",
    operation_id="prove_event",
    summary="Prove an event",
    response=schemas.Proof,
    openapi_extra={"responses": {404: {}}},
)
async def prove_event(request: ApiRequest, position: int) -> dict[str, Any]:
    """Show an event as it is stored, and the way from it up to a signed root.

    Nothing is checked here, since that would have to be believed: `examples/check_proof.py` checks
    it with the public key alone. An event is sealed within a second or two; until then 503.
    """
    return await in_thread(proofs.prove, position)


@router.get(
    "/audit/checkpoints/",
    operation_id="list_checkpoints",
    summary="List the seals",
    response=list[schemas.Checkpoint],
    openapi_extra=_LISTED,
)
async def list_checkpoints(
    request: ApiRequest,
    response: HttpResponse,
    limit: QueryEx[int, P(ge=1, le=PAGE_MAX, description="checkpoints a page")] = PAGE_DEFAULT,
    before: QueryEx[
        int | None,
        P(ge=1, le=POSITION_MAX, description="a number: the checkpoints right before it"),
    ] = None,
) -> list[dict[str, Any]]:
    """List the checkpoints, newest first, a page at a time; `Link` leads to the next page."""
    # One more than asked for tells whether there is a next page.
    found = await in_thread(proofs.list_checkpoints, before, limit + 1)
    page = found[:limit]
    if len(found) > limit:
        response["Link"] = _next(request, {"limit": limit, "before": page[-1]["number"]})
    return page


@router.get(
    "/audit/keys/",
    operation_id="list_seal_keys",
    summary="List the public keys",
    response=list[schemas.PublicKey],
)
async def list_seal_keys(request: ApiRequest) -> list[dict[str, str]]:
    """List the public keys that checkpoints were signed with. Keep a copy somewhere else."""
    return await in_thread(proofs.list_keys)


def _next(request: HttpRequest, query: dict[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f'<{request.path}?{urlencode(given)}>; rel="next"'
