"""Check that an event is sealed, with nothing of Chatledger's: neither its code nor its database.

    curl -H "Authorization: Bearer $JWT" $URL/audit/events/7/proof/ > proof.json
    curl -H "Authorization: Bearer $JWT" $URL/audit/keys/ > keys.json
    python check_proof.py proof.json keys.json

A file of keys that you kept is worth more than one that you just got; the 64 hexadecimal digits of
one public key go in the same place. `-` is the proof on stdin. Needs Python's `cryptography`.
"""

import json
import struct
import sys
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def leaf_of(event: dict[str, Any]) -> bytes:
    """The hash of everything that is stored about the event, in one form of bytes."""
    topic, actor, request = (event[name].encode() for name in ("topic", "actor", "request_id"))
    texts = [topic, b64decode(event["data"], validate=True), actor, request]
    numbers = [event["position"], event["version"], event["at"]]
    cause = event["causation_id"]
    ids = [UUID(event[name]).bytes for name in ("stream_id", "event_id")]
    ids.append(bytes(16) if cause is None else UUID(cause).bytes)
    lengths = [len(text) for text in texts]
    parts = [b"chatledger.event.1", *numbers, *ids, cause is not None]
    fixed = struct.pack(">18sqqq16s16s16s?IIII", *parts, *lengths)
    return sha256(b"\0" + fixed + b"".join(texts)).digest()


def root_above(node: bytes, index: int, last: int, path: list[str]) -> bytes:
    """The root of the Merkle tree, upwards from a leaf (RFC 9162, section 2.1.3.2)."""
    siblings = [bytes.fromhex(sibling) for sibling in path]
    while last > 0:
        if index % 2:
            node = sha256(b"\1" + siblings.pop(0) + node).digest()
        elif index < last:
            node = sha256(b"\1" + node + siblings.pop(0)).digest()
        index, last = index // 2, last // 2
    return node if not siblings else b""


def signed_bytes(seal: dict[str, Any]) -> bytes:
    """What the signature covers: the root, the checkpoint before, and where and when they stand."""
    at = datetime.fromisoformat(seal["at"]) - datetime(1970, 1, 1, tzinfo=UTC)
    numbers = struct.pack(">qqq", seal["number"], seal["first"], seal["last"])
    hashes = bytes.fromhex(seal["root"]) + bytes.fromhex(seal["previous"])
    when = struct.pack(">q", at // timedelta(microseconds=1))
    key_id: str = seal["key_id"]
    return b"chatledger.checkpoint.1" + numbers + hashes + when + key_id.encode()


def must(what: str, *, fit: bool) -> None:
    """Refuse the proof where something does not fit."""
    if not fit:
        sys.exit(f"NOT PROVED: {what}")


def check(proof: dict[str, Any], keys: list[bytes]) -> None:
    """Come back only if the event is exactly what was sealed."""
    event, seal = proof["event"], proof["checkpoint"]
    index, last = event["position"] - seal["first"], seal["last"] - seal["first"]
    leaf, message = leaf_of(event), signed_bytes(seal)
    must("the event has another hash", fit=leaf.hex() == proof["leaf_hash"])
    must("the checkpoint seals others", fit=0 <= index <= last and index == proof["index"])
    root = root_above(leaf, index, last, proof["path"])
    must("its path leads to another root", fit=root.hex() == seal["root"])
    must("the checkpoint has another hash", fit=sha256(message).hexdigest() == seal["hash"])
    known = {sha256(key).hexdigest()[:16]: key for key in keys}
    must("the checkpoint names an unknown key", fit=seal["key_id"] in known)
    signature = b64decode(seal["signature"], validate=True)
    Ed25519PublicKey.from_public_bytes(known[seal["key_id"]]).verify(signature, message)


def main(proof_file: str, keys: str) -> None:
    """Say OK, or what does not fit and exit with status 1."""
    try:
        proof = json.loads(sys.stdin.read() if proof_file == "-" else Path(proof_file).read_text())
        listed = json.loads(Path(keys).read_text()) if Path(keys).exists() else []
        given = [b64decode(key["public_key"]) for key in listed] or [bytes.fromhex(keys)]
        check(proof, given)
    except InvalidSignature:
        must("the signature is not of this key over this checkpoint", fit=False)
    except (AttributeError, LookupError, OSError, TypeError, ValueError, struct.error) as error:
        must(f"this is no proof, or these are no keys: {error!r}", fit=False)
    print(
        f"OK: checkpoint {proof['checkpoint']['number']} seals event {proof['event']['position']}"
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
