"""Conversations, and the exchanges in them: a message, and the one end that it comes to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self
from uuid import UUID

from eventstore.domain import Aggregate, Created, Event

#: The characters of a message (contract).
MESSAGE_CHARACTERS_MAX = 8_000


class Conversation(Aggregate):
    """A user's conversation. Its messages have streams of their own, so that it never grows."""

    cached = True

    user_id: UUID

    @classmethod
    def start(cls, conversation_id: UUID, *, user_id: UUID, title: str | None = None) -> Self:
        return cls.begin(ConversationStarted, conversation_id, user_id=user_id, title=title)


@dataclass(frozen=True, kw_only=True)
class ConversationStarted(Created, topic="chatledger.conversations.ConversationStarted"):
    """A conversation began; a default one has no title."""

    user_id: UUID
    title: str | None

    aggregate_class = Conversation
    personal: ClassVar[Mapping[str, str]] = {"title": "originator_id"}

    def apply(self, aggregate: Any) -> None:
        aggregate.user_id = self.user_id


class Exchange(Aggregate):
    """A message and its end: version 1 and version 2, each of which can be written once."""

    user_id: UUID
    conversation_id: UUID
    message: str
    price: int
    deadline_seconds: int
    ended: bool

    @classmethod
    def send(
        cls,
        message_id: UUID,
        *,
        user_id: UUID,
        conversation_id: UUID,
        message: str,
        price: int,
        deadline_seconds: int,
    ) -> Self:
        return cls.begin(
            MessageSent,
            message_id,
            user_id=user_id,
            conversation_id=conversation_id,
            message=message,
            price=price,
            deadline_seconds=deadline_seconds,
        )

    def respond(self, response: str, *, cost: int, model: str) -> None:
        """End with a response; an exchange that has ended stays as it is."""
        if not self.ended:
            self._end(ResponseGenerated, response=response, cost=min(cost, self.price), model=model)

    def fail(self, reason: str) -> None:
        """End without a response and without cost; one that has ended stays as it is."""
        if not self.ended:
            self._end(ResponseFailed, reason=reason, cost=0)

    def _end(self, event_class: type[Event], **said: Any) -> None:
        self.trigger(
            event_class, user_id=self.user_id, conversation_id=self.conversation_id, **said
        )


@dataclass(frozen=True, kw_only=True)
class MessageSent(Created, topic="chatledger.conversations.MessageSent"):
    """A message was sent and paid for, in one append with its `TokensDebited`.

    `price` is what was debited; the message ends within `deadline_seconds`.
    """

    user_id: UUID
    conversation_id: UUID
    message: str
    price: int
    deadline_seconds: int

    aggregate_class = Exchange
    personal: ClassVar[Mapping[str, str]] = {"message": "conversation_id"}

    def apply(self, aggregate: Any) -> None:
        aggregate.user_id = self.user_id
        aggregate.conversation_id = self.conversation_id
        aggregate.message = self.message
        aggregate.price = self.price
        aggregate.deadline_seconds = self.deadline_seconds
        aggregate.ended = False


@dataclass(frozen=True, kw_only=True)
class ExchangeEnded(Event):
    """What the ends have in common."""

    user_id: UUID
    conversation_id: UUID
    cost: int

    def apply(self, aggregate: Any) -> None:
        aggregate.ended = True


@dataclass(frozen=True, kw_only=True)
class ResponseGenerated(ExchangeEnded, topic="chatledger.conversations.ResponseGenerated"):
    """The response is there; without its text when the conversation's key was destroyed first."""

    response: str | None
    model: str

    personal: ClassVar[Mapping[str, str]] = {"response": "conversation_id"}


@dataclass(frozen=True, kw_only=True)
class ResponseFailed(ExchangeEnded, topic="chatledger.conversations.ResponseFailed"):
    """No response came: `reason` is the code `responder`, `worker_lost` or `deadline`."""

    reason: str
