"""What clients send in conversations and get back."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from accounts.schemas import Answer, Body
from conversations.domain import MESSAGE_CHARACTERS_MAX, TITLE_CHARACTERS_MAX


class Send(Body):
    """A message to the chatbot."""

    message: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MESSAGE_CHARACTERS_MAX,
            description="1 to 8000 characters",
            examples=["tell me a joke"],
        ),
    ]


class Sent(Answer):
    """The chatbot's response."""

    response: str = Field(
        examples=["Why don't scientists trust atoms? Because they make up everything!"]
    )


class Pending(Answer):
    """A message that has been accepted and paid for; its response is yet to come."""

    id: UUID
    status: Literal["pending"] = "pending"


class Message(Answer):
    """A message and what became of it."""

    id: UUID
    conversation_id: UUID
    message: str = Field(examples=["hello"])
    response: str | None = Field(examples=["Hi there! How can I help you today?"])
    status: Literal["pending", "done", "failed", "cancelled"] = Field(examples=["done"])
    cost: int = Field(description="tokens of balance", examples=[100])
    model: str | None = Field(description="what generated the response", examples=["dummy"])
    created_at: datetime
    responded_at: datetime | None


Title = Annotated[
    str,
    Field(
        min_length=1,
        max_length=TITLE_CHARACTERS_MAX,
        description="1 to 200 characters",
        examples=["Jokes"],
    ),
]


class StartConversation(Body):
    """A new conversation; it needs no title."""

    title: Title | None = None


class RenameConversation(Body):
    """Another title."""

    title: Title


class Conversation(Answer):
    """A conversation."""

    id: UUID
    title: str | None = Field(description="null when it has none", examples=["Jokes"])
    created_at: datetime
