"""Usernames: which are allowed, which are the same, and whose they are."""

import hashlib
import hmac
import re
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


def find_user(name_or_id: str) -> UUID | None:
    """The user whom an operator means, out of the log alone; None when there never was one.

    An id comes first: names may look like one, and everybody sees everybody's id.
    """
    try:
        user_id = UUID(name_or_id)
    except ValueError:
        pass
    else:
        if event_log().find(Account, user_id) is not None:
            return user_id
    if not re.fullmatch(USERNAME_PATTERN, name_or_id):
        return None
    claim = event_log().find(UsernameClaim, claim_id(name_or_id))
    return None if claim is None else claim.user_id
