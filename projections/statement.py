"""Statement: every movement of a user's tokens, with the balance after it, until an erasure."""

from collections.abc import Iterator
from typing import Any

from eventstore.reading import RecordedEvent
from projections.models import StatementEntry
from projections.projection import ERASED, Projection, on, packed
from projections.table import Table, Write

GRANTED = "granted"
DEBITED = "debited"
REFUNDED = "refunded"


class Statement(Projection):
    """A row a movement; its number and its balance go on from the user's row before."""

    name = "statement"
    version = 1
    table = Table(StatementEntry)

    add = table.insert_running(
        *("at", "kind", "amount", "message_id", "reason", "code"),
        owner="user_id",
        count="entry",
        total="balance",
    )

    remove = table.delete(by="user_id")

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []
        self.erased: list[tuple[str]] = []

    @on("chatledger.accounts.TokensGranted")
    def granted(self, event: RecordedEvent) -> None:
        amount, reason = event.data["amount"], packed(event.data["reason"])
        self._moved(event, GRANTED, amount, difference=amount, reason=reason)

    @on("chatledger.accounts.TokensDebited")
    def debited(self, event: RecordedEvent) -> None:
        amount, message_id = event.data["amount"], event.data["message_id"]
        self._moved(event, DEBITED, amount, difference=-amount, message_id=message_id)

    @on("chatledger.accounts.TokensRefunded")
    def refunded(self, event: RecordedEvent) -> None:
        data = event.data
        amount, message_id, code = data["amount"], data["message_id"], data["reason"]
        self._moved(event, REFUNDED, amount, difference=amount, message_id=message_id, code=code)

    @on(ERASED)
    def user_erased(self, event: RecordedEvent) -> None:
        self.entries = [row for row in self.entries if row[1] != event.stream_digits]
        self.erased.append((event.stream_digits,))

    def writes(self) -> Iterator[Write]:
        yield Write(self.remove, self.erased)
        yield Write(self.add, self.entries)

    def _moved(
        self,
        event: RecordedEvent,
        kind: str,
        amount: int,
        *,
        difference: int,
        message_id: str | None = None,
        reason: bytes | None = None,
        code: str | None = None,
    ) -> None:
        row = (event.position, event.stream_digits, difference)
        self.entries.append((*row, event.at, kind, amount, message_id, reason, code))
