"""Usernames: which are allowed, and which are the same."""

import hashlib
import hmac
from uuid import NAMESPACE_URL, UUID, uuid5

from eventstore import keys

#: What a username may be (contract): 3 to 50 of these characters, kept as written.
USERNAME_PATTERN = r"^[A-Za-z0-9_.-]{3,50}$"

_CLAIMS = uuid5(NAMESPACE_URL, "chatledger:username-claim")


def claim_id(username: str) -> UUID:
    """The stream on which a name is claimed; names that casefold alike share it.

    It is made with a secret, since from a plain hash of a name the name could be guessed.
    """
    digest = hmac.new(keys.names_key(), username.casefold().encode(), hashlib.sha256).hexdigest()
    return uuid5(_CLAIMS, digest)
