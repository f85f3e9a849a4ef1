"""Heads: checkpoints as they are kept outside of the database, to compare it with later."""

import json
from pathlib import Path
from typing import Any

from eventstore.seals.chain import Head
from eventstore.seals.merkle import HASH_BYTES
from eventstore.seals.signing import KEY_ID_DIGITS

#: A page of checkpoints with all their fields is smaller than this.
FILE_BYTES_MAX = 16 * 1024 * 1024


class UnreadableHead(Exception):
    """A file holds no head; the text is one line that says why."""


def read_head(path: Path) -> Head:
    """The head in a file: a checkpoint as `/audit/checkpoints/` shows it, or a list of them.

    Of a list the first is taken, which the API gives newest first. Raises `UnreadableHead`.
    """
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        if len(text) > FILE_BYTES_MAX:
            raise UnreadableHead(f"{path} is over {FILE_BYTES_MAX} bytes long")
        shown = json.loads(text)
    except OSError as error:
        raise UnreadableHead(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableHead(f"{path} is not JSON") from error
    if isinstance(shown, list):
        if not shown:
            raise UnreadableHead(f"{path} holds an empty list and no checkpoint")
        shown = shown[0]
    return _as_head(path, shown)


def _as_head(path: Path, shown: Any) -> Head:
    if not isinstance(shown, dict):
        raise UnreadableHead(f"{path} holds no checkpoint")
    number, key_id = shown.get("number"), shown.get("key_id")
    if type(number) is not int or not 1 <= number < 2**63:
        raise UnreadableHead(f"{path} holds a checkpoint without a number")
    if not isinstance(key_id, str) or len(key_id) != KEY_ID_DIGITS:
        raise UnreadableHead(f"{path} holds a checkpoint without a key_id")
    try:
        digest = bytes.fromhex(shown["hash"])
    except (KeyError, TypeError, ValueError):
        digest = b""
    if len(digest) != HASH_BYTES:
        raise UnreadableHead(f"{path} holds a checkpoint without a hash")
    return Head(number, digest, key_id)
