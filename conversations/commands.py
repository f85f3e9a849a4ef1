"""Commands on messages: each loads, asks the domain, and appends once."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4, uuid5

from django.conf import settings

from accounts.domain import Account
from conversations.cancelling import text_so_far
from conversations.domain import Conversation, Exchange, Usage
from conversations.ends import Ended, end_of
from conversations.prices import usage_prices
from eventstore.cause import Cause
from eventstore.decisions import Append, Decision, View
from eventstore.domain import Aggregate, Refused
from eventstore.log import event_log
from eventstore.reading import max_position, read_stream
from eventstore.writer import decide_together


class IdempotencyKeyReused(Refused):
    """The key belongs to a message with another text or in another conversation."""


class ConversationNotFound(Refused):
    """There is no such conversation of this user's."""


class MessageDeleted(ConversationNotFound):
    """The message was deleted with its conversation."""


@dataclass(frozen=True)
class SendMessage:
    """`conversation_id` None: the user's default conversation.

    `awaited`: the answer waits for the end, so that nobody is owed a look at the message before.
    """

    user_id: UUID
    conversation_id: UUID | None
    message_id: UUID
    message: str = field(repr=False)
    awaited: bool = False


@dataclass(frozen=True)
class Accepted:
    """The message is in the log and paid for; `repeated` when an earlier request had sent it."""

    message_id: UUID
    position: int
    repeated: bool


def message_id_for(user_id: UUID, idempotency_key: str | None) -> UUID:
    """The id of a message: made from the user and the key, so that a repeat finds the first."""
    if idempotency_key is None:
        return uuid4()
    return uuid5(user_id, f"message:{idempotency_key}")


def send_message(command: SendMessage, cause: Cause) -> Accepted:
    """Pay for the message and record it, together or not at all.

    Raises `InsufficientTokens`, `AccountDeactivated`, `ConversationNotFound`,
    `IdempotencyKeyReused`.
    """
    return decide_together(sending(command, cause))


def sending(command: SendMessage, cause: Cause) -> Decision[Accepted]:
    """The decision of `send_message`."""
    prices = usage_prices(command.message)
    price = prices.price if prices else settings.MESSAGE_PRICE

    def decision(view: View) -> Accepted | Append[Accepted]:
        # The first try need not read: a message that is there already is a conflict. One that is
        # about to be there would be a conflict for both, and for all that is decided with them.
        looked_up = view.fresh or view.is_decided_on(command.message_id)
        if looked_up and (sent := view.find(Exchange, command.message_id)):
            # What this request has sent itself, without hearing so, it still has to hand on.
            unheard = view.cut_off and _was_sent_by(cause, command.message_id)
            return replace(_repeated(view, command, sent), repeated=not unheard)
        account = view.load(Account, command.user_id)
        conversation_id = command.conversation_id or account.default_conversation_id
        # The append proves that this is the latest of the account, and so that its default
        # conversation is there. Any other may have been deleted by another process, without a
        # trace in what this one remembers.
        is_default = conversation_id == account.default_conversation_id
        conversation = view.find(Conversation, conversation_id, fresh=not is_default)
        if conversation is None and not is_default:
            raise ConversationNotFound(str(conversation_id))
        if conversation is None:
            conversation = Conversation.start(conversation_id, user_id=command.user_id)
        if conversation.user_id != command.user_id or conversation.deleted:
            raise ConversationNotFound(str(conversation_id))
        account.debit(price, message_id=command.message_id)
        exchange = Exchange.send(
            command.message_id,
            user_id=command.user_id,
            conversation_id=conversation_id,
            message=command.message,
            price=price,
            usage_prices=prices,
            deadline_seconds=settings.RESPONSE_DEADLINE_SECONDS,
        )
        return Append(
            (account, conversation, exchange),
            cause,
            lambda position: Accepted(command.message_id, position, repeated=False),
            announced=not command.awaited,
        )

    return decision


def respond_to_message(
    exchange: Exchange,
    response: str,
    *,
    usage: Usage | None,
    attempt: int,
    model: str,
    cause: Cause,
) -> Ended | None:
    """End a message with its response and refund what it did not cost, in one append.

    Returns how the message has ended, which is another end when another writer was first; None
    when the message does not exist.
    """
    return decide_together(
        responding(exchange, response, usage=usage, attempt=attempt, model=model, cause=cause)
    )


def responding(
    exchange: Exchange,
    response: str,
    *,
    usage: Usage | None,
    attempt: int,
    model: str,
    cause: Cause,
) -> Decision[Ended | None]:
    """The decision of `respond_to_message`."""

    def respond(current: Exchange, view: View) -> Append[Ended | None]:
        cost = current.respond(response, usage=usage, attempt=attempt, model=model)
        end = Ended(0, "done", cost, current.price - cost, response=response, attempt=attempt)
        return _append_end(view, current, end, reason="unused", cause=cause)

    return _ending(exchange, respond)


def cancel_message(message_id: UUID, cause: Cause) -> Ended | None:
    """End a message with the text so far and refund what it did not cost; see `respond_to_message`.

    Without any text it costs nothing.
    """
    first = event_log().find(Exchange, message_id)
    if first is None or first.ended:
        return end_of(message_id)
    # Once and before all else: nothing is added to it after this, however often it is decided.
    said = text_so_far(first)

    def cancel(exchange: Exchange, view: View) -> Append[Ended | None]:
        cost = exchange.cancel(said.text, usage=said.usage, attempt=said.attempt)
        refunded, text = exchange.price - cost, said.text or None
        end = Ended(0, "cancelled", cost, refunded, response=text, attempt=said.attempt)
        return _append_end(view, exchange, end, reason="cancelled", cause=cause)

    return decide_together(_ending(first, cancel))


def fail_message(message_id: UUID, reason: str, cause: Cause) -> Ended | None:
    """End a message without a response and refund it, in one append; see `respond_to_message`."""
    first = event_log().find(Exchange, message_id)
    if first is None or first.ended:
        return end_of(message_id)

    def fail(exchange: Exchange, view: View) -> Append[Ended | None]:
        exchange.fail(reason)
        end = Ended(0, "failed", 0, exchange.price, reason=reason)
        return _append_end(view, exchange, end, reason=reason, cause=cause)

    return decide_together(_ending(first, fail))


def _ending(
    first: Exchange, end: Callable[[Exchange, View], Append[Ended | None]]
) -> Decision[Ended | None]:
    """End a message, unless somebody else is first."""

    def decision(view: View) -> Ended | Append[Ended | None] | None:
        current = view.find(Exchange, first.id) if view.fresh else first.copy()
        if current is None or current.ended:
            return end_of(first.id)
        return end(current, view)

    return decision


def _append_end(
    view: View, exchange: Exchange, end: Ended, *, reason: str, cause: Cause
) -> Append[Ended | None]:
    parts: tuple[Aggregate, ...] = (exchange,)
    if end.refunded:
        account = view.load(Account, exchange.user_id)
        account.refund(end.refunded, message_id=exchange.id, reason=reason)
        # The end comes last, so that whoever waits for its position has the refund behind it.
        parts = (account, exchange)
    return Append(parts, cause, lambda position: replace(end, position=position))


def _was_sent_by(cause: Cause, message_id: UUID) -> bool:
    """Whether it was this request that sent the message, and not another one with its key."""
    return any(event.request_id == cause.request_id for event in read_stream(message_id)[:1])


def _repeated(view: View, command: SendMessage, sent: Exchange) -> Accepted:
    """The message that the key belongs to, if it is the same one and still there."""
    if command.conversation_id not in (None, sent.conversation_id):
        raise IdempotencyKeyReused("the key belongs to a message in another conversation")
    conversation = view.find(Conversation, sent.conversation_id, fresh=True)
    if conversation is None or conversation.deleted:
        raise MessageDeleted(str(sent.conversation_id))
    if command.conversation_id is None:
        account = view.load(Account, command.user_id, fresh=True)
        if sent.conversation_id != account.default_conversation_id:
            raise IdempotencyKeyReused("the key belongs to a message in another conversation")
    if sent.message != command.message:
        raise IdempotencyKeyReused("the key belongs to a message with another text")
    return Accepted(command.message_id, max_position(), repeated=True)
