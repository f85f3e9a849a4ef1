"""What the deletion of a conversation and the erasure of a user have in common.

Both end something for ever in one append, and first cancel what is pending in it, each message with
its refund. Both are raced by sends and by ends, and neither may fail for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from uuid import UUID

from accounts.domain import Account
from conversations.cancelling import SoFar, forget_streams, tell, text_so_far
from conversations.domain import Exchange
from conversations.ends import Ended
from eventstore.database import StoreUnavailable, guarded
from eventstore.decisions import decide
from eventstore.domain import Aggregate
from eventstore.log import event_log, one_at_a_time, transaction_with_log

#: How often it is decided before all other writers wait for it: somebody who sends without a pause
#: on another process could be ahead of it each time.
TRIES_BESIDE_OTHERS_MAX = 3


class CancelFirst(ABC):
    """A decision that cancels what is pending, and what has to be told and forgotten after it."""

    def __init__(self, user_id: UUID) -> None:
        self.user_id = user_id
        self._tries = 0
        self._said: dict[UUID, SoFar] = {}
        self._cancelled: dict[UUID, Ended] = {}
        #: Whether what is to end was there at a try whose commit may have been cut off.
        self.was_there = False
        self.cut_off = False
        #: Messages that ended by themselves, whose reply streams may still hold their text.
        self.ended_before: set[UUID] = set()

    @abstractmethod
    def pending(self) -> Collection[UUID]:
        """The messages that are pending now, by the log."""

    @abstractmethod
    def decide(self, *, fresh: bool) -> int:
        """Load, cancel all, end, append; returns the position.

        Sets `was_there` once it is known. May be called within a transaction that holds the append
        lock.
        """

    def carry_out(self) -> int:
        """Decide until it is done; then tell who waits, and forget what was streamed."""
        with one_at_a_time(self.user_id):
            position = decide(self)
        for message_id, ended in self._cancelled.items():
            tell(message_id, replace(ended, position=position))
        forget_streams([*self.ended_before, *self._cancelled])
        return position

    def __call__(self, *, fresh: bool) -> int:
        self._tries += 1
        alone = self._tries > TRIES_BESIDE_OTHERS_MAX
        try:
            return guarded(self._decide_alone if alone else partial(self.decide, fresh=fresh))
        except StoreUnavailable:
            self.cut_off = self.was_there
            raise

    def cancel_all(
        self, account: Account, pending: Collection[UUID]
    ) -> tuple[Account, list[Aggregate]]:
        """Cancel what is pending, each end with its refund right before it.

        Returns the account as it goes on, and the parts to be appended so far.
        """
        parts: list[Aggregate] = []
        self._cancelled = {}
        for message_id in pending:
            exchange = event_log().load(Exchange, message_id)
            if exchange.ended:
                self.ended_before.add(message_id)
                continue
            said = self._text_of(exchange)
            cost = exchange.cancel(said.text, usage=said.usage, attempt=said.attempt)
            refunded = exchange.price - cost
            account.refund(refunded, message_id=message_id, reason="cancelled")
            # Whoever follows it is told without the text, which goes with its key.
            self._cancelled[message_id] = Ended(
                0, "cancelled", cost, refunded, attempt=said.attempt
            )
            parts += [account, exchange]
            # A copy has nothing pending: what it decides comes behind this end.
            account = account.copy()
        return account, parts

    def _decide_alone(self) -> int:
        # What can be done before everybody has to wait is done before.
        for message_id in self.pending():
            self._text_of(event_log().load(Exchange, message_id))
        with transaction_with_log():
            return self.decide(fresh=True)

    def _text_of(self, exchange: Exchange) -> SoFar:
        """What was said; a reply stream that was closed in one try says no more in the next."""
        if exchange.id not in self._said:
            self._said[exchange.id] = text_so_far(exchange)
        return self._said[exchange.id]
