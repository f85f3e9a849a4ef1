"""Commands on conversations: start one, rename it, delete it with all that was said in it."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from uuid import UUID, uuid4

from accounts.domain import Account, AccountDeactivated
from conversations.cancelling import SoFar, forget_streams, tell, text_so_far
from conversations.commands import ConversationNotFound
from conversations.domain import Conversation, Exchange
from conversations.ends import Ended
from conversations.reply_streams import silent_seconds_max
from eventstore import keys
from eventstore.cause import Cause
from eventstore.clock import to_datetime
from eventstore.database import StoreUnavailable, guarded
from eventstore.domain import Aggregate
from eventstore.log import decide, event_log, one_at_a_time, transaction_with_log
from eventstore.models import EventRecord
from eventstore.reading import clock_now, max_position
from projections.pending import in_flight_of_conversation
from projections.queries import recently_ended

#: How often a deletion decides before it makes all other writers wait while it does: somebody who
#: sends without a pause on another process could be ahead of it each time.
TRIES_BESIDE_OTHERS_MAX = 3


@dataclass(frozen=True)
class StartConversation:
    user_id: UUID
    title: str | None = field(repr=False)


@dataclass(frozen=True)
class RenameConversation:
    user_id: UUID
    conversation_id: UUID
    title: str = field(repr=False)


@dataclass(frozen=True)
class DeleteConversation:
    user_id: UUID
    conversation_id: UUID


@dataclass(frozen=True)
class Written:
    """A conversation as the command left it, and the position from which on it is shown so."""

    id: UUID
    title: str | None = field(repr=False)
    created_at: datetime
    position: int


def start_conversation(command: StartConversation, cause: Cause) -> Written:
    """Start a conversation with a key of its own. Raises `AccountDeactivated`."""
    conversation_id = uuid4()
    with one_at_a_time(command.user_id), transaction_with_log():
        # Nothing is appended to the account, so no conflict would tell that this is out of date.
        if not event_log().load(Account, command.user_id, fresh=True).active:
            raise AccountDeactivated
        keys.create_key(conversation_id, wrapped_by=command.user_id)
        conversation = Conversation.start(
            conversation_id, user_id=command.user_id, title=command.title
        )
        position = event_log().append(conversation, cause=cause)
        return Written(conversation_id, command.title, _started_at(conversation_id), position)


def rename_conversation(command: RenameConversation, cause: Cause) -> Written:
    """Give a conversation another title. Raises `ConversationNotFound`."""

    def decision(*, fresh: bool) -> Written:
        conversation = _own(command.user_id, command.conversation_id, fresh=fresh)
        if conversation.deleted:
            raise ConversationNotFound(str(conversation.id))
        created_at = _started_at(conversation.id)
        conversation.rename(command.title)
        position = event_log().append(conversation, cause=cause)
        return Written(conversation.id, command.title, created_at, position)

    return decide(decision)


def delete_conversation(command: DeleteConversation, cause: Cause) -> int:
    """Delete a conversation for ever, in one append, and destroy its key in the same transaction.

    What is pending in it is cancelled with its text so far, and refunded. Returns the position.
    Raises `ConversationNotFound`.
    """
    deletion = _Deletion(command, cause)
    with one_at_a_time(command.user_id):
        position = decide(deletion)
    for message_id, ended in deletion.ends(position).items():
        tell(message_id, ended)
    forget_streams([*deletion.ended_before, *deletion.ends(position)])
    return position


class _Deletion:
    """The decision to delete a conversation, and what has to be told and forgotten after it."""

    def __init__(self, command: DeleteConversation, cause: Cause) -> None:
        self._command = command
        self._cause = cause
        self._tries = 0
        self._was_there = False
        self._cut_off = False
        self._said: dict[UUID, SoFar] = {}
        self._cancelled: dict[UUID, Ended] = {}
        #: Messages whose reply streams may still hold their text.
        self.ended_before: set[UUID] = set()

    def __call__(self, *, fresh: bool) -> int:
        self._tries += 1
        alone = self._tries > TRIES_BESIDE_OTHERS_MAX
        try:
            return guarded(self._decide_alone if alone else partial(self._decide, fresh=fresh))
        except StoreUnavailable:
            self._cut_off = self._was_there
            raise

    def ends(self, position: int) -> dict[UUID, Ended]:
        """How the messages ended that were pending; `position` is the deletion's."""
        return {id_: replace(ended, position=position) for id_, ended in self._cancelled.items()}

    def _decide_alone(self) -> int:
        # What can be done before everybody has to wait is done before.
        for message_id in in_flight_of_conversation(self._command.conversation_id).pending:
            self._text_of(event_log().load(Exchange, message_id))
        with transaction_with_log():
            return self._decide(fresh=True)

    def _text_of(self, exchange: Exchange) -> SoFar:
        """What was said; a reply stream that was closed in one try says no more in the next."""
        if exchange.id not in self._said:
            self._said[exchange.id] = text_so_far(exchange)
        return self._said[exchange.id]

    def _decide(self, *, fresh: bool) -> int:
        user_id, conversation_id = self._command.user_id, self._command.conversation_id
        log = event_log()
        # Before what is pending: of a message that is accepted after this, the account's version
        # tells at the append.
        account = log.load(Account, user_id, fresh=fresh)
        conversation = _own(user_id, conversation_id, fresh=fresh)
        if conversation.deleted and self._cut_off:
            # It was there before the connection was lost: what became of the commit is known now.
            return max_position()
        if conversation.deleted:
            raise ConversationNotFound(str(conversation_id))
        self._was_there = True
        since = clock_now() - silent_seconds_max() * 1_000_000
        in_flight = in_flight_of_conversation(conversation_id)
        self.ended_before = {*recently_ended(conversation_id, since), *in_flight.just_ended}
        account, parts = self._cancel_all(account, in_flight.pending)
        new_default_id = uuid4()
        replaced = account.close_conversation(conversation_id, new_default_id=new_default_id)
        conversation.delete()
        with transaction_with_log():
            if replaced:
                keys.create_key(new_default_id, wrapped_by=user_id)
            position = log.append(*parts, account, conversation, cause=self._cause)
            # Behind the append, which encrypts the texts so far.
            keys.destroy(conversation_id)
        return position

    def _cancel_all(
        self, account: Account, pending: Collection[UUID]
    ) -> tuple[Account, list[Aggregate]]:
        """Cancel what is pending, each end with its refund right before it.

        Returns the account as it goes on, and the parts to be appended so far.
        """
        parts: list[Aggregate] = []
        self._cancelled = {}
        for message_id in pending:
            exchange = event_log().load(Exchange, message_id)
            if exchange.ended:
                self.ended_before.add(message_id)
                continue
            said = self._text_of(exchange)
            cost = exchange.cancel(said.text, usage=said.usage, attempt=said.attempt)
            refunded = exchange.price - cost
            account.refund(refunded, message_id=message_id, reason="cancelled")
            # Whoever follows it is told without the text, which is gone with the conversation.
            self._cancelled[message_id] = Ended(
                0, "cancelled", cost, refunded, attempt=said.attempt
            )
            parts += [account, exchange]
            # A copy has nothing pending: what it decides comes behind this end.
            account = account.copy()
        return account, parts


def _own(user_id: UUID, conversation_id: UUID, *, fresh: bool) -> Conversation:
    """A conversation of the user's, perhaps a deleted one."""
    conversation = event_log().find(Conversation, conversation_id, fresh=fresh)
    if conversation is None or conversation.user_id != user_id:
        raise ConversationNotFound(str(conversation_id))
    return conversation


def _started_at(conversation_id: UUID) -> datetime:
    return to_datetime(EventRecord.objects.get(stream_id=conversation_id, version=1).at)
