"""The HTTP side of sending: a message goes in, and its response comes back or can be fetched."""

from contextlib import ExitStack
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from ninja import Router, Status
from structlog.contextvars import bind_contextvars

from accounts.at_once import AtOnce, Held
from accounts.callers import SenderJwt
from accounts.domain import Account
from accounts.idempotency import idempotency_key, idempotency_parameter
from accounts.jwt_auth import ApiRequest
from conversations import commands, metrics, replies, schemas
from conversations.accept import EVENT_STREAM, wants_events
from conversations.cancelling import tell
from conversations.ends import Ended, end_of
from conversations.event_stream import Place, events, events_of_ended, has_all, parse_event_id
from conversations.prefer import NO_PREFERENCE, WAIT_SECONDS_MAX, Preference, parse_prefer
from conversations.showing import SHOWING, find
from eventstore.cause import Cause
from eventstore.database import in_thread, while_it_answers
from eventstore.writer import deciding_together
from projections import queries
from projections.progress import shown

router = Router(tags=["messages"])

#: Event streams that a user may have open at a time, in one process.
STREAMS_MAX = 50
streams = AtOnce("streams", STREAMS_MAX)


class MessageNotFound(Exception):
    """There is no such message of the caller's."""


class NoResponse(Exception):
    """The message has failed; what it cost has been refunded."""

    def __init__(self, message_id: UUID, reason: str) -> None:
        super().__init__(reason)
        self.message_id = message_id
        self.reason = reason


_LOCATION = {"Location": {"description": "the message's address", "schema": {"type": "string"}}}
_EVENT_STREAM: dict[str, Any] = {
    EVENT_STREAM: {
        "schema": {"type": "string"},
        "example": 'id: 812-9\nevent: delta\ndata: {"text":"Hi there!"}\n\n',
    }
}
_SEND_DOCUMENT: dict[str, Any] = {
    "parameters": [
        idempotency_parameter(
            "A repeat with the same key is not charged and gets the same message."
        ),
        {
            "in": "header",
            "name": "Prefer",
            "description": f"`wait=N`: wait N seconds for the response, at most "
            f"{WAIT_SECONDS_MAX}. `respond-async`: do not wait. What makes no sense is ignored.",
            "schema": {"type": "string", "examples": ["wait=10", "respond-async"]},
        },
    ],
    "responses": {
        200: {"headers": _LOCATION, "content": _EVENT_STREAM},
        201: {"headers": _LOCATION},
        202: {"headers": _LOCATION},
        402: {},
        404: {},
        429: {},
        502: {},
    },
}
_SENT = {200: schemas.Message, 201: schemas.Sent, 202: schemas.Pending}

Sending = Status[schemas.Message] | Status[schemas.Sent] | Status[schemas.Pending]


@router.post(
    "/send/",
    auth=SenderJwt(),
    operation_id="send_message",
    summary="Send a message",
    response=_SENT,
    openapi_extra=_SEND_DOCUMENT,
)
async def send_message(
    request: ApiRequest, response: HttpResponse, body: schemas.Send
) -> Sending | StreamingHttpResponse:
    """Pay for a message in the default conversation, and wait for its response.

    201 with the response; 202 when it has not come in time or need not be waited for; 200 with the
    message when it was cancelled meanwhile, or with the response as an event stream when the client
    accepts `text/event-stream`.
    """
    return await _send(request, response, None, body)


@router.post(
    "/conversations/{uuid:conversation_id}/messages/",
    auth=SenderJwt(),
    operation_id="send_message_to_conversation",
    summary="Send a message to a conversation",
    response=_SENT,
    openapi_extra=_SEND_DOCUMENT,
)
async def send_message_to_conversation(
    request: ApiRequest, response: HttpResponse, conversation_id: UUID, body: schemas.Send
) -> Sending | StreamingHttpResponse:
    """Pay for a message in one of the caller's conversations; all else as for `POST /send/`."""
    return await _send(request, response, conversation_id, body)


@router.get(
    "/messages/{uuid:message_id}/",
    operation_id="get_message",
    summary="Show a message",
    response=schemas.Message,
    openapi_extra={"responses": {404: {}}},
)
async def get_message(request: ApiRequest, message_id: UUID) -> queries.MessageRow:
    """Show one of the caller's messages, with its response if there is one yet."""
    return await in_thread(_message, request.auth.user_id, message_id)


@router.get(
    "/messages/{uuid:message_id}/stream/",
    operation_id="stream_message",
    summary="Follow a message",
    response={200: None, 204: None},
    openapi_extra={
        "parameters": [
            {
                "in": "header",
                "name": "Last-Event-ID",
                "description": "The last id that was received: the stream goes on behind it.",
                "schema": {"type": "string", "examples": ["812-9"]},
            }
        ],
        "responses": {200: {"content": _EVENT_STREAM}, 404: {}, 422: {}, 429: {}},
    },
)
async def stream_message(
    request: ApiRequest, message_id: UUID
) -> Status[None] | StreamingHttpResponse:
    """Follow the response as it is generated, or get it afterwards, from the start or the last id.

    204 when the last id is that of the last event: there is no more to come.
    """
    bind_contextvars(message_id=message_id)
    place = parse_event_id(request.META.get("HTTP_LAST_EVENT_ID"))
    with ExitStack() as held:
        held.enter_context(streams.one(request.auth.user_id))
        await in_thread(_message, request.auth.user_id, message_id)
        ended = await in_thread(end_of, message_id)
        if ended is not None:
            await shown(ended.position, *SHOWING)
            if has_all(place, ended):
                return Status(204, None)
        return _event_stream(message_id, place, ended, held)


@router.post(
    "/messages/{uuid:message_id}/cancel/",
    operation_id="cancel_message",
    summary="Cancel a message",
    response=schemas.Message,
    openapi_extra={"responses": {404: {}}},
)
async def cancel_message(request: ApiRequest, message_id: UUID) -> queries.MessageRow:
    """Stop generating: what is there is kept, and without any text the message costs nothing.

    A message that has ended already is returned as it is.
    """
    bind_contextvars(message_id=message_id)
    caller = request.auth
    message = await in_thread(_message, caller.user_id, message_id)
    if message.status != "pending":
        return message
    cause = Cause(caller.actor, request.request_id)
    ended = await in_thread(_cancel, message_id, cause)
    if ended is not None:
        await shown(ended.position, *SHOWING)
    return await in_thread(_message, caller.user_id, message_id)


async def _send(
    request: ApiRequest, response: HttpResponse, conversation_id: UUID | None, body: schemas.Send
) -> Sending | StreamingHttpResponse:
    key = idempotency_key(request)
    streamed = wants_events(request.META.get("HTTP_ACCEPT", ""))
    preference = NO_PREFERENCE if streamed else parse_prefer(request.META.get("HTTP_PREFER"))
    seconds = 0 if streamed else preference.seconds_to_wait(settings.REPLY_WAIT_SECONDS)
    caller = request.auth
    command = commands.SendMessage(
        user_id=caller.user_id,
        conversation_id=conversation_id,
        message_id=commands.message_id_for(caller.user_id, key),
        message=body.message,
        awaited=seconds > 0,
    )
    bind_contextvars(message_id=command.message_id)
    with ExitStack() as held:
        if streamed:
            # Before the message is paid for: a stream too many costs nothing.
            held.enter_context(streams.one(caller.user_id))
        with replies.Waiting(command.message_id, seconds) as waiting:
            accepted = await _accept(command, Cause(caller.actor, request.request_id))
            end = await _end(accepted, waiting)
        if streamed:
            stream = _event_stream(accepted.message_id, Place(), end, held)
            _describe(stream, accepted.message_id, preference)
            return stream
    _describe(response, accepted.message_id, preference)
    if end is None:
        return Status(202, schemas.Pending(id=accepted.message_id))
    if end.status == "failed":
        raise NoResponse(accepted.message_id, end.reason or "unknown")
    if end.status == "cancelled":
        row = await in_thread(queries.message, caller.user_id, accepted.message_id)
        if row is None:
            raise commands.MessageDeleted
        return Status(200, schemas.Message.model_validate(row))
    if end.response is None:
        raise commands.MessageDeleted
    return Status(201, schemas.Sent(response=end.response))


async def _accept(command: commands.SendMessage, cause: Cause) -> commands.Accepted:
    """Have a message accepted and handed on: a client that hangs up meanwhile stops neither."""
    try:
        decision = commands.sending(command, cause)
        account = (Account, command.user_id)
        return await while_it_answers(deciding_together(decision, _hand_on, [account]))
    except Exception as error:
        metrics.send_refused(error)
        raise


def _hand_on(accepted: commands.Accepted) -> None:
    if accepted.repeated:
        metrics.REPEATED.inc()
    else:
        metrics.ACCEPTED.inc()
        replies.enqueue(accepted.message_id)


async def _end(accepted: commands.Accepted, waiting: replies.Waiting) -> Ended | None:
    """Wait for the end and until it is shown; None if it has not come or is not waited for."""
    ended = await in_thread(end_of, accepted.message_id) if accepted.repeated else None
    ended = ended or await waiting.end()
    await shown(ended.position if ended else accepted.position, *SHOWING)
    return ended


def _message(user_id: UUID, message_id: UUID) -> queries.MessageRow:
    return find(queries.message, user_id, message_id, MessageNotFound)


def _cancel(message_id: UUID, cause: Cause) -> Ended | None:
    ended = commands.cancel_message(message_id, cause)
    if ended is not None:
        tell(message_id, ended)
    return ended


def _event_stream(
    message_id: UUID, place: Place, ended: Ended | None, held: ExitStack
) -> StreamingHttpResponse:
    """The stream of what is to come; `held` is given back at its end."""
    coming = events_of_ended(message_id, place, ended) if ended else events(message_id, place)
    return StreamingHttpResponse(
        Held(coming, held.pop_all()),
        content_type=EVENT_STREAM,
        # nginx would hold the events back until its buffer is full.
        headers={"X-Accel-Buffering": "no"},
    )


def _describe(response: HttpResponseBase, message_id: UUID, preference: Preference) -> None:
    response["Location"] = f"/messages/{message_id}/"
    response["Vary"] = "Prefer, Accept"
    if preference.applied:
        response["Preference-Applied"] = preference.applied
