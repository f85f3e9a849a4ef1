"""History: every message with what became of it, until its conversation is deleted."""

from collections.abc import Collection, Iterator
from typing import Any
from uuid import UUID

from eventstore.reading import RecordedEvent, has_event
from projections.models import Message
from projections.projection import ERASED, Projection, on, packed
from projections.table import Table, Write

SENT = "chatledger.conversations.MessageSent"
DELETED = "chatledger.conversations.ConversationDeleted"

PENDING = "pending"
DONE = "done"
FAILED = "failed"
CANCELLED = "cancelled"


class History(Projection):
    """A row a message: written when it is sent, completed when it ends."""

    name = "history"
    version = 1
    table = Table(Message)

    END = ("status", "cost", "response", "model", "reason", "responded_at")
    add = table.insert("user_id", "conversation_id", "position", "message", "created_at", *END)
    complete = table.update(*END)
    remove = table.delete(by="conversation_id")

    def __init__(self) -> None:
        self.begun: dict[str, tuple[Any, ...]] = {}
        self.ends: dict[str, tuple[Any, ...]] = {}
        self.deleted: list[tuple[str]] = []

    @on(SENT)
    def sent(self, event: RecordedEvent) -> None:
        data, message_id = event.data, event.stream_digits
        self.begun[message_id] = (
            message_id,
            data["user_id"],
            data["conversation_id"],
            event.position,
            packed(data["message"]),
            event.at,
        )
        # Until it ends, a message costs what was debited for it.
        self.ends[message_id] = (PENDING, data["price"], None, None, None, None)

    @on("chatledger.conversations.ResponseGenerated")
    def generated(self, event: RecordedEvent) -> None:
        data = event.data
        end = (DONE, data["cost"], packed(data["response"]), data["model"], None, event.at)
        self.ends[event.stream_digits] = end

    @on("chatledger.conversations.ResponseFailed")
    def failed(self, event: RecordedEvent) -> None:
        data = event.data
        end = (FAILED, data["cost"], None, None, data["reason"], event.at)
        self.ends[event.stream_digits] = end

    @on("chatledger.conversations.ResponseCancelled")
    def cancelled(self, event: RecordedEvent) -> None:
        data = event.data
        end = (CANCELLED, data["cost"], packed(data["response"]), None, None, event.at)
        self.ends[event.stream_digits] = end

    @on(DELETED)
    def conversation_deleted(self, event: RecordedEvent) -> None:
        self._remove({str(event.stream_id)})

    @on(ERASED)
    def user_erased(self, event: RecordedEvent) -> None:
        # By conversation, since there is an index by conversation and none by user.
        self._remove(set(event.data["conversation_ids"]))

    def _remove(self, conversation_ids: Collection[str]) -> None:
        for message_id in [key for key, row in self.begun.items() if row[2] in conversation_ids]:
            del self.begun[message_id], self.ends[message_id]
        self.deleted += [(conversation_id,) for conversation_id in sorted(conversation_ids)]

    def writes(self) -> Iterator[Write]:
        yield Write(self.remove, self.deleted)
        yield Write(
            self.add, [(*row, *self.ends.pop(message_id)) for message_id, row in self.begun.items()]
        )
        yield Write(self.complete, [(*end, message_id) for message_id, end in self.ends.items()])

    @classmethod
    def is_void(cls, event: RecordedEvent) -> bool:
        """A message that waited until its conversation or its user was gone has no row any more."""
        if event.topic != SENT:
            return False
        conversation_id, user_id = event.data["conversation_id"], event.data["user_id"]
        return has_event(UUID(conversation_id), DELETED) or has_event(UUID(user_id), ERASED)
