"""The HTTP side of sending: a message goes in, and its response comes back or can be fetched."""

import re
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from django.conf import settings
from django.http import HttpResponse
from ninja import Router, Status

from accounts.jwt_auth import ApiRequest
from conversations import commands, replies, schemas
from conversations.prefer import WAIT_SECONDS_MAX, Preference, parse_prefer
from eventstore.cause import Cause
from eventstore.database import in_thread
from eventstore.keys import decrypt_all
from eventstore.reading import read_stream
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
    caller = request.auth
    command = commands.SendMessage(
        user_id=caller.user_id,
        conversation_id=None,
        message_id=commands.message_id_for(caller.user_id, key),
        message=body.message,
        idempotent=key is not None,
    )
    accepted = await in_thread(_accept, command, Cause(caller.actor, request.request_id))
    outcome = await _outcome(accepted, caller.user_id, preference)
    _describe(response, accepted.message_id, preference)
    if outcome is None or outcome.status == "pending":
        return Status(202, schemas.Pending(id=accepted.message_id))
    if outcome.status == "failed":
        raise NoResponse(outcome.reason or "unknown")
    return Status(201, schemas.Sent(response=outcome.response or ""))


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


class _Outcome(Protocol):
    """What became of a message, by the read model or by the log."""

    @property
    def status(self) -> str: ...
    @property
    def response(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...


async def _outcome(
    accepted: commands.Accepted, user_id: UUID, preference: Preference
) -> _Outcome | None:
    """Return the message as it is when its end is shown; None if that is not waited for."""
    message_id = accepted.message_id
    if accepted.repeated:
        message = await in_thread(queries.message, user_id, message_id)
        if message is not None and message.status != "pending":
            return message
    seconds = preference.seconds_to_wait(settings.REPLY_WAIT_SECONDS)
    end = await replies.wait_for_end(message_id, seconds) if seconds else None
    is_shown = await shown(accepted.position if end is None else end, "history", "balances")
    if not seconds:
        return None
    if end is not None and not is_shown:
        # The followers are down or behind; the answer goes out all the same.
        return await in_thread(_end_in_log, message_id)
    return await in_thread(queries.message, user_id, message_id)


@dataclass(frozen=True, slots=True)
class _End:
    status: str
    response: str | None = None
    reason: str | None = None


def _end_in_log(message_id: UUID) -> _End:
    _, end = read_stream(message_id)
    if "reason" in end.data:
        return _End("failed", reason=end.data["reason"])
    return _End("done", response=decrypt_all([end.data["response"]])[0])


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
