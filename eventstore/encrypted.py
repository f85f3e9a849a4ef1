"""Personal text as it is stored: encrypted, and bound to the one place where it belongs."""

import os
from base64 import b64encode
from binascii import a2b_base64
from typing import Any
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: AES-GCM's nonce, 96 random bits in front of each ciphertext (NIST SP 800-38D).
NONCE_BYTES = 12
KEY_ID_BYTES = 16


class EncryptedText:
    """A text under the key `key_id`, readable only for this stream, version, topic and field.

    Ids may be given as UUIDs or as their 16 bytes: that is how they are kept, since most texts are
    only passed on, and a UUID takes longer to make than all the rest.
    """

    __slots__ = ("_key", "_stream", "box", "field", "topic", "version")

    def __init__(
        self,
        key_id: UUID | bytes,
        stream_id: UUID | bytes,
        version: int,
        topic: str,
        field: str,
        box: bytes,
    ) -> None:
        self._key = key_id if type(key_id) is bytes else key_id.bytes  # type: ignore[union-attr]  # or a UUID
        self._stream = stream_id if type(stream_id) is bytes else stream_id.bytes  # type: ignore[union-attr]  # the same
        self.version = version
        self.topic = topic
        self.field = field
        self.box = box

    @property
    def key_id(self) -> UUID:
        return UUID(bytes=self._key)

    @property
    def stream_id(self) -> UUID:
        return UUID(bytes=self._stream)

    def pack(self) -> bytes:
        """The text with its place, as read models keep it."""
        return _pack((self._key, self._stream, self.version, self.topic, self.field, self.box))

    @classmethod
    def unpack(cls, packed: bytes) -> "EncryptedText":
        return cls(*_unpack(packed))

    def decrypt(self, cipher: AESGCM) -> str:
        """The text; raises `cryptography.exceptions.InvalidTag` under another key or place."""
        nonce, ciphertext = self.box[:NONCE_BYTES], self.box[NONCE_BYTES:]
        place = _place(self._stream.hex(), self.version, self.topic, self.field)
        return cipher.decrypt(nonce, ciphertext, place).decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EncryptedText) and self.pack() == other.pack()

    def __hash__(self) -> int:
        return hash(self.box)


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[bytes, bytes, int, str, str, bytes]).decode


def _place(stream: str, version: int, topic: str, field: str) -> bytes:
    return f"{stream}|{version}|{topic}|{field}".encode()


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
    box = nonce + cipher.encrypt(nonce, text.encode(), _place(stream_id.hex, version, topic, field))
    return {"key": str(key_id), "box": b64encode(box).decode()}


def with_encrypted_texts(
    data: dict[str, Any], *, stream_id: UUID | str, version: int, topic: str
) -> dict[str, Any]:
    """An event's data with an `EncryptedText` for each mark in it; the stream may come as digits.

    Raises `KeyError`, `TypeError` or `ValueError` for a mark that makes no sense.
    """
    for field, value in data.items():
        if type(value) is dict and "box" in value:
            key = bytes.fromhex(value["key"].replace("-", ""))
            if len(key) != KEY_ID_BYTES:
                raise ValueError(f"{value['key']!r} is not the id of a key")
            stream = bytes.fromhex(stream_id) if type(stream_id) is str else stream_id.bytes  # type: ignore[union-attr]  # or a UUID
            data[field] = EncryptedText(
                key, stream, version, topic, field, a2b_base64(value["box"])
            )
    return data
