"""Check that an event is sealed, with nothing of Chatledger's: neither its code nor its database.

    python check_proof.py proof.json keys.json

The proof is the answer of GET /audit/events/POSITION/proof/, or `-` for stdin; the keys are that of
GET /audit/keys/, best one that was kept, or a public key in hexadecimal. Needs `cryptography`.
"""

import json
import struct
import sys
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# How a value is read and shown again: only what comes out as it went in is taken.
NUMBER, HEX, ID = (int, int), (bytes.fromhex, bytes.hex), (UUID, str)
TEXT, BASE64 = (str.encode, bytes.decode), (b64decode, lambda raw: b64encode(raw).decode())
CAUSE = (lambda text: text and UUID(text), lambda cause: cause and str(cause))
TIME = (datetime.fromisoformat, lambda at: at.isoformat(timespec="microseconds")[:-6] + "Z")
PATH = (lambda path: list(map(bytes.fromhex, path)), lambda path: [each.hex() for each in path])
EVENT: dict[str, Any] = {"stream_id": ID, "event_id": ID, "causation_id": CAUSE, "data": BASE64}
EVENT |= {"position": NUMBER, "version": NUMBER, "at": NUMBER}
EVENT |= {"topic": TEXT, "actor": TEXT, "request_id": TEXT}
SEAL: dict[str, Any] = {"number": NUMBER, "first": NUMBER, "last": NUMBER, "root": HEX}
SEAL |= {"previous": HEX, "at": TIME, "key_id": TEXT, "signature": BASE64, "hash": HEX}
PROOF = {"event": EVENT, "leaf_hash": HEX, "index": NUMBER, "path": PATH, "checkpoint": SEAL}


def must(fit: object, what: str) -> None:
    """Refuse the proof where something does not fit."""
    if not fit:
        sys.exit(f"NOT PROVED: {what}")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON that says nothing twice."""
    must(len(dict(pairs)) == len(pairs), "it says something twice")
    return dict(pairs)


def read(shown: Any, form: Any) -> Any:
    """The values of exactly these fields, each of which has one form."""
    if isinstance(form, dict):
        must(shown.keys() == form.keys(), f"it has other fields than {', '.join(form)}")
        return {name: read(shown[name], form[name]) for name in form}
    value = form[0](shown)
    must(json.dumps(form[1](value)) == json.dumps(shown), f"{shown!a} is not how it is written")
    return value


def check(shown: Any, keys: list[bytes]) -> str:
    """What is proved, if the event is exactly what was sealed."""
    proof = read(shown, PROOF)
    event, seal, path = proof["event"], proof["checkpoint"], proof["path"]
    # The leaf: everything that is stored about the event.
    texts = [event[name] for name in ("topic", "data", "actor", "request_id")]
    cause = event["causation_id"]
    ids = [event["stream_id"], event["event_id"], UUID(int=0) if cause is None else cause]
    parts = [event["position"], event["version"], event["at"], *(each.bytes for each in ids)]
    form, lengths = ">18sqqq16s16s16s?IIII", map(len, texts)
    fixed = struct.pack(form, b"chatledger.event.1", *parts, cause is not None, *lengths)
    node = sha256(b"\0" + fixed + b"".join(texts)).digest()
    must(node == proof["leaf_hash"], "the event has another hash")
    # Upwards from it to the root of the Merkle tree (RFC 9162, section 2.1.3.2).
    index, last = event["position"] - seal["first"], seal["last"] - seal["first"]
    must(0 <= index <= last and index == proof["index"], "the checkpoint seals others")
    while last > 0:
        if index % 2:
            node = sha256(b"\1" + path.pop(0) + node).digest()
        elif index < last:
            node = sha256(b"\1" + node + path.pop(0)).digest()
        index, last = index // 2, last // 2
    must(node == seal["root"] and not path, "its path leads to another root")
    # The signature over the root, the checkpoint before, and where and when they stand.
    at = (seal["at"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    places = struct.pack(">qqq", seal["number"], seal["first"], seal["last"])
    hashes = seal["root"] + seal["previous"] + struct.pack(">q", at)
    message = b"chatledger.checkpoint.1" + places + hashes + seal["key_id"]
    must(sha256(message).digest() == seal["hash"], "the checkpoint has another hash")
    known = {sha256(key).hexdigest()[:16].encode(): key for key in keys}
    must(seal["key_id"] in known, "the checkpoint names an unknown key")
    Ed25519PublicKey.from_public_bytes(known[seal["key_id"]]).verify(seal["signature"], message)
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event["at"])
    said = f"{event['topic'].decode()!a} of stream {event['stream_id']} at {TIME[1](time)}"
    return f"checkpoint {seal['number']} seals event {event['position']}, {said}"


def main(proof_file: str, keys: str) -> None:
    """Say OK and what was proved, or what does not fit and exit with status 1."""
    try:
        proof = sys.stdin.read() if proof_file == "-" else Path(proof_file).read_text()
        listed = json.loads(Path(keys).read_text()) if Path(keys).exists() else []
        given = [b64decode(key["public_key"]) for key in listed] or [bytes.fromhex(keys)]
        print("OK:", check(json.loads(proof, object_pairs_hook=once), given))
    except InvalidSignature:
        must(fit=False, what="the signature is not of this key over this checkpoint")
    except Exception as error:  # noqa: BLE001 (whatever is wrong with it, it is no proof)
        must(fit=False, what=f"this is no proof, or these are no keys: {error!r}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
