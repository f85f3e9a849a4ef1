"""The bytes of an event that its seal covers: everything that its row holds.

`docs/seals.md` describes them for other languages; the committed vectors are in the tests. This
encoding is for ever: another one would need another tag.
"""

import struct

#: What the bytes of an event begin with; its number is the version of this encoding.
TAG = b"chatledger.event.1"

#: Position, version, time, the three ids, whether there is a causation id, and four lengths.
_FIXED = struct.Struct(f">{len(TAG)}sqqq16s16s16sBIIII")
_NO_ID = bytes(16)


def encode(
    *,
    position: int,
    stream_id: bytes,
    version: int,
    topic: bytes,
    data: bytes,
    at: int,
    event_id: bytes,
    actor: bytes,
    request_id: bytes,
    causation_id: bytes | None,
) -> bytes:
    """Everything stored about an event, in one form for both databases; ids are 16 bytes each.

    Numbers are signed and big-endian, texts are UTF-8, and no two events have the same bytes.
    """
    return (
        _FIXED.pack(
            TAG,
            position,
            version,
            at,
            stream_id,
            event_id,
            causation_id or _NO_ID,
            causation_id is not None,
            len(topic),
            len(data),
            len(actor),
            len(request_id),
        )
        + topic
        + data
        + actor
        + request_id
    )
