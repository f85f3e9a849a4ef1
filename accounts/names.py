"""Usernames: which are allowed, which are the same, and whose they are."""

import hashlib
import hmac
import re
from collections.abc import Callable
from uuid import NAMESPACE_URL, UUID, uuid5

from accounts.domain import Account, UsernameClaim
from eventstore import keys
from eventstore.log import event_log

#: What a username may be (contract): 3 to 50 of these characters, kept as written.
USERNAME_PATTERN = r"^[A-Za-z0-9_.-]{3,50}$"

_CLAIMS = uuid5(NAMESPACE_URL, "chatledger:username-claim")


def claim_id(username: str) -> UUID:
    """The stream on which a name is claimed; names that casefold alike share it.

    It is made with a secret, since from a plain hash of a name the name could be guessed.
    """
    digest = hmac.new(keys.names_key(), username.casefold().encode(), hashlib.sha256).hexdigest()
    return uuid5(_CLAIMS, digest)


class AmbiguousUser(Exception):
    """What an operator called a user is the id of one and the name of another."""

    def __init__(self, called: str) -> None:
        super().__init__(
            f"{called} is the id of one user and the name of another; "
            f"say id:{called} or name:{called}"
        )


def find_user(called: str) -> UUID | None:
    """The user whom an operator means, out of the log alone; None when there never was one.

    Raises `AmbiguousUser`.
    """
    return whom(called, with_id=_with_id, with_name=_with_name)


def whom(
    called: str,
    *,
    with_id: Callable[[UUID], UUID | None],
    with_name: Callable[[str], UUID | None],
) -> UUID | None:
    """The user who is called so, by name or by id; `id:` or `name:` in front leaves one of them.

    Names may look like ids, and everybody sees everybody's id: so neither may stand in for the
    other. Raises `AmbiguousUser`.
    """
    kind, colon, rest = called.partition(":")
    if not colon or kind not in ("id", "name"):
        kind, rest = "", called
    by_id = by_name = None
    if kind != "name" and (user_id := _as_id(rest)):
        by_id = with_id(user_id)
    if kind != "id" and re.fullmatch(USERNAME_PATTERN, rest):
        by_name = with_name(rest)
    if by_id and by_name and by_id != by_name:
        raise AmbiguousUser(called)
    return by_id or by_name


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _with_id(user_id: UUID) -> UUID | None:
    return user_id if event_log().find(Account, user_id) else None


def _with_name(username: str) -> UUID | None:
    claim = event_log().find(UsernameClaim, claim_id(username))
    return claim.user_id if claim else None
