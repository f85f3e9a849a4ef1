"""Conversations: whose they are, what they are called, and where each was last active."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from eventstore.reading import RecordedEvent, has_event
from projections.models import Conversation
from projections.projection import ERASED, Projection, on, packed
from projections.table import Table, Write

STARTED = "chatledger.conversations.ConversationStarted"


class Conversations(Projection):
    """A row a conversation, from its start to its deletion or its user's erasure.

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
    remove_all = table.delete(by="user_id")

    def __init__(self) -> None:
        # By id as events say it: in a batch of messages that is the one form at hand.
        self.begun: dict[str, tuple[Any, ...]] = {}
        self.titles: dict[str, bytes | None] = {}
        self.active: dict[str, int] = {}
        self.deleted: list[tuple[str]] = []
        self.erased: list[tuple[UUID]] = []

    @on(STARTED)
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

    @on(ERASED)
    def user_erased(self, event: RecordedEvent) -> None:
        user_id = str(event.stream_id)
        for conversation_id in [key for key, row in self.begun.items() if row[1] == user_id]:
            del self.begun[conversation_id]
        self.erased.append((event.stream_id,))

    def writes(self) -> Iterator[Write]:
        yield Write(self.remove, self.deleted)
        yield Write(self.remove_all, self.erased)
        yield Write(
            self.add,
            [(*row, self.titles.pop(key), self.active.pop(key)) for key, row in self.begun.items()],
        )
        yield Write(self.rename, [(title, key) for key, title in self.titles.items()])
        yield Write(self.move, [(position, key) for key, position in self.active.items()])

    @classmethod
    def is_void(cls, event: RecordedEvent) -> bool:
        """A conversation that waited until its user was erased has no row any more."""
        return event.topic == STARTED and has_event(UUID(event.data["user_id"]), ERASED)
