"""Commands on conversations: start one, rename it, delete it with all that was said in it."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

from accounts.domain import Account, AccountDeactivated
from conversations.cancel_first import CancelFirst
from conversations.commands import ConversationNotFound
from conversations.domain import Conversation
from conversations.reply_streams import silent_seconds_max
from eventstore import keys
from eventstore.cause import Cause
from eventstore.clock import to_datetime
from eventstore.log import event_log, one_at_a_time, transaction_with_log
from eventstore.models import EventRecord
from eventstore.reading import clock_now, max_position
from projections.pending import in_flight_of_conversation
from projections.queries import recently_ended


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
    """Give a conversation another title. Raises `ConversationNotFound` and `AccountDeactivated`."""
    user_id = command.user_id
    with one_at_a_time(user_id), transaction_with_log():
        # Nothing is appended to the account, so no conflict would tell that this is out of date.
        if not event_log().load(Account, user_id, fresh=True).active:
            raise AccountDeactivated
        conversation = _own(user_id, command.conversation_id, fresh=True)
        if conversation.deleted:
            raise ConversationNotFound(str(conversation.id))
        conversation.rename(command.title)
        position = event_log().append(conversation, cause=cause)
        created_at = _started_at(conversation.id)
        return Written(conversation.id, command.title, created_at, position)


def delete_conversation(command: DeleteConversation, cause: Cause) -> int:
    """Delete a conversation for ever, in one append, and destroy its key in the same transaction.

    What is pending in it is cancelled with its text so far, and refunded. Returns the position.
    Raises `ConversationNotFound`.
    """
    return _Deletion(command, cause).carry_out()


class _Deletion(CancelFirst):
    """The decision to delete a conversation."""

    def __init__(self, command: DeleteConversation, cause: Cause) -> None:
        super().__init__(command.user_id)
        self._conversation_id = command.conversation_id
        self._cause = cause

    def pending(self) -> Collection[UUID]:
        return in_flight_of_conversation(self._conversation_id).pending

    def decide(self, *, fresh: bool) -> int:
        user_id, conversation_id = self.user_id, self._conversation_id
        log = event_log()
        # Before what is pending: of a message that is accepted after this, the account's version
        # tells at the append.
        account = log.load(Account, user_id, fresh=fresh)
        conversation = _own(user_id, conversation_id, fresh=fresh)
        if conversation.deleted and self.cut_off:
            # It was there before the connection was lost: what became of the commit is known now.
            return max_position()
        if conversation.deleted:
            raise ConversationNotFound(str(conversation_id))
        self.was_there = True
        since = clock_now() - silent_seconds_max() * 1_000_000
        in_flight = in_flight_of_conversation(conversation_id)
        self.ended_before = {*recently_ended(conversation_id, since), *in_flight.just_ended}
        account, parts = self.cancel_all(account, in_flight.pending)
        new_default_id = uuid4()
        replaced = account.close_conversation(conversation_id, new_default_id=new_default_id)
        conversation.delete()
        with transaction_with_log():
            position = log.append(*parts, account, conversation, cause=self._cause)
            # Behind the append, which encrypts the texts so far, and tells whether the account is
            # still what we know of it: an erased one has no key to wrap another by.
            keys.destroy(conversation_id, user_id=user_id)
            if replaced:
                keys.create_key(new_default_id, wrapped_by=user_id)
        return position


def _own(user_id: UUID, conversation_id: UUID, *, fresh: bool) -> Conversation:
    """A conversation of the user's, perhaps a deleted one."""
    conversation = event_log().find(Conversation, conversation_id, fresh=fresh)
    if conversation is None or conversation.user_id != user_id:
        raise ConversationNotFound(str(conversation_id))
    return conversation


def _started_at(conversation_id: UUID) -> datetime:
    return to_datetime(EventRecord.objects.get(stream_id=conversation_id, version=1).at)
