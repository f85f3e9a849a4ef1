"""What tests of a user's data do again and again."""

from uuid import UUID

from accounts.domain import Account
from conversations.commands import respond_to_message
from conversations.conversation_commands import StartConversation, start_conversation
from conversations.domain import Exchange
from eventstore.log import EventLog, event_log
from eventstore.models import DataKey
from eventstore.reading import RecordedEvent, read_events
from tests.conversations.conftest import CAUSE


def respond(message_id: UUID, response: str = "Hi there!") -> None:
    exchange = event_log().load(Exchange, message_id)
    respond_to_message(exchange, response, usage=None, attempt=1, model="dummy", cause=CAUSE)


def start(user_id: UUID, title: str = "Jokes") -> UUID:
    return start_conversation(StartConversation(user_id, title), CAUSE).id


def account_of(user_id: UUID) -> Account:
    """The account as the log says, whatever this process remembers."""
    return EventLog().load(Account, user_id)


def all_events() -> list[RecordedEvent]:
    found: list[RecordedEvent] = []
    while events := read_events(found[-1].position if found else 0):
        found += events
    return found


def wrapped_keys(user_id: UUID) -> dict[UUID, bytes]:
    """The wrapped keys of a user and their conversations, those that are not destroyed."""
    rows = DataKey.objects.exclude(wrapped=None)
    return {
        row.id: bytes(row.wrapped or b"") for row in rows if user_id in (row.id, row.wrapped_by)
    }
