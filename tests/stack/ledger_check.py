"""An independent reader of the log: plain SQL, no code of the application, every invariant by hand.

The numbers are those of the guarantees: 1 balance, 2 debit with its message, 3 one end, 4 refunds,
7 an end in time, 9 contiguous versions and positions, 13 time.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

SELECT = (
    "SELECT position, stream_id, version, topic, data, at, request_id FROM eventstore_event"
    " ORDER BY position"
)
#: How long after its deadline a message is ended at the latest: a sweep, and somebody to sweep.
SWEPT_SECONDS_MAX = 15
ENDS = ("ResponseGenerated", "ResponseFailed", "ResponseCancelled")


@dataclass(frozen=True)
class Line:
    """One event of the log."""

    position: int
    stream: str
    version: int
    kind: str
    data: dict[str, Any]
    at: int
    request: str


class Ledger:
    """The whole log, in order."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self.lines = [
            Line(
                position,
                str(UUID(str(stream))),
                version,
                topic.rsplit(".", 1)[1],
                json.loads(bytes(data)),
                at,
                request,
            )
            for position, stream, version, topic, data, at, request in rows
        ]

    def of(self, *kinds: str) -> list[Line]:
        return [line for line in self.lines if line.kind in kinds]

    @property
    def messages(self) -> set[str]:
        return {line.stream for line in self.of("MessageSent")}

    @property
    def pending(self) -> set[str]:
        return self.messages - {line.stream for line in self.of(*ENDS)}

    def messages_of(self, user_id: str) -> list[str]:
        return [line.stream for line in self.of("MessageSent") if line.data["user_id"] == user_id]

    def end_of(self, message_id: str) -> Line:
        """The one end of a message."""
        (end,) = [line for line in self.of(*ENDS) if line.stream == message_id]
        return end

    def refunds_of(self, message_id: str) -> list[int]:
        refunds = self.of("TokensRefunded")
        return [line.data["amount"] for line in refunds if line.data["message_id"] == message_id]

    def balance_of(self, user_id: str) -> int:
        signs = {"TokensGranted": 1, "TokensDebited": -1, "TokensRefunded": 1}
        return sum(
            signs[line.kind] * line.data["amount"]
            for line in self.of(*signs)
            if line.stream == user_id
        )

    def violations(self) -> list[str]:
        """Everything that must hold of a log at rest and does not."""
        return [*self._order(), *self._balances(), *self._debits(), *self._ends()]

    def _order(self) -> list[str]:
        found = []
        versions: Counter[str] = Counter()
        last_at = 0
        for number, line in enumerate(self.lines, 1):
            versions[line.stream] += 1
            if line.position != number:
                found.append(f"9: position {line.position} stands at place {number}")
            if line.version != versions[line.stream]:
                found.append(f"9: version {line.version} of {line.stream} is out of order")
            if line.at < last_at:
                found.append(f"13: at goes backwards at position {line.position}")
            last_at = line.at
        return found

    def _balances(self) -> list[str]:
        balances: Counter[str] = Counter()
        found = []
        for line in self.of("TokensGranted", "TokensDebited", "TokensRefunded"):
            balances[line.stream] += line.data["amount"] * (
                -1 if line.kind == "TokensDebited" else 1
            )
            if balances[line.stream] < 0:
                found.append(f"1: {line.stream} is overdrawn at position {line.position}")
        return found

    def _debits(self) -> list[str]:
        debits = defaultdict(list)
        for line in self.of("TokensDebited"):
            debits[line.data["message_id"]].append(line)
        found = [f"2: {each} was debited and never sent" for each in set(debits) - self.messages]
        for sent in self.of("MessageSent"):
            paid = debits[sent.stream]
            if len(paid) != 1:
                found.append(f"2: {sent.stream} was debited {len(paid)} times")
            elif sent.data["price"] != (price := _price_due(sent)):
                found.append(
                    f"4: {sent.stream} was debited {sent.data['price']} instead of {price}"
                )
            elif not (
                paid[0].stream == sent.data["user_id"]
                and paid[0].data["amount"] == sent.data["price"]
                and paid[0].at == sent.at
                and paid[0].request == sent.request
                and sent.position - paid[0].position in (1, 2)
            ):
                found.append(f"2: {sent.stream} and its debit are not one append")
        return found

    def _ends(self) -> list[str]:
        ends = defaultdict(list)
        for line in self.of(*ENDS):
            ends[line.stream].append(line)
        refunds = defaultdict(list)
        for line in self.of("TokensRefunded"):
            refunds[line.data["message_id"]].append(line)
        unknown = (ends.keys() | refunds.keys()) - self.messages
        found = [f"3: {each} ended or was refunded and was never sent" for each in sorted(unknown)]
        for sent in self.of("MessageSent"):
            ended, refunded = ends[sent.stream], refunds[sent.stream]
            if len(ended) != 1:
                found.append(f"3: {sent.stream} has {len(ended)} ends")
                continue
            end = ended[0]
            cost, price = end.data["cost"], sent.data["price"]
            due_at = sent.at + (sent.data["deadline_seconds"] + SWEPT_SECONDS_MAX) * 1_000_000
            if end.at > due_at:
                late = (end.at - due_at) / 1e6
                found.append(f"7: {sent.stream} ended {late:.1f} s after its deadline and a sweep")
            if cost != (due := _cost_due(sent, end)):
                found.append(
                    f"4: {sent.stream} cost {cost} of {price} and is {end.kind}: {due} was due"
                )
            if [line.data["amount"] for line in refunded] != (
                [price - cost] if price > cost else []
            ):
                found.append(f"4: {sent.stream} cost {cost} of {price}; its refunds do not match")
            if any(line.position != end.position - 1 or line.at != end.at for line in refunded):
                found.append(f"4: the refund of {sent.stream} is not in one append with its end")
        return found


def _price_due(sent: Line) -> int:
    """What has to be debited: the flat price, or by usage the worst case."""
    prices = sent.data.get("usage_prices")
    if prices is None:
        return int(sent.data["price"])
    return _by_usage(prices, prices["prompt_tokens_max"], prices["completion_tokens_max"])


def _cost_due(sent: Line, end: Line) -> int:
    """What a message has to cost by its end: nothing without text, else its price or its usage."""
    if end.kind == "ResponseFailed":
        return 0
    # A cancelled message without text has none; a text that nobody can read any more is there.
    if end.kind == "ResponseCancelled" and end.data["response"] is None:
        return 0
    prices, usage = sent.data.get("usage_prices"), end.data.get("usage")
    if prices is None or usage is None:
        return int(sent.data["price"])
    used = _by_usage(prices, usage["prompt_tokens"], usage["completion_tokens"])
    return min(used, int(sent.data["price"]))


def _by_usage(prices: dict[str, int], prompt_tokens: int, completion_tokens: int) -> int:
    thousandths = (
        prompt_tokens * prices["prompt_per_1000"]
        + completion_tokens * prices["completion_per_1000"]
    )
    whole, rest = divmod(thousandths, 1000)
    return whole + (rest > 0)


def read_sqlite(file: Path) -> Ledger:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return Ledger(connection.execute(SELECT).fetchall())


def read_postgres(url: str) -> Ledger:
    with psycopg.connect(url) as connection:
        return Ledger(connection.execute(SELECT).fetchall())
