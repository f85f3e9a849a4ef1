"""Checkpoints: what each says and signs, and reading them.

Each seals the events from `first` to `last` by the root of one Merkle tree over their leaves, and
the checkpoint before it by its hash: so they form a chain.
"""

import struct
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from django.db import connection

from eventstore.clock import to_datetime
from eventstore.seals.merkle import HASH_BYTES
from eventstore.seals.signing import KEY_ID_DIGITS

#: What a signed message begins with; its number is the version of its form.
TAG = b"chatledger.checkpoint.1"
#: What the first checkpoint names as the hash of the one before.
NO_PREVIOUS = bytes(HASH_BYTES)

_MESSAGE = struct.Struct(f">{len(TAG)}sqqq{HASH_BYTES}s{HASH_BYTES}sq{KEY_ID_DIGITS}s")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A seal over the events from `first` to `last`, both included.

    `leaves` are the leaf hashes in the order of the positions, 32 bytes each; empty where they were
    not read. `at` counts microseconds since the epoch (UTC), by the database's clock.
    """

    number: int
    first: int
    last: int
    root: bytes
    leaves: bytes
    previous: bytes
    at: int
    key_id: str
    signature: bytes

    @property
    def message(self) -> bytes:
        """The signed bytes. The leaves are not among them: the root covers them."""
        return _MESSAGE.pack(
            TAG,
            self.number,
            self.first,
            self.last,
            self.root,
            self.previous,
            self.at,
            self.key_id.encode(),
        )

    @property
    def hash(self) -> bytes:
        """What the next checkpoint names as `previous`."""
        return sha256(self.message).digest()

    @property
    def size(self) -> int:
        """How many events it seals."""
        return self.last - self.first + 1

    @property
    def leaf_hashes(self) -> list[bytes]:
        """The leaf hashes one by one; that of a position stands at `position - first`."""
        return split(self.leaves)

    def signed(self, signature: bytes) -> "Checkpoint":
        """The same checkpoint with its signature."""
        return replace(self, signature=signature)

    def as_json(self) -> dict[str, Any]:
        """The checkpoint as the API and head files show it."""
        at = to_datetime(self.at).replace(tzinfo=None).isoformat(timespec="microseconds")
        return {
            "number": self.number,
            "first": self.first,
            "last": self.last,
            "root": self.root.hex(),
            "previous": self.previous.hex(),
            "at": f"{at}Z",
            "key_id": self.key_id,
            "signature": b64encode(self.signature).decode(),
            "hash": self.hash.hex(),
        }


def split(leaves: bytes) -> list[bytes]:
    """Leaf hashes as they are stored, one by one."""
    return [leaves[start : start + HASH_BYTES] for start in range(0, len(leaves), HASH_BYTES)]


def latest() -> Checkpoint | None:
    """The newest checkpoint, None before there is one."""
    return _first("ORDER BY number DESC LIMIT 1")


def read_checkpoint(number: int) -> Checkpoint | None:
    """The checkpoint of that number."""
    return _first("WHERE number = %s", number)


def checkpoint_over(position: int) -> Checkpoint | None:
    """The checkpoint that seals the event at a position, None for one that is not sealed yet."""
    found = _first("WHERE last >= %s ORDER BY last LIMIT 1", position)
    return found if found is not None and found.first <= position else None


def checkpoints_before(before: int | None, limit: int) -> list[Checkpoint]:
    """Checkpoints with numbers below `before`, newest first, without their leaves."""
    bound = "" if before is None else "WHERE number < %s "
    parameters = [limit] if before is None else [before, limit]
    return _read(f"{bound}ORDER BY number DESC LIMIT %s", parameters, leaves="NULL")


def public_keys() -> dict[str, bytes]:
    """The public keys that checkpoints were signed with, by their ids."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, public_key FROM eventstore_sealkey ORDER BY id")
        return {key_id: bytes(public_key) for key_id, public_key in cursor.fetchall()}


def _first(which: str, *parameters: Any) -> Checkpoint | None:
    return next(iter(_read(which, parameters)), None)


def _read(which: str, parameters: Sequence[Any], *, leaves: str = "leaves") -> list[Checkpoint]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT number, first, last, root, {leaves}, previous, at, key_id, signature"  # noqa: S608 (constants)
            f" FROM eventstore_checkpoint {which}",
            parameters,
        )
        return [
            Checkpoint(
                number,
                first,
                last,
                bytes(root),
                bytes(leaf_hashes or b""),
                bytes(previous),
                at,
                key_id,
                bytes(signature),
            )
            for (
                number,
                first,
                last,
                root,
                leaf_hashes,
                previous,
                at,
                key_id,
                signature,
            ) in cursor.fetchall()
        ]
