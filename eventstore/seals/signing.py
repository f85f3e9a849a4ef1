"""Ed25519 signatures (RFC 8032) of checkpoints, and the ids of their keys."""

from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
#: Hexadecimal digits of a key's id.
KEY_ID_DIGITS = 16


def key_id_of(public_key: bytes) -> str:
    """The id of a public key: the first digits of its SHA-256."""
    return sha256(public_key).hexdigest()[:KEY_ID_DIGITS]


class Signer:
    """Signs with the key that `SEAL_KEY` is the seed of."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """The signature of a message."""
        return self._key.sign(message)


class Signatures:
    """Says whether signatures are those of known keys, each key parsed once."""

    def __init__(self, public_keys: dict[str, bytes]) -> None:
        self._keys = {
            key_id: Ed25519PublicKey.from_public_bytes(public_key)
            for key_id, public_key in public_keys.items()
        }

    def are_of(self, key_id: str, message: bytes, signature: bytes) -> bool:
        """Whether the key of that id signed the message."""
        key = self._keys.get(key_id)
        if key is None:
            return False
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True
