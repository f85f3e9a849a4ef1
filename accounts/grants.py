"""Grants: tokens that were given for a reason, once, however often they are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self
from uuid import UUID

from eventstore.domain import Aggregate, Created

#: Tokens that one grant gives at most.
GRANT_TOKENS_MAX = 1_000_000_000
#: The longest reason for a grant, a role, a deactivation or an activation.
REASON_CHARACTERS_MAX = 500


class Grant(Aggregate):
    """One grant. Its id is made from who gives it and their key, so that it is made once."""

    user_id: UUID
    amount: int
    reason: str

    @classmethod
    def make(cls, grant_id: UUID, *, user_id: UUID, amount: int, reason: str) -> Self:
        """Give tokens to a user, in one append with `Account.grant`."""
        return cls.begin(GrantMade, grant_id, user_id=user_id, amount=amount, reason=reason)

    def gives(self, *, user_id: UUID, amount: int, reason: str) -> bool:
        """Whether a repeat means this very grant."""
        return (self.user_id, self.amount, self.reason) == (user_id, amount, reason)


@dataclass(frozen=True, kw_only=True)
class GrantMade(Created, topic="chatledger.accounts.GrantMade"):
    """Tokens were given to a user; in one append with the `TokensGranted` before it."""

    user_id: UUID
    amount: int
    reason: str

    aggregate_class = Grant
    personal: ClassVar[Mapping[str, str]] = {"reason": "user_id"}

    def apply(self, aggregate: Any) -> None:
        aggregate.user_id = self.user_id
        aggregate.amount = self.amount
        aggregate.reason = self.reason
