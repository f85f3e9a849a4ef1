"""Conversations, and the exchanges in them: a message, and the one end that it comes to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self
from uuid import UUID

from eventstore.domain import Aggregate, AggregateSnapshot, Created, Event, Refused

#: The characters of a message and of a title (contract).
MESSAGE_CHARACTERS_MAX = 8_000
TITLE_CHARACTERS_MAX = 200


class ConversationIsDeleted(Refused):
    """The conversation was deleted."""


class Conversation(Aggregate):
    """A user's conversation. Its messages have streams of their own, so that it never grows.

    A send appends nothing here. What keeps it out of a conversation that is being deleted is the
    account's stream, to which both append.
    """

    cached = True

    user_id: UUID
    deleted: bool

    @classmethod
    def start(cls, conversation_id: UUID, *, user_id: UUID, title: str | None = None) -> Self:
        return cls.begin(ConversationStarted, conversation_id, user_id=user_id, title=title)

    def rename(self, title: str) -> None:
        """Give it another title. Refuses when it was deleted."""
        if self.deleted:
            raise ConversationIsDeleted
        self.trigger(ConversationRenamed, user_id=self.user_id, title=title)

    def delete(self) -> None:
        """End it for ever. Refuses when it was deleted already."""
        if self.deleted:
            raise ConversationIsDeleted
        self.trigger(ConversationDeleted, user_id=self.user_id)


@dataclass(frozen=True, kw_only=True)
class ConversationStarted(Created, topic="chatledger.conversations.ConversationStarted"):
    """A conversation began; a default one has no title."""

    user_id: UUID
    title: str | None

    aggregate_class = Conversation
    personal: ClassVar[Mapping[str, str]] = {"title": "originator_id"}

    def apply(self, aggregate: Any) -> None:
        aggregate.user_id = self.user_id
        aggregate.deleted = False


@dataclass(frozen=True, kw_only=True)
class ConversationRenamed(Event, topic="chatledger.conversations.ConversationRenamed"):
    """A conversation has another title."""

    user_id: UUID
    title: str

    personal: ClassVar[Mapping[str, str]] = {"title": "originator_id"}


@dataclass(frozen=True, kw_only=True)
class ConversationDeleted(Event, topic="chatledger.conversations.ConversationDeleted"):
    """A conversation is gone, and the key of its text with it."""

    user_id: UUID

    def apply(self, aggregate: Any) -> None:
        aggregate.deleted = True


@dataclass(frozen=True, kw_only=True)
class ConversationSnapshot(
    AggregateSnapshot, topic="chatledger.conversations.ConversationSnapshot"
):
    """A conversation at a version, so that one that was often renamed is loaded like any other."""

    aggregate_class = Conversation


Conversation.snapshot_class = ConversationSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class UsagePrices:
    """What a model's tokens cost in tokens of balance, and how many one message may use at most."""

    prompt_per_1000: int
    completion_per_1000: int
    prompt_tokens_max: int
    completion_tokens_max: int

    @property
    def price(self) -> int:
        """The worst case, which is debited when the message is sent."""
        return self._cost(self.prompt_tokens_max, self.completion_tokens_max)

    def cost(self, usage: "Usage") -> int:
        """What a usage costs, rounded up to a whole token; never more than the price."""
        return min(self._cost(usage.prompt_tokens, usage.completion_tokens), self.price)

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> int:
        thousandths = (
            prompt_tokens * self.prompt_per_1000 + completion_tokens * self.completion_per_1000
        )
        return -(-thousandths // 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of a model that a response took; `estimated` when the model did not say."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool


class Exchange(Aggregate):
    """A message and its end: version 1 and version 2, each of which can be written once."""

    user_id: UUID
    conversation_id: UUID
    message: str
    price: int
    usage_prices: UsagePrices | None
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
        usage_prices: UsagePrices | None = None,
        deadline_seconds: int,
    ) -> Self:
        return cls.begin(
            MessageSent,
            message_id,
            user_id=user_id,
            conversation_id=conversation_id,
            message=message,
            price=price,
            usage_prices=usage_prices and asdict(usage_prices),
            deadline_seconds=deadline_seconds,
        )

    def respond(self, response: str, *, usage: Usage | None, attempt: int, model: str) -> int:
        """End with a response and return its cost. An exchange that has ended stays as it is."""
        cost = self._cost(usage)
        if not self.ended:
            self._end(
                ResponseGenerated,
                cost=cost,
                response=response,
                usage=usage and asdict(usage),
                attempt=attempt,
                model=model,
            )
        return cost

    def cancel(self, response: str, *, usage: Usage | None, attempt: int) -> int:
        """End with the text so far and return its cost: without text there is none.

        An exchange that has ended stays as it is.
        """
        cost = self._cost(usage) if response else 0
        if not self.ended:
            self._end(
                ResponseCancelled,
                cost=cost,
                response=response or None,
                usage=usage and asdict(usage) if response else None,
                attempt=attempt,
            )
        return cost

    def fail(self, reason: str) -> None:
        """End without a response and without cost; one that has ended stays as it is."""
        if not self.ended:
            self._end(ResponseFailed, reason=reason, cost=0)

    def _cost(self, usage: Usage | None) -> int:
        if self.usage_prices is None or usage is None:
            return self.price
        return self.usage_prices.cost(usage)

    def _end(self, event_class: type[Event], **said: Any) -> None:
        self.trigger(
            event_class, user_id=self.user_id, conversation_id=self.conversation_id, **said
        )


@dataclass(frozen=True, kw_only=True)
class MessageSent(Created, topic="chatledger.conversations.MessageSent"):
    """A message was sent and paid for, in one append with its `TokensDebited`.

    `price` is what was debited: the flat one, or the worst case by `usage_prices`, which are the
    fields of `UsagePrices`. The message ends within `deadline_seconds`.
    """

    user_id: UUID
    conversation_id: UUID
    message: str
    price: int
    usage_prices: Mapping[str, int] | None = None
    deadline_seconds: int

    aggregate_class = Exchange
    personal: ClassVar[Mapping[str, str]] = {"message": "conversation_id"}

    def apply(self, aggregate: Any) -> None:
        aggregate.user_id = self.user_id
        aggregate.conversation_id = self.conversation_id
        aggregate.message = self.message
        aggregate.price = self.price
        aggregate.usage_prices = self.usage_prices and UsagePrices(**self.usage_prices)
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
    """The response is there; without its text when the conversation's key was destroyed first.

    `usage` holds the fields of `Usage` where the price is by usage; `attempt` is the generation
    whose text this is, so that a stream of it can be resumed.
    """

    response: str | None
    usage: Mapping[str, Any] | None = None
    attempt: int = 0
    model: str

    personal: ClassVar[Mapping[str, str]] = {"response": "conversation_id"}


@dataclass(frozen=True, kw_only=True)
class ResponseCancelled(ExchangeEnded, topic="chatledger.conversations.ResponseCancelled"):
    """Generation was stopped; `response` is the text so far, null when there was none."""

    response: str | None
    usage: Mapping[str, Any] | None
    attempt: int

    personal: ClassVar[Mapping[str, str]] = {"response": "conversation_id"}


@dataclass(frozen=True, kw_only=True)
class ResponseFailed(ExchangeEnded, topic="chatledger.conversations.ResponseFailed"):
    """No response came: `reason` is the code `responder`, `worker_lost` or `deadline`."""

    reason: str
