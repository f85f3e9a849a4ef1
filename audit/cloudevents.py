"""Events as CloudEvents 1.0 in JSON, for whoever reads the log elsewhere: without personal text.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from typing import Any

import msgspec

from eventstore.domain import TOPICS
from eventstore.encrypted import EncryptedText
from eventstore.instants import rfc3339
from eventstore.reading import RecordedEvent, UnreadableRow

SOURCE = "urn:chatledger"
MEDIA_TYPE = "application/cloudevents-batch+json"
#: The type of what stands for a row that is no event.
UNREADABLE = "chatledger.audit.Unreadable"


def encode(event: RecordedEvent | UnreadableRow) -> bytes | None:
    """One event as one line of JSON; None for a row that is no event."""
    if isinstance(event, UnreadableRow):
        return None
    try:
        return _encode(as_cloudevent(event))
    except (msgspec.MsgspecError, OverflowError, TypeError, ValueError):
        # Its bytes can be read, and still say what no event says: the year 300,000.
        return None


def encode_unreadable(position: int) -> bytes:
    """What stands in an event's place when its row is none: the position, and no more."""
    return _encode(
        {
            "specversion": "1.0",
            "id": f"unreadable-{position}",
            "source": SOURCE,
            "type": UNREADABLE,
            "position": position,
        }
    )


def as_cloudevent(event: RecordedEvent) -> dict[str, Any]:
    """The event with what it says, but for its personal text, and its metadata as extensions."""
    document: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(event.event_id),
        "source": SOURCE,
        "type": event.topic,
        "subject": str(event.stream_id),
        "time": rfc3339(event.at),
        "datacontenttype": "application/json",
        "position": event.position,
        "streamversion": event.version,
    }
    # An attribute without a value is left out: null and "" are none (CloudEvents §3).
    if event.actor:
        document["actor"] = event.actor
    if event.request_id:
        document["requestid"] = event.request_id
    if event.causation_id:
        document["causationid"] = str(event.causation_id)
    document["data"] = _public(event)
    return document


def _public(event: RecordedEvent) -> dict[str, Any]:
    # By name first: whatever stands in a personal field, it does not leave.
    personal = getattr(TOPICS.get(event.topic), "personal", {})
    kept = {name: value for name, value in event.data.items() if name not in personal}
    public: dict[str, Any] = _without_encrypted(kept)
    return public


def _without_encrypted(value: Any) -> Any:
    """What is left of a value: an event of a topic unknown here may hold marks at any depth."""
    if isinstance(value, dict):
        return {k: _without_encrypted(v) for k, v in value.items() if not _is_encrypted(v)}
    if isinstance(value, list):
        return [_without_encrypted(v) for v in value if not _is_encrypted(v)]
    return value


def _is_encrypted(value: Any) -> bool:
    return isinstance(value, EncryptedText) or (isinstance(value, dict) and "box" in value)


_encode = msgspec.json.Encoder().encode
