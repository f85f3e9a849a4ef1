"""The HTTP side of sending: a message goes in, and its response comes back or can be fetched."""

import re
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpResponse
from ninja import Router, Status

from accounts.jwt_auth import ApiRequest
from conversations import commands, replies, schemas
from conversations.ends import Ended, end_of
from conversations.prefer import WAIT_SECONDS_MAX, Preference, parse_prefer
from eventstore.cause import Cause
from eventstore.database import in_thread
from projections import queries
from projections.progress import shown

IDEMPOTENCY_KEY_CHARACTERS_MAX = 255

router = Router(tags=["messages"])


class InvalidIdempotencyKey(Exception):
    """The header is there, but no key."""


class MessageNotFound(Exception):
    """There is no such message of the caller's."""


class NoResponse(Exception):
    """The message has failed; what it cost has been refunded."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_LOCATION = {"Location": {"description": "the message's address", "schema": {"type": "string"}}}
_SEND_DOCUMENT: dict[str, Any] = {
    "parameters": [
        {
            "in": "header",
            "name": "Idempotency-Key",
            "description": "A repeat with the same key is not charged and gets the same message.",
            "schema": {
                "type": "string",
                "pattern": "^[!-~]+$",
                "minLength": 1,
                "maxLength": IDEMPOTENCY_KEY_CHARACTERS_MAX,
            },
        },
        {
            "in": "header",
            "name": "Prefer",
            "description": f"`wait=N`: wait N seconds for the response, at most "
            f"{WAIT_SECONDS_MAX}. `respond-async`: do not wait. What makes no sense is ignored.",
            "schema": {"type": "string", "examples": ["wait=10", "respond-async"]},
        },
    ],
    "responses": {201: {"headers": _LOCATION}, 202: {"headers": _LOCATION}, 402: {}, 502: {}},
}


@router.post(
    "/send/",
    operation_id="send_message",
    summary="Send a message",
    response={201: schemas.Sent, 202: schemas.Pending},
    openapi_extra=_SEND_DOCUMENT,
)
async def send_message(
    request: ApiRequest, response: HttpResponse, body: schemas.Send
) -> Status[schemas.Sent] | Status[schemas.Pending]:
    """Pay for a message in the default conversation, and wait for its response.

    201 with the response; 202 when it has not come in time or need not be waited for.
    """
    key = _idempotency_key(request)
    preference = parse_prefer(request.META.get("HTTP_PREFER"))
    seconds = preference.seconds_to_wait(settings.REPLY_WAIT_SECONDS)
    caller = request.auth
    command = commands.SendMessage(
        user_id=caller.user_id,
        conversation_id=None,
        message_id=commands.message_id_for(caller.user_id, key),
        message=body.message,
        idempotent=key is not None,
        awaited=seconds > 0,
    )
    with replies.Waiting(command.message_id, seconds) as waiting:
        accepted = await in_thread(_accept, command, Cause(caller.actor, request.request_id))
        end = await _end(accepted, waiting)
    _describe(response, accepted.message_id, preference)
    if end is None:
        return Status(202, schemas.Pending(id=accepted.message_id))
    if end.status == "failed":
        raise NoResponse(end.reason or "unknown")
    return Status(201, schemas.Sent(response=end.response or ""))


@router.get(
    "/messages/{uuid:message_id}/",
    operation_id="get_message",
    summary="Show a message",
    response=schemas.Message,
    openapi_extra={"responses": {404: {}}},
)
async def get_message(request: ApiRequest, message_id: UUID) -> queries.MessageRow:
    """Show one of the caller's messages, with its response if there is one yet."""
    message = await in_thread(queries.message, request.auth.user_id, message_id)
    if message is None:
        raise MessageNotFound
    return message


def _accept(command: commands.SendMessage, cause: Cause) -> commands.Accepted:
    """Accept a message and hand it on, in one thread: a client that hangs up stops neither."""
    accepted = commands.send_message(command, cause)
    if not accepted.repeated:
        replies.enqueue(accepted.message_id)
    return accepted


async def _end(accepted: commands.Accepted, waiting: replies.Waiting) -> Ended | None:
    """Wait for the end and until it is shown; None if it has not come or is not waited for."""
    ended = await in_thread(end_of, accepted.message_id) if accepted.repeated else None
    ended = ended or await waiting.end()
    await shown(ended.position if ended else accepted.position, *_SHOWING)
    return ended


#: The read models that show a message and what it cost.
_SHOWING = ("history", "balances")


def _describe(response: HttpResponse, message_id: UUID, preference: Preference) -> None:
    response["Location"] = f"/messages/{message_id}/"
    response["Vary"] = "Prefer"
    if preference.applied:
        response["Preference-Applied"] = preference.applied


def _idempotency_key(request: ApiRequest) -> str | None:
    key: str | None = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidIdempotencyKey
    return key


_KEY = re.compile(rf"[!-~]{{1,{IDEMPOTENCY_KEY_CHARACTERS_MAX}}}")
