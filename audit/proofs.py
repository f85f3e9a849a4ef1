"""Proofs that an event is sealed: what is stored, and the way from it up to a signed root.

Anybody can check one without this service; `examples/check_proof.py` does, in a page of Python.
"""

import struct
from base64 import b64encode
from typing import Any
from uuid import UUID

from eventstore.seals import checkpoints
from eventstore.seals.checkpoints import Checkpoint
from eventstore.seals.merkle import path
from eventstore.seals.rows import HIGHEST, Row, hash_at, read_rows

#: What reading a seal raises that was changed behind our back: SQLite keeps anything in a column.
DAMAGES = (AttributeError, IndexError, OverflowError, TypeError, ValueError, struct.error)


class EventNotFound(Exception):
    """No event is stored at this position."""


class NotSealedYet(Exception):
    """The event is there, and no checkpoint seals it yet."""


class SealDamaged(Exception):
    """What is stored is in no form that a proof could show; the text says which part."""


def prove(position: int) -> dict[str, Any]:
    """The proof that the event at a position is sealed.

    It is made from the row and the leaves as they are stored now, and is not checked here: a row
    that was changed is shown as it stands, and whoever checks its proof finds that it does not lead
    to the root that was signed.

    Raises `EventNotFound`, `NotSealedYet` or `SealDamaged`.
    """
    rows = read_rows(position - 1, position, 1) if 0 < position <= HIGHEST else []
    try:
        checkpoint = checkpoints.checkpoint_over(min(position, HIGHEST))
        if not rows:
            raise EventNotFound(
                f"No event is stored at position {position}"
                + (f", although checkpoint {checkpoint.number} seals one." if checkpoint else ".")
            )
        if checkpoint is None:
            _refuse_gap(position)
            raise NotSealedYet
        index = position - checkpoint.first
        proof = {
            "index": index,
            "path": [node.hex() for node in path(checkpoint.leaf_hashes, index)],
            "checkpoint": checkpoint.as_json(),
        }
    except DAMAGES as error:
        raise SealDamaged(
            f"The checkpoint over position {position} is not one that this service wrote."
        ) from error
    leaf_hash, event = hash_at(rows[0], position), _as_stored(rows[0])
    if leaf_hash is None or event is None:
        raise SealDamaged(f"The row at position {position} is not one that this service wrote.")
    return {"event": event, "leaf_hash": leaf_hash.hex()} | proof


def list_checkpoints(before: int | None, limit: int) -> list[dict[str, Any]]:
    """Checkpoints with numbers below `before`, newest first; raises `SealDamaged`."""
    try:
        return [found.as_json() for found in checkpoints.checkpoints_before(before, limit)]
    except DAMAGES as error:
        raise SealDamaged("One of the checkpoints is not one that this service wrote.") from error


def list_keys() -> list[dict[str, str]]:
    """The public keys that checkpoints were signed with."""
    return [
        {"id": key_id, "public_key": b64encode(public_key).decode()}
        for key_id, public_key in checkpoints.public_keys().items()
    ]


def _refuse_gap(position: int) -> None:
    latest: Checkpoint | None = checkpoints.latest()
    if latest is not None and latest.last >= position:
        raise SealDamaged(
            f"No checkpoint seals position {position}, although a later one is sealed."
        )


def _as_stored(row: Row) -> dict[str, Any] | None:
    position, version, at, stream_id, event_id, causation_id, topic, data, actor, request_id, _ = (
        row
    )
    try:
        return {
            "position": position,
            "stream_id": _id(stream_id),
            "version": version,
            "topic": topic.decode(),
            "data": b64encode(data).decode(),
            "at": at,
            "event_id": _id(event_id),
            "actor": actor.decode(),
            "request_id": request_id.decode(),
            "causation_id": None if causation_id is None else _id(causation_id),
        }
    except DAMAGES:
        return None


def _id(stored: bytes) -> str:
    # PostgreSQL gives the 16 bytes of an id, SQLite its digits.
    return str(UUID(bytes=stored) if len(stored) == 16 else UUID(hex=stored.decode()))
