"""Users: who is registered, oldest first."""

from collections.abc import Iterator
from typing import Any

from eventstore.reading import RecordedEvent
from projections.models import User
from projections.projection import Projection, on, packed
from projections.table import Table, Write


class Users(Projection):
    """A row a registered user; the name stays encrypted."""

    name = "users"
    version = 1
    table = Table(User)

    add = table.insert("position", "username", "created_at")

    def __init__(self) -> None:
        self.new: list[tuple[Any, ...]] = []

    @on("chatledger.accounts.UserRegistered")
    def registered(self, event: RecordedEvent) -> None:
        username = packed(event.data["username"])
        self.new.append((event.stream_id, event.position, username, event.at))

    def writes(self) -> Iterator[Write]:
        yield Write(self.add, self.new)
