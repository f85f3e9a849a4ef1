"""Personal text as it is stored: encrypted, and bound to the one place where it belongs."""

import os
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: AES-GCM's nonce, 96 random bits in front of each ciphertext (NIST SP 800-38D).
NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class EncryptedText:
    """A text under the key `key_id`, readable only for this stream, version, topic and field."""

    key_id: UUID
    stream_id: UUID
    version: int
    topic: str
    field: str
    box: bytes

    def pack(self) -> bytes:
        """The text with its place, as read models keep it."""
        return _packer.encode(
            (
                self.key_id.bytes,
                self.stream_id.bytes,
                self.version,
                self.topic,
                self.field,
                self.box,
            )
        )

    @classmethod
    def unpack(cls, packed: bytes) -> "EncryptedText":
        key_id, stream_id, version, topic, field, box = _unpacker.decode(packed)
        return cls(UUID(bytes=key_id), UUID(bytes=stream_id), version, topic, field, box)

    def decrypt(self, cipher: AESGCM) -> str:
        """The text; raises `cryptography.exceptions.InvalidTag` under another key or place."""
        nonce, ciphertext = self.box[:NONCE_BYTES], self.box[NONCE_BYTES:]
        place = _place(self.stream_id, self.version, self.topic, self.field)
        return cipher.decrypt(nonce, ciphertext, place).decode()


_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(tuple[bytes, bytes, int, str, str, bytes])


def _place(stream_id: UUID, version: int, topic: str, field: str) -> bytes:
    return f"{stream_id.hex}|{version}|{topic}|{field}".encode()


def encrypt(
    text: str,
    cipher: AESGCM,
    *,
    key_id: UUID,
    stream_id: UUID,
    version: int,
    topic: str,
    field: str,
) -> dict[str, Any]:
    """The mark that stands for `text` in an event's data: the key's id and the ciphertext."""
    nonce = os.urandom(NONCE_BYTES)
    box = nonce + cipher.encrypt(nonce, text.encode(), _place(stream_id, version, topic, field))
    return {"key": str(key_id), "box": b64encode(box).decode()}


def with_encrypted_texts(
    data: dict[str, Any], *, stream_id: UUID, version: int, topic: str
) -> dict[str, Any]:
    """An event's data with an `EncryptedText` for each mark in it."""
    for field, value in data.items():
        if type(value) is dict and "box" in value:
            data[field] = EncryptedText(
                UUID(value["key"]), stream_id, version, topic, field, b64decode(value["box"])
            )
    return data
