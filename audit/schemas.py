"""What auditors get: checkpoints, keys and proofs, and how the document describes an event."""

from typing import Any
from uuid import UUID

from pydantic import Field

from accounts.schemas import Answer

_HASH: dict[str, Any] = {"pattern": "^[0-9a-f]{64}$"}
_TIME: dict[str, Any] = {"format": "date-time"}


class Checkpoint(Answer):
    """A signed seal over the events from `first` to `last`, and over the checkpoint before."""

    number: int = Field(description="counts from 1")
    first: int = Field(description="the position of the first event")
    last: int = Field(description="the position of the last event")
    root: str = Field(
        description="the root of the Merkle tree over the events (RFC 9162), SHA-256",
        json_schema_extra=_HASH,
    )
    previous: str = Field(
        description="the hash of the checkpoint before; zeros in the first", json_schema_extra=_HASH
    )
    at: str = Field(description="when it was made", json_schema_extra=_TIME)
    key_id: str = Field(description="which key signed it", examples=["9c1a3f5b7d2e4860"])
    signature: str = Field(description="Ed25519, base64")
    hash: str = Field(description="what the next one names as `previous`", json_schema_extra=_HASH)


class PublicKey(Answer):
    """A public key that checkpoints were signed with."""

    id: str = Field(
        description="the first 16 hexadecimal digits of the key's SHA-256",
        examples=["9c1a3f5b7d2e4860"],
    )
    public_key: str = Field(description="Ed25519, 32 bytes in base64")


class StoredEvent(Answer):
    """An event as it is stored; personal text in its data is encrypted."""

    position: int
    stream_id: UUID
    version: int
    topic: str = Field(examples=["chatledger.accounts.TokensDebited"])
    data: str = Field(description="the stored bytes, in base64")
    at: int = Field(description="microseconds since 1970-01-01 UTC", examples=[1794916800000007])
    event_id: UUID
    actor: str = Field(examples=["worker"])
    request_id: str
    causation_id: UUID | None


class Proof(Answer):
    """An event, and the way from it up to a signed root."""

    event: StoredEvent
    leaf_hash: str = Field(
        description="the hash of everything stored about the event, SHA-256",
        json_schema_extra=_HASH,
    )
    index: int = Field(description="the event's place in the checkpoint, from 0")
    path: list[str] = Field(description="hashes beside the way from the leaf up to the root")
    checkpoint: Checkpoint


#: An event of the batch. Not a model: nothing reads one, and a million are written.
CLOUD_EVENT: dict[str, Any] = {
    "title": "CloudEvent",
    "description": "An event as a CloudEvent 1.0, without personal text. A row that is no event "
    "has the type `chatledger.audit.Unreadable`, and only the attributes that are required.",
    "type": "object",
    "required": ["specversion", "id", "source", "type", "position"],
    "properties": {
        "specversion": {"type": "string", "const": "1.0"},
        "id": {"type": "string", "description": "the event's id"},
        "source": {"type": "string", "const": "urn:chatledger"},
        "type": {"type": "string", "description": "the event's topic"},
        "subject": {"type": "string", "format": "uuid", "description": "the stream's id"},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"type": "string", "const": "application/json"},
        "position": {"type": "integer", "description": "its place in the log, from 1"},
        "streamversion": {"type": "integer", "description": "its place in the stream, from 1"},
        "actor": {"type": "string", "description": "who caused it"},
        "requestid": {"type": "string", "description": "the request that caused it"},
        "causationid": {"type": "string", "format": "uuid", "description": "the event before"},
        "data": {"type": "object", "description": "what it says"},
    },
    "additionalProperties": False,
}
