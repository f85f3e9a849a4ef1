"""Forgetting a user: in one append and one transaction, for ever.

What is pending is cancelled and refunded, `UserErased` ends the account, the keys of the user's
text are destroyed and the credential goes. Amounts, ids and seals stay as they are, since they are
made of what is stored. The name is never given out again.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from django.conf import settings

from accounts.commands import UserNotFound, WrongPassword
from accounts.domain import Account, AccountErased
from accounts.models import Credential
from accounts.passwords import is_password
from conversations.cancel_first import CancelFirst
from conversations.reply_streams import silent_seconds_max
from eventstore import keys
from eventstore.cause import Cause
from eventstore.log import event_log, transaction_with_log
from eventstore.models import EventRecord
from eventstore.reading import clock_now, max_position
from projections.pending import in_flight_of_user

#: Messages whose reply streams one erasure forgets at most, the latest first.
RECENTLY_SENT_MAX = 5_000


class OwnAccount(Exception):
    """Members of staff erase others without a password, but not themselves."""


@dataclass(frozen=True)
class EraseUser:
    """`password`: the user's own, where it is they who ask; `staff_id`: of staff who ask."""

    user_id: UUID
    password: str | None = field(default=None, repr=False)
    staff_id: UUID | None = None


def erase_user(command: EraseUser, cause: Cause) -> int:
    """Forget a user for ever. Returns the position from which on nothing of theirs is shown.

    Raises `UserNotFound`; of a user who asks for it themselves, `WrongPassword` and
    `AccountErased`; of staff who ask for it as if they were somebody else, `OwnAccount`.
    """
    if command.staff_id == command.user_id:
        raise OwnAccount
    if command.password is None:
        return _Erasure(command.user_id, cause).carry_out()
    credential = Credential.objects.filter(user_id=command.user_id).first()
    if credential is None:
        raise AccountErased
    if not is_password(command.password, credential.password_hash):
        raise WrongPassword
    try:
        return _Erasure(command.user_id, cause, credential.password_hash).carry_out()
    except UserNotFound:
        raise AccountErased from None


class _Erasure(CancelFirst):
    """The decision to forget a user."""

    def __init__(self, user_id: UUID, cause: Cause, password_hash: str | None = None) -> None:
        super().__init__(user_id)
        self._cause = cause
        self._password_hash = password_hash

    def pending(self) -> Collection[UUID]:
        return in_flight_of_user(self.user_id).pending

    def decide(self, *, fresh: bool) -> int:
        log = event_log()
        # Before what is pending: of a message that is accepted after this, the account's version
        # tells at the append.
        account = log.find(Account, self.user_id, fresh=fresh)
        if account is not None and account.erased and self.cut_off:
            # It was there before the connection was lost: what became of the commit is known now.
            return max_position()
        if account is None or account.erased:
            raise UserNotFound(str(self.user_id))
        self.was_there = True
        in_flight = in_flight_of_user(self.user_id)
        self.ended_before = {*_recently_sent(self.user_id), *in_flight.just_ended}
        account, parts = self.cancel_all(account, in_flight.pending)
        with transaction_with_log():
            # Under the append lock no conversation begins any more.
            account.erase(keys.wrapped_by(self.user_id))
            position = log.append(*parts, account, cause=self._cause)
            # Behind the append, which encrypts the texts so far.
            keys.destroy_user(self.user_id)
            credential = Credential.objects.filter(user_id=self.user_id)
            if self._password_hash is not None:
                # One that was changed since it was checked was not the password any more.
                credential = credential.filter(password_hash=self._password_hash)
            if not credential.delete()[0] and self._password_hash is not None:
                raise WrongPassword
        return position


def _recently_sent(user_id: UUID) -> list[UUID]:
    """The messages of a user whose reply streams may hold text, pending or ended."""
    lasts_seconds = settings.RESPONSE_DEADLINE_SECONDS + silent_seconds_max()
    since = clock_now() - lasts_seconds * 1_000_000
    debits = EventRecord.objects.filter(
        stream_id=user_id, topic="chatledger.accounts.TokensDebited", at__gte=since
    )
    said = debits.order_by("-version").values_list("data", flat=True)
    return [UUID(_decode(data)["message_id"]) for data in said[:RECENTLY_SENT_MAX]]


_decode = msgspec.json.Decoder(dict[str, Any]).decode
