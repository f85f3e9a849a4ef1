"""Conversations: whose they are, what they are called, and where each was last active."""

from collections.abc import Iterator
from typing import Any

from eventstore.reading import RecordedEvent
from projections.models import Conversation
from projections.projection import Projection, on, packed
from projections.table import Table, Write


class Conversations(Projection):
    """A row a conversation, from its start to its deletion.

    It is active when it starts and when a message is sent in it; another title is no activity.
    """

    name = "conversations"
    version = 1
    table = Table(Conversation)

    add = table.insert("user_id", "position", "created_at", "title", "active")
    rename = table.update("title")
    # Only forwards: a message that was parked may come behind later ones.
    move = table.raise_to("active")
    remove = table.delete()

    def __init__(self) -> None:
        # By id as events say it: in a batch of messages that is the one form at hand.
        self.begun: dict[str, tuple[Any, ...]] = {}
        self.titles: dict[str, bytes | None] = {}
        self.active: dict[str, int] = {}
        self.deleted: list[tuple[str]] = []

    @on("chatledger.conversations.ConversationStarted")
    def started(self, event: RecordedEvent) -> None:
        conversation_id = str(event.stream_id)
        user_id = event.data["user_id"]
        self.begun[conversation_id] = (conversation_id, user_id, event.position, event.at)
        self.titles[conversation_id] = packed(event.data["title"])
        self.active[conversation_id] = event.position

    @on("chatledger.conversations.ConversationRenamed")
    def renamed(self, event: RecordedEvent) -> None:
        self.titles[str(event.stream_id)] = packed(event.data["title"])

    @on("chatledger.conversations.MessageSent")
    def message_sent(self, event: RecordedEvent) -> None:
        self.active[event.data["conversation_id"]] = event.position

    @on("chatledger.conversations.ConversationDeleted")
    def was_deleted(self, event: RecordedEvent) -> None:
        conversation_id = str(event.stream_id)
        if self.begun.pop(conversation_id, None) is None:
            self.deleted.append((conversation_id,))

    def writes(self) -> Iterator[Write]:
        yield Write(self.remove, self.deleted)
        yield Write(
            self.add,
            [(*row, self.titles.pop(key), self.active.pop(key)) for key, row in self.begun.items()],
        )
        yield Write(self.rename, [(title, key) for key, title in self.titles.items()])
        yield Write(self.move, [(position, key) for key, position in self.active.items()])
