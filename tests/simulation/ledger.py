"""An independent model of the log: what each append may be, and what all of them come to.

It is given the rows of one commit at a time, as they are stored, and shares no code with what wrote
them. What must never be is noted as a violation, with the number of its guarantee.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any
from uuid import UUID

#: A letter for each kind of event, so that the shape of an append is a word.
LETTERS = {
    "UsernameClaimed": "c",
    "UserRegistered": "u",
    "TokensGranted": "g",
    "GrantMade": "m",
    "TokensDebited": "D",
    "TokensRefunded": "R",
    "MessageSent": "S",
    "ResponseGenerated": "e",
    "ResponseFailed": "f",
    "ResponseCancelled": "x",
    "ConversationStarted": "s",
    "ConversationRenamed": "t",
    "ConversationClosed": "k",
    "DefaultConversationReplaced": "d",
    "ConversationDeleted": "l",
    "UserErased": "z",
    "UserDeactivated": "n",
    "UserActivated": "a",
    "RoleChanged": "o",
    "JwtsRevoked": "j",
}
#: The appends that there are. What is not here is torn, or more than one.
LAWFUL = re.compile(
    "cug"  # a registration
    "|gm"  # a grant
    "|Ds?S"  # a send
    "|R?e|Rf|R?x"  # an end, with its refund
    "|s|t"
    "|(R?x)*kd?l"  # the deletion of a conversation
    "|(R?x)*z"  # an erasure
    "|[naoj]"
)

Row = tuple[int, str, int, str, bytes, int, str]
SELECT = (
    "SELECT position, stream_id, version, topic, data, at, request_id FROM eventstore_event"
    " WHERE position > ? ORDER BY position"
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One event of the log."""

    position: int
    stream: str
    version: int
    kind: str
    data: dict[str, Any]
    at: int
    request: str

    def is_about(self, user: str, amount: int, message_id: str) -> bool:
        """Whether these are the tokens of this user and this message."""
        said = self.stream, self.data["amount"], _id(self.data["message_id"])
        return said == (user, amount, message_id)


@dataclass
class Entry:
    """One movement of tokens, as a statement shows it."""

    kind: str
    amount: int
    balance: int
    message_id: str | None


@dataclass
class Account:
    default: str
    request: str
    balance: int = 0
    active: bool = True
    erased: bool = False
    entries: list[Entry] = field(default_factory=list)


@dataclass
class Conversation:
    user: str
    deleted: bool = False


@dataclass
class Message:
    user: str
    conversation: str
    price: int
    prices: dict[str, int] | None
    request: str
    deadline_at: int
    end: str = ""
    cost: int = 0
    end_position: int = 0
    reason: str | None = None


class Ledger:
    """What the log says, event by event."""

    def __init__(self) -> None:
        self.position = 0
        self.at = 0
        self.versions: dict[str, int] = defaultdict(int)
        self.accounts: dict[str, Account] = {}
        self.conversations: dict[str, Conversation] = {}
        self.messages: dict[str, Message] = {}
        self.pending: dict[str, Message] = {}
        self.grants: dict[str, tuple[str, int]] = {}
        self.violations: list[str] = []
        self._debit: Fact | None = None
        self._refund: Fact | None = None
        self._takes: dict[str, Callable[[Fact], None]] = defaultdict(
            lambda: self._of_no_account,
            UserRegistered=self._registered,
            TokensGranted=self._granted,
            GrantMade=self._grant_made,
            TokensDebited=self._debited,
            TokensRefunded=self._refunded,
            MessageSent=self._sent,
            ResponseGenerated=self._ended,
            ResponseFailed=self._ended,
            ResponseCancelled=self._ended,
            ConversationStarted=self._conversation_started,
            DefaultConversationReplaced=self._default_replaced,
            ConversationDeleted=self._conversation_deleted,
            UserErased=self._erased,
            UserDeactivated=self._deactivated,
            UserActivated=self._activated,
        )

    def take(self, rows: Sequence[Row]) -> None:
        """What one commit has added to the log."""
        facts = [
            Fact(position, stream, version, topic.rsplit(".", 1)[1], json.loads(data), at, request)
            for position, stream, version, topic, data, at, request in rows
        ]
        # Requests that share a commit stand in it one behind the other.
        for _, of_request in groupby(facts, key=lambda fact: fact.request):
            self._take_append(list(of_request))

    def _take_append(self, facts: Sequence[Fact]) -> None:
        if not LAWFUL.fullmatch("".join(LETTERS[fact.kind] for fact in facts)):
            self._violated(5, f"an append of {[fact.kind for fact in facts]}")
        self._debit = self._refund = None
        for fact in facts:
            self._in_order(fact.position, fact.stream, fact.version, fact.at)
            self._takes[fact.kind](fact)
        if self._is_half():
            self._violated(2, "a debit without its message, or a refund without its end")

    def _is_half(self) -> bool:
        """Whether a debit has no message yet, or a refund no end."""
        return bool(self._debit or self._refund)

    def _registered(self, fact: Fact) -> None:
        default = _id(fact.data["default_conversation_id"])
        self.accounts[fact.stream] = Account(default, fact.request)

    def _granted(self, fact: Fact) -> None:
        self._moved(fact.stream, "granted", fact.data["amount"], None)

    def _grant_made(self, fact: Fact) -> None:
        self.grants[fact.stream] = _id(fact.data["user_id"]), fact.data["amount"]

    def _debited(self, fact: Fact) -> None:
        self._debit = fact
        self._moved(fact.stream, "debited", fact.data["amount"], _id(fact.data["message_id"]))

    def _refunded(self, fact: Fact) -> None:
        if self._refund:
            self._violated(4, "a refund without its end")
        self._refund = fact
        self._moved(fact.stream, "refunded", fact.data["amount"], _id(fact.data["message_id"]))

    def _conversation_started(self, fact: Fact) -> None:
        user = _id(fact.data["user_id"])
        self.conversations[fact.stream] = Conversation(user)
        if self.accounts[user].erased:
            self._violated(12, f"conversation {fact.stream} was begun after the erasure")

    def _default_replaced(self, fact: Fact) -> None:
        self.accounts[fact.stream].default = _id(fact.data["conversation_id"])

    def _conversation_deleted(self, fact: Fact) -> None:
        self.conversations[fact.stream].deleted = True
        self._nothing_is_pending("conversation", fact.stream)

    def _erased(self, fact: Fact) -> None:
        account = self.accounts[fact.stream]
        account.active, account.erased = False, True
        self._nothing_is_pending("user", fact.stream)

    def _deactivated(self, fact: Fact) -> None:
        self.accounts[fact.stream].active = False

    def _activated(self, fact: Fact) -> None:
        self.accounts[fact.stream].active = True

    def _of_no_account(self, fact: Fact) -> None:
        """It changes nothing that is counted here."""

    def _in_order(self, position: int, stream: str, version: int, at: int) -> None:
        self.position += 1
        self.versions[stream] += 1
        if position != self.position:
            self._violated(9, f"position {position} at place {self.position}")
        if version != self.versions[stream]:
            self._violated(9, f"version {version} of {stream} at place {self.versions[stream]}")
        if at < self.at:
            self._violated(13, f"time went back at position {position}")
        self.at = at

    def _moved(self, user: str, kind: str, amount: int, message_id: str | None) -> None:
        account = self.accounts[user]
        account.balance += -amount if kind == "debited" else amount
        account.entries.append(Entry(kind, amount, account.balance, message_id))
        if account.balance < 0:
            self._violated(1, f"the balance of {user} is {account.balance}")
        if amount <= 0:
            self._violated(4, f"{kind} {amount}")
        if account.erased and kind != "refunded":
            self._violated(12, f"{kind} after the erasure of {user}")

    def _sent(self, fact: Fact) -> None:
        stream, data, debit = fact.stream, fact.data, self._debit
        user, conversation = _id(data["user_id"]), _id(data["conversation_id"])
        deadline_at = fact.at + data["deadline_seconds"] * 1_000_000
        price, prices = data["price"], data["usage_prices"]
        if stream in self.messages:
            self._violated(3, f"{stream} was sent twice")
        if not debit or not debit.is_about(user, price, stream):
            self._violated(2, f"{stream} is not what was paid for")
        if not self.accounts[user].active:
            self._violated(2, f"{stream} was sent by an account that is not active")
        place = self.conversations[conversation]
        if place.user != user or place.deleted:
            self._violated(10, f"{stream} was sent to somebody's or a deleted conversation")
        self.messages[stream] = self.pending[stream] = Message(
            user, conversation, price, prices, fact.request, deadline_at
        )
        self._debit = None

    def _ended(self, fact: Fact) -> None:
        stream, kind, data = fact.stream, fact.kind, fact.data
        message = self.messages[stream]
        if message.end:
            self._violated(3, f"{stream} ended again as {kind}")
        cost = data["cost"]
        if cost != (due := _cost_due(message, kind, data)):
            self._violated(4, f"{stream} cost {cost} as {kind}, where {due} was due")
        unused, refund = message.price - cost, self._refund
        if not (refund.is_about(message.user, unused, stream) if refund else unused == 0):
            self._violated(4, f"{stream} cost {cost} of {message.price}, refunded was {refund}")
        message.end, message.cost, message.end_position = kind, cost, fact.position
        message.reason = data.get("reason")
        self.pending.pop(stream, None)
        self._refund = None

    def _nothing_is_pending(self, owner: str, owner_id: str) -> None:
        left = [each for each, sent in self.pending.items() if getattr(sent, owner) == owner_id]
        if left:
            self._violated(3, f"{left} are pending where their {owner} is gone")

    def _violated(self, guarantee: int, what: str) -> None:
        self.violations.append(f"{guarantee}: {what} (position {self.position})")


def _cost_due(message: Message, kind: str, data: dict[str, Any]) -> int:
    """Nothing after a failure or without any text, else the flat price or that of the usage."""
    if kind == "ResponseFailed":
        return 0
    if kind == "ResponseCancelled" and data["response"] is None:
        return 0
    usage: dict[str, int] | None = data["usage"]
    if message.prices is None or usage is None:
        return message.price
    thousandths = (
        message.prices["prompt_per_1000"] * usage["prompt_tokens"]
        + message.prices["completion_per_1000"] * usage["completion_tokens"]
    )
    return int(min(message.price, (thousandths + 999) // 1000))


def _id(written: str) -> str:
    return UUID(written).hex
