"""Users: who is registered, oldest first, until they are erased."""

from collections.abc import Iterator
from typing import Any

from eventstore.reading import RecordedEvent
from projections.models import User
from projections.projection import ERASED, Projection, on, packed
from projections.table import Table, Write


class Users(Projection):
    """A row a registered user; the name stays encrypted."""

    name = "users"
    version = 1
    table = Table(User)

    add = table.insert("position", "username", "created_at")
    remove = table.delete()

    def __init__(self) -> None:
        self.new: dict[str, tuple[Any, ...]] = {}
        self.erased: list[tuple[str]] = []

    @on("chatledger.accounts.UserRegistered")
    def registered(self, event: RecordedEvent) -> None:
        username = packed(event.data["username"])
        user_id = event.stream_digits
        self.new[user_id] = (user_id, event.position, username, event.at)

    @on(ERASED)
    def was_erased(self, event: RecordedEvent) -> None:
        if self.new.pop(event.stream_digits, None) is None:
            self.erased.append((event.stream_digits,))

    def writes(self) -> Iterator[Write]:
        yield Write(self.add, list(self.new.values()))
        yield Write(self.remove, self.erased)
