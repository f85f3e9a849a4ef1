"""What the APIs read: the live generation of each read model, personal text decrypted.

A page that would show a parked stream is not shown: it would be wrong without saying so.
"""

from eventstore.reading import max_position
from projections import positions
from projections.queries.accounts import UserRow, balance, balances, list_users, registered_at, user
from projections.queries.conversations import ConversationRow, conversation, list_conversations
from projections.queries.entries import ENTRY_MAX, StatementRow, balance_at, statement
from projections.queries.errors import ReadModelParked, UnknownCursor
from projections.queries.history import MessagePage, MessageRow, message, messages
from projections.queries.parked import parked_count
from projections.queries.turns import TurnRow, recently_ended, turns_before

__all__ = [
    "ENTRY_MAX",
    "ConversationRow",
    "MessagePage",
    "MessageRow",
    "ReadModelParked",
    "StatementRow",
    "TurnRow",
    "UnknownCursor",
    "UserRow",
    "balance",
    "balance_at",
    "balances",
    "conversation",
    "lag",
    "list_conversations",
    "list_users",
    "message",
    "messages",
    "parked_count",
    "recently_ended",
    "registered_at",
    "statement",
    "turns_before",
    "user",
]


def lag() -> int:
    """How many events the slowest projection is behind the log."""
    last = max_position()
    places = positions.live().values()
    return last - min((place.position for place in places), default=0)
