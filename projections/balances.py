"""Balances: how many tokens each user has."""

from collections import defaultdict
from collections.abc import Iterator

from eventstore.reading import RecordedEvent
from projections.models import Balance
from projections.projection import ERASED, Projection, on
from projections.table import Table, Write


class Balances(Projection):
    """Granted less debited plus refunded; a batch adds one difference an account."""

    name = "balances"
    version = 1
    table = Table(Balance)

    add = table.insert(
        "amount",
        on_conflict="DO UPDATE SET amount = projections_balances.amount + excluded.amount",
    )

    remove = table.delete()

    def __init__(self) -> None:
        self.differences: dict[str, int] = defaultdict(int)
        self.erased: list[tuple[str]] = []

    @on("chatledger.accounts.UserRegistered")
    def registered(self, event: RecordedEvent) -> None:
        self.differences[event.stream_digits] += 0

    @on("chatledger.accounts.TokensGranted", "chatledger.accounts.TokensRefunded")
    def credited(self, event: RecordedEvent) -> None:
        self.differences[event.stream_digits] += event.data["amount"]

    @on("chatledger.accounts.TokensDebited")
    def debited(self, event: RecordedEvent) -> None:
        self.differences[event.stream_digits] -= event.data["amount"]

    @on(ERASED)
    def was_erased(self, event: RecordedEvent) -> None:
        self.differences.pop(event.stream_digits, None)
        self.erased.append((event.stream_digits,))

    def writes(self) -> Iterator[Write]:
        yield Write(self.remove, self.erased)
        yield Write(self.add, list(self.differences.items()))
