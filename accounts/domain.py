"""Accounts: who somebody is, and how many tokens they have. The balance never falls below zero."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self
from uuid import UUID

from eventstore.domain import Aggregate, AggregateSnapshot, Created, Event, Refused

#: The two roles. Everybody begins as a member.
MEMBER, STAFF = ROLES = ("member", "staff")


class InsufficientTokens(Refused):
    """The balance is smaller than the price."""

    def __init__(self, balance: int, price: int) -> None:
        super().__init__(f"the balance is {balance} tokens, the price is {price}")
        self.balance = balance
        self.price = price


class AccountDeactivated(Refused):
    """The account is deactivated."""


class AccountErased(AccountDeactivated):
    """The account was erased: nothing but a refund comes after that."""


class Account(Aggregate):
    """One user's account: its balance, and what decides whether it may be used."""

    cached = True

    tokens: int
    active: bool
    role: str
    erased: bool
    jwt_epoch: int
    default_conversation_id: UUID

    @classmethod
    def register(
        cls, user_id: UUID, *, username: str, default_conversation_id: UUID, grant: int
    ) -> Self:
        """Open an account with its signup grant."""
        account = cls.begin(
            UserRegistered,
            user_id,
            username=username,
            default_conversation_id=default_conversation_id,
        )
        if grant:
            account.trigger(TokensGranted, amount=grant, reason="signup", grant_id=None)
        return account

    def grant(self, amount: int, *, reason: str, grant_id: UUID) -> None:
        """Give tokens. A deactivated account takes them too."""
        self._refuse_erased()
        self.trigger(TokensGranted, amount=amount, reason=reason, grant_id=grant_id)

    def debit(self, amount: int, *, message_id: UUID) -> None:
        """Pay for a message. Refuses what the balance does not cover."""
        if not self.active:
            raise AccountDeactivated
        if amount > self.tokens:
            raise InsufficientTokens(self.tokens, amount)
        self.trigger(TokensDebited, amount=amount, message_id=message_id)

    def refund(self, amount: int, *, message_id: UUID, reason: str) -> None:
        """Give back what a message did not cost. Any account takes it, a deactivated one too."""
        if amount:
            self.trigger(TokensRefunded, amount=amount, message_id=message_id, reason=reason)

    def close_conversation(self, conversation_id: UUID, *, new_default_id: UUID) -> bool:
        """Note that a conversation is deleted; a default one is replaced by `new_default_id`.

        Returns whether it was the default one. No send that was decided before can be appended
        after this: it would need the same version of this stream.
        """
        self._refuse_erased()
        self.trigger(ConversationClosed, conversation_id=conversation_id)
        was_default = conversation_id == self.default_conversation_id
        if was_default:
            self.trigger(DefaultConversationReplaced, conversation_id=new_default_id)
        return was_default

    def erase(self, conversation_ids: Collection[UUID]) -> None:
        """End the account for ever, with these conversations. Refuses when it was erased already.

        No send that was decided before can be appended after this, as with `close_conversation`.
        """
        self._refuse_erased()
        named = sorted(map(str, conversation_ids))
        self.trigger(UserErased, conversation_ids=named)

    def note_export(self) -> None:
        """Note that staff have read everything that is held about the user."""
        self._refuse_erased()
        self.trigger(UserExported)

    def change_password(self) -> None:
        """Note a new password. Every JWT issued before stops working."""
        self._refuse_erased()
        if not self.active:
            # The JWT that asked for it was good, and has stopped working while a hash was made.
            raise AccountDeactivated
        self.trigger(PasswordChanged, epoch=self.jwt_epoch + 1)

    def revoke_jwts(self) -> None:
        """Make every JWT issued before stop working."""
        self._refuse_erased()
        self.trigger(JwtsRevoked, epoch=self.jwt_epoch + 1)

    def change_role(self, role: str, *, reason: str | None) -> None:
        """Make a member of staff of a member, or the reverse; one who is that already stays it."""
        self._refuse_erased()
        if role != self.role:
            self.trigger(RoleChanged, role=role, reason=reason)

    def deactivate(self, *, reason: str | None) -> None:
        """Stop logins, new messages, and every JWT issued before, for good.

        What is pending goes on to its end and is paid for.
        """
        self._refuse_erased()
        if self.active:
            self.trigger(UserDeactivated, epoch=self.jwt_epoch + 1, reason=reason)

    def activate(self, *, reason: str | None) -> None:
        """Let a deactivated user log in again."""
        self._refuse_erased()
        if not self.active:
            self.trigger(UserActivated, reason=reason)

    def _refuse_erased(self) -> None:
        if self.erased:
            raise AccountErased


@dataclass(frozen=True, kw_only=True)
class UserRegistered(Created, topic="chatledger.accounts.UserRegistered"):
    """An account was opened; its default conversation begins with its first message."""

    username: str
    default_conversation_id: UUID

    aggregate_class = Account
    personal: ClassVar[Mapping[str, str]] = {"username": "originator_id"}

    def apply(self, aggregate: Any) -> None:
        aggregate.tokens = 0
        aggregate.active = True
        aggregate.role = MEMBER
        aggregate.erased = False
        aggregate.jwt_epoch = 0
        aggregate.default_conversation_id = self.default_conversation_id


@dataclass(frozen=True, kw_only=True)
class TokensGranted(Event, topic="chatledger.accounts.TokensGranted"):
    """Tokens were given: at signup, or by a member of staff who says why."""

    amount: int
    reason: str
    grant_id: UUID | None

    personal: ClassVar[Mapping[str, str]] = {"reason": "originator_id"}

    def apply(self, aggregate: Any) -> None:
        aggregate.tokens += self.amount


@dataclass(frozen=True, kw_only=True)
class TokensDebited(Event, topic="chatledger.accounts.TokensDebited"):
    """A message was paid for."""

    amount: int
    message_id: UUID

    def apply(self, aggregate: Any) -> None:
        aggregate.tokens -= self.amount


@dataclass(frozen=True, kw_only=True)
class TokensRefunded(Event, topic="chatledger.accounts.TokensRefunded"):
    """What a message did not cost was given back; `reason` is a code, not a text."""

    amount: int
    message_id: UUID
    reason: str

    def apply(self, aggregate: Any) -> None:
        aggregate.tokens += self.amount


@dataclass(frozen=True, kw_only=True)
class ConversationClosed(Event, topic="chatledger.accounts.ConversationClosed"):
    """A conversation of this account was deleted: no message is paid for in it after this."""

    conversation_id: UUID


@dataclass(frozen=True, kw_only=True)
class DefaultConversationReplaced(Event, topic="chatledger.accounts.DefaultConversationReplaced"):
    """The default conversation was deleted; another begins with the next message."""

    conversation_id: UUID

    def apply(self, aggregate: Any) -> None:
        aggregate.default_conversation_id = self.conversation_id


@dataclass(frozen=True, kw_only=True)
class PasswordChanged(Event, topic="chatledger.accounts.PasswordChanged"):
    """The password is another one; JWTs of an earlier epoch are void."""

    epoch: int

    def apply(self, aggregate: Any) -> None:
        aggregate.jwt_epoch = self.epoch


@dataclass(frozen=True, kw_only=True)
class JwtsRevoked(Event, topic="chatledger.accounts.JwtsRevoked"):
    """JWTs of an earlier epoch are void."""

    epoch: int

    def apply(self, aggregate: Any) -> None:
        aggregate.jwt_epoch = self.epoch


@dataclass(frozen=True, kw_only=True)
class RoleChanged(Event, topic="chatledger.accounts.RoleChanged"):
    """The user became a member of staff, or stopped being one."""

    role: str
    reason: str | None

    personal: ClassVar[Mapping[str, str]] = {"reason": "originator_id"}

    def apply(self, aggregate: Any) -> None:
        aggregate.role = self.role


@dataclass(frozen=True, kw_only=True)
class UserDeactivated(Event, topic="chatledger.accounts.UserDeactivated"):
    """The user may not log in or send; JWTs of an earlier epoch are void, for good."""

    epoch: int
    reason: str | None

    personal: ClassVar[Mapping[str, str]] = {"reason": "originator_id"}

    def apply(self, aggregate: Any) -> None:
        aggregate.active = False
        aggregate.jwt_epoch = self.epoch


@dataclass(frozen=True, kw_only=True)
class UserActivated(Event, topic="chatledger.accounts.UserActivated"):
    """The user may log in and send again."""

    reason: str | None

    personal: ClassVar[Mapping[str, str]] = {"reason": "originator_id"}

    def apply(self, aggregate: Any) -> None:
        aggregate.active = True


@dataclass(frozen=True, kw_only=True)
class UserExported(Event, topic="chatledger.accounts.UserExported"):
    """A member of staff was given everything that is held about the user."""


@dataclass(frozen=True, kw_only=True)
class UserErased(Event, topic="chatledger.accounts.UserErased"):
    """A user was forgotten: their keys are destroyed, and these conversations are gone."""

    conversation_ids: Sequence[str]

    def apply(self, aggregate: Any) -> None:
        aggregate.active = False
        aggregate.erased = True


@dataclass(frozen=True, kw_only=True)
class AccountSnapshot(AggregateSnapshot, topic="chatledger.accounts.AccountSnapshot"):
    """An account at a version, so that its ten-thousandth debit costs what its tenth did."""

    aggregate_class = Account


Account.snapshot_class = AccountSnapshot


class UsernameClaim(Aggregate):
    """A name that is taken for ever. Its id is made from the name, so it can be claimed once."""

    user_id: UUID

    @classmethod
    def claim(cls, claim_id: UUID, *, user_id: UUID) -> Self:
        return cls.begin(UsernameClaimed, claim_id, user_id=user_id)


@dataclass(frozen=True, kw_only=True)
class UsernameClaimed(Created, topic="chatledger.accounts.UsernameClaimed"):
    """A name belongs to a user, and never to another."""

    user_id: UUID

    aggregate_class = UsernameClaim

    def apply(self, aggregate: Any) -> None:
        aggregate.user_id = self.user_id
