"""The HTTP side of conversations: list, start, show, rename and delete them, and read in them."""

from functools import partial
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import P, QueryEx, Router, Status

from accounts.api import PAGE_DEFAULT, PAGE_MAX
from accounts.jwt_auth import ApiRequest
from conversations import conversation_commands as commands
from conversations import schemas
from conversations.api import router as message_router
from conversations.commands import ConversationNotFound
from conversations.showing import SHOWING, find
from eventstore.cause import Cause
from eventstore.database import in_thread
from projections import queries
from projections.progress import shown

router = Router(tags=["conversations"])


class ContradictoryPage(Exception):
    """Two parameters ask for different pages; `name` is the one that does not go with the other."""

    def __init__(self, name: str, other: str) -> None:
        super().__init__(f"{name} does not go together with {other}")
        self.name = name


_LINK = {"Link": {"description": "the pages beside this one", "schema": {"type": "string"}}}
_LOCATION = {"Location": {"description": "its address", "schema": {"type": "string"}}}
_LISTED: dict[str, Any] = {"responses": {200: {"headers": _LINK}}}
_ONE: dict[str, Any] = {"responses": {404: {}}}


@router.get(
    "/conversations/",
    operation_id="list_conversations",
    summary="List my conversations",
    response=list[schemas.Conversation],
    openapi_extra=_LISTED,
)
async def list_conversations(
    request: ApiRequest,
    response: HttpResponse,
    limit: QueryEx[int, P(ge=1, le=PAGE_MAX, description="conversations a page")] = PAGE_DEFAULT,
    after: QueryEx[UUID | None, P(description="the last id of the page before")] = None,
) -> list[queries.ConversationRow]:
    """List the caller's conversations, most recently active first; `Link` leads to the next page.

    One is active when it starts and whenever a message is sent in it.
    """
    # One more than asked for tells whether there is a next page.
    rows = await in_thread(queries.list_conversations, request.auth.user_id, after, limit + 1)
    page = rows[:limit]
    if len(rows) > limit:
        response["Link"] = _link(request, "next", limit=limit, after=page[-1].id)
    return page


@router.post(
    "/conversations/",
    operation_id="start_conversation",
    summary="Start a conversation",
    response={201: schemas.Conversation},
    openapi_extra={"responses": {201: {"headers": _LOCATION}}},
)
async def start_conversation(
    request: ApiRequest, response: HttpResponse, body: schemas.StartConversation
) -> Status[commands.Written]:
    """Start a conversation, with a title or without."""
    caller = request.auth
    command = commands.StartConversation(caller.user_id, body.title)
    cause = Cause(caller.actor, request.request_id)
    written = await in_thread(commands.start_conversation, command, cause)
    await shown(written.position, "conversations")
    response["Location"] = f"/conversations/{written.id}/"
    return Status(201, written)


@router.get(
    "/conversations/{uuid:conversation_id}/",
    operation_id="get_conversation",
    summary="Show a conversation",
    response=schemas.Conversation,
    openapi_extra=_ONE,
)
async def get_conversation(request: ApiRequest, conversation_id: UUID) -> queries.ConversationRow:
    """Show one of the caller's conversations."""
    user_id = request.auth.user_id
    return await in_thread(
        find, queries.conversation, user_id, conversation_id, ConversationNotFound
    )


@router.patch(
    "/conversations/{uuid:conversation_id}/",
    operation_id="rename_conversation",
    summary="Rename a conversation",
    response=schemas.Conversation,
    openapi_extra=_ONE,
)
async def rename_conversation(
    request: ApiRequest, conversation_id: UUID, body: schemas.RenameConversation
) -> commands.Written:
    """Give one of the caller's conversations another title."""
    caller = request.auth
    command = commands.RenameConversation(caller.user_id, conversation_id, body.title)
    cause = Cause(caller.actor, request.request_id)
    written = await in_thread(commands.rename_conversation, command, cause)
    await shown(written.position, "conversations")
    return written


@router.delete(
    "/conversations/{uuid:conversation_id}/",
    operation_id="delete_conversation",
    summary="Delete a conversation",
    response={204: None},
    openapi_extra=_ONE,
)
async def delete_conversation(request: ApiRequest, conversation_id: UUID) -> Status[None]:
    """Delete a conversation for ever: the key of its text is destroyed.

    What is pending in it is cancelled, and refunded where nothing had been generated yet. A deleted
    default conversation is replaced by a new one with the next message.
    """
    caller = request.auth
    command = commands.DeleteConversation(caller.user_id, conversation_id)
    cause = Cause(caller.actor, request.request_id)
    position = await in_thread(commands.delete_conversation, command, cause)
    await shown(position, *SHOWING)
    return Status(204, None)


# On the router that has the POST: an address can only belong to one.
@message_router.get(
    "/conversations/{uuid:conversation_id}/messages/",
    operation_id="list_messages",
    summary="List the messages of a conversation",
    response=list[schemas.Message],
    openapi_extra={"responses": _LISTED["responses"] | _ONE["responses"]},
)
async def list_messages(
    request: ApiRequest,
    response: HttpResponse,
    conversation_id: UUID,
    limit: QueryEx[int, P(ge=1, le=PAGE_MAX, description="messages a page")] = PAGE_DEFAULT,
    after: QueryEx[UUID | None, P(description="an id: the messages right after it")] = None,
    before: QueryEx[UUID | None, P(description="an id: the messages right before it")] = None,
    latest: QueryEx[bool, P(description="the last page instead of the first")] = False,  # noqa: FBT002 (a query parameter)
) -> list[queries.MessageRow]:
    """List messages in time order, a page at a time; `Link` leads to the next and previous page."""
    _refuse_contradiction(after, before, latest=latest)
    look = partial(queries.messages, after=after, before=before, limit=limit, latest=latest)
    user_id = request.auth.user_id
    page = await in_thread(find, look, user_id, conversation_id, ConversationNotFound)
    if page.rows:
        links = []
        if page.more_after:
            links.append(_link(request, "next", limit=limit, after=page.rows[-1].id))
        if page.more_before:
            links.append(_link(request, "prev", limit=limit, before=page.rows[0].id))
        if links:
            response["Link"] = ", ".join(links)
    return page.rows


def _refuse_contradiction(after: UUID | None, before: UUID | None, *, latest: bool) -> None:
    if after is not None and before is not None:
        raise ContradictoryPage("before", "after")
    if latest and (after is not None or before is not None):
        raise ContradictoryPage("latest", "after" if after is not None else "before")


def _link(request: HttpRequest, relation: str, **query: int | UUID) -> str:
    return f'<{request.path}?{urlencode(query)}>; rel="{relation}"'
