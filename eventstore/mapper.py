"""Events to stored bytes and back: JSON by msgspec, personal text encrypted field by field."""

from typing import Any
from uuid import UUID

import msgspec
from eventsourcing.persistence import Mapper, MapperDeserialisationError, StoredEvent

from eventstore import keys
from eventstore.domain import TOPICS, AggregateSnapshot, Event, said, uuid_fields
from eventstore.encrypted import EncryptedText, encrypt, with_encrypted_texts
from eventstore.reading import RecordedEvent


class UnknownTopic(Exception):
    """The log holds an event that this version of the program does not know."""


class FieldMapper(Mapper[UUID]):
    """The library's mapper with our own topics, and with a key for each personal field."""

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        event = domain_event
        data = said(event)
        for name, key_field in getattr(event, "personal", {}).items():
            if data[name] is not None:
                data[name] = _encrypted(event, name, getattr(event, key_field))
        if getattr(event, "class_version", 1) > 1:
            data["class_version"] = event.class_version
        return StoredEvent(
            originator_id=event.originator_id,
            originator_version=event.originator_version,
            topic=event.TOPIC,
            state=_encode(data),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        cls = _class_of(stored_event.topic)
        try:
            data = _decode(stored_event.state)
        except msgspec.DecodeError as error:
            raise MapperDeserialisationError(
                f"{stored_event.topic} of stream {stored_event.originator_id} is not JSON: {error}"
            ) from error
        if issubclass(cls, Event):
            data = with_encrypted_texts(
                data,
                stream_id=stored_event.originator_id,
                version=stored_event.originator_version,
                topic=stored_event.topic,
            )
        return _made(cls, stored_event.originator_id, stored_event.originator_version, data)

    def from_recorded(self, event: RecordedEvent, *, decrypted: bool = True) -> Any:
        """The domain event of one that was read as followers read."""
        cls, data = _class_of(event.topic), dict(event.data)
        return _made(cls, event.stream_id, event.version, data, decrypted=decrypted)


def _made(
    cls: Any, stream_id: Any, version: int, data: dict[str, Any], *, decrypted: bool = True
) -> Any:
    if issubclass(cls, Event):
        if decrypted:
            _decrypt(data)
        for older in range(data.pop("class_version", 1), cls.class_version):
            getattr(cls, f"upcast_v{older}_v{older + 1}")(data)
        for name in _uuid_fields(cls):
            if data[name] is not None:
                data[name] = UUID(data[name])
    event = object.__new__(cls)
    event.__dict__.update(data, originator_id=stream_id, originator_version=version)
    return event


def _class_of(topic: str) -> type[Event] | type[AggregateSnapshot]:
    try:
        return TOPICS[topic]
    except KeyError:
        raise UnknownTopic(
            f"the log holds {topic!r}, which this version does not know; did a newer one write it?"
        ) from None


def _encrypted(event: Event, name: str, key_id: UUID) -> dict[str, Any] | None:
    try:
        cipher = keys.cipher(key_id)
    except keys.KeyDestroyed:
        # What comes after an erasure is recorded without its text.
        return None
    return encrypt(
        getattr(event, name),
        cipher,
        key_id=key_id,
        stream_id=event.originator_id,
        version=event.originator_version,
        topic=event.TOPIC,
        field=name,
    )


def _decrypt(data: dict[str, Any]) -> None:
    texts = {name: value for name, value in data.items() if isinstance(value, EncryptedText)}
    if texts:
        data.update(zip(texts, keys.decrypt_all(list(texts.values())), strict=True))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_uuid_fields_of: dict[type[Event], frozenset[str]] = {}


def _uuid_fields(cls: type[Event]) -> frozenset[str]:
    known = _uuid_fields_of.get(cls)
    if known is None:
        known = _uuid_fields_of[cls] = uuid_fields(cls)
    return known
