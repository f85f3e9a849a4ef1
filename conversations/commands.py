"""Commands on messages: each loads, asks the domain, and appends once."""

from dataclasses import dataclass, field, replace
from typing import Protocol
from uuid import UUID, uuid4, uuid5

from django.conf import settings

from accounts.domain import Account
from conversations.cancelling import text_so_far
from conversations.domain import Conversation, Exchange, Usage
from conversations.ends import Ended, end_of
from conversations.prices import usage_prices
from eventstore.cause import Cause
from eventstore.database import StoreUnavailable
from eventstore.domain import Refused
from eventstore.log import decide, event_log, one_at_a_time
from eventstore.reading import max_position


class IdempotencyKeyReused(Refused):
    """The key belongs to a message with another text or in another conversation."""


class ConversationNotFound(Refused):
    """There is no such conversation of this user's."""


class MessageDeleted(ConversationNotFound):
    """The message was deleted with its conversation."""


@dataclass(frozen=True)
class SendMessage:
    """`conversation_id` None: the user's default conversation. `idempotent`: there is a key.

    `awaited`: the answer waits for the end, so that nobody is owed a look at the message before.
    """

    user_id: UUID
    conversation_id: UUID | None
    message_id: UUID
    message: str = field(repr=False)
    idempotent: bool
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

    prices = usage_prices(command.message)
    price = prices.price if prices else settings.MESSAGE_PRICE
    cut_off = False

    def decision(*, fresh: bool) -> Accepted:
        nonlocal cut_off
        log = event_log()
        if command.idempotent or fresh:
            sent = log.find(Exchange, command.message_id)
            if sent is not None:
                # What this request has sent itself, without hearing so, it still has to hand on.
                return replace(_repeated(command, sent), repeated=not cut_off)
        account = log.load(Account, command.user_id, fresh=fresh)
        conversation_id = command.conversation_id or account.default_conversation_id
        # The append proves that this is the latest of the account, and so that its default
        # conversation is there. Any other may have been deleted by another process, without a
        # trace in what this one remembers.
        is_default = conversation_id == account.default_conversation_id
        conversation = log.find(Conversation, conversation_id, fresh=fresh or not is_default)
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
        try:
            position = log.append(
                account, conversation, exchange, cause=cause, announced=not command.awaited
            )
        except StoreUnavailable:
            cut_off = True
            raise
        return Accepted(command.message_id, position, repeated=False)

    with one_at_a_time(command.user_id):
        return decide(decision)


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

    def decision(*, fresh: bool) -> Ended | None:
        current = event_log().find(Exchange, exchange.id) if fresh else exchange.copy()
        if current is None or current.ended:
            return end_of(exchange.id)
        cost = current.respond(response, usage=usage, attempt=attempt, model=model)
        position = _append_end(current, cost=cost, reason="unused", fresh=fresh, cause=cause)
        refunded = current.price - cost
        return Ended(position, "done", cost, refunded, response=response, attempt=attempt)

    if exchange.usage_prices is None:
        # Nothing is refunded: the account has no part in it.
        return decide(decision)
    with one_at_a_time(exchange.user_id):
        return decide(decision)


def cancel_message(message_id: UUID, cause: Cause) -> Ended | None:
    """End a message with the text so far and refund what it did not cost; see `respond_to_message`.

    Without any text it costs nothing.
    """
    first = event_log().find(Exchange, message_id)
    if first is None or first.ended:
        return end_of(message_id)
    # Once and before all else: nothing is added to it after this, however often it is decided.
    said = text_so_far(first)

    def cancel(exchange: Exchange, *, fresh: bool) -> Ended:
        cost = exchange.cancel(said.text, usage=said.usage, attempt=said.attempt)
        position = _append_end(exchange, cost=cost, reason="cancelled", fresh=fresh, cause=cause)
        refunded, text = exchange.price - cost, said.text or None
        return Ended(position, "cancelled", cost, refunded, response=text, attempt=said.attempt)

    return _end_pending(first, cancel)


def fail_message(message_id: UUID, reason: str, cause: Cause) -> Ended | None:
    """End a message without a response and refund it, in one append; see `respond_to_message`."""
    first = event_log().find(Exchange, message_id)
    if first is None or first.ended:
        return end_of(message_id)

    def fail(exchange: Exchange, *, fresh: bool) -> Ended:
        exchange.fail(reason)
        position = _append_end(exchange, cost=0, reason=reason, fresh=fresh, cause=cause)
        return Ended(position, "failed", 0, exchange.price, reason=reason)

    return _end_pending(first, fail)


class _End(Protocol):
    def __call__(self, exchange: Exchange, *, fresh: bool) -> Ended: ...


def _end_pending(first: Exchange, end: _End) -> Ended | None:
    """End a message that most likely is refunded, unless somebody else is first."""

    def decision(*, fresh: bool) -> Ended | None:
        current = event_log().find(Exchange, first.id) if fresh else first.copy()
        if current is None or current.ended:
            return end_of(first.id)
        return end(current, fresh=fresh)

    with one_at_a_time(first.user_id):
        return decide(decision)


def _append_end(exchange: Exchange, *, cost: int, reason: str, fresh: bool, cause: Cause) -> int:
    log = event_log()
    unused = exchange.price - cost
    if not unused:
        return log.append(exchange, cause=cause)
    account = log.load(Account, exchange.user_id, fresh=fresh)
    account.refund(unused, message_id=exchange.id, reason=reason)
    # The end comes last, so that whoever waits for its position has the refund behind it.
    return log.append(account, exchange, cause=cause)


def _repeated(command: SendMessage, sent: Exchange) -> Accepted:
    """The message that the key belongs to, if it is the same one and still there."""
    log = event_log()
    if command.conversation_id not in (None, sent.conversation_id):
        raise IdempotencyKeyReused("the key belongs to a message in another conversation")
    conversation = log.find(Conversation, sent.conversation_id, fresh=True)
    if conversation is None or conversation.deleted:
        raise MessageDeleted(str(sent.conversation_id))
    if command.conversation_id is None:
        account = log.load(Account, command.user_id, fresh=True)
        if sent.conversation_id != account.default_conversation_id:
            raise IdempotencyKeyReused("the key belongs to a message in another conversation")
    if sent.message != command.message:
        raise IdempotencyKeyReused("the key belongs to a message with another text")
    return Accepted(command.message_id, max_position(), repeated=True)
