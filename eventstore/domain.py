"""What every aggregate and every event share. Pure: the library and the standard library only.

An event is a frozen dataclass with an explicit topic; its `apply` records what happened and refuses
nothing. An aggregate's methods decide, and then trigger. Replayed from the start, the events give
the aggregate back.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, get_type_hints
from uuid import UUID

from eventsourcing.domain import (
    BaseAggregate,
    CanMutateAggregate,
    CanSnapshotAggregate,
    OriginatorIDError,
    OriginatorVersionError,
)

#: Every event and snapshot class by its topic. A stored topic is looked up here and nowhere else:
#: the library would import whatever module a topic names.
TOPICS: dict[str, "type[Event | AggregateSnapshot]"] = {}

#: The fields of the library's own; everything else is what the event says.
ENVELOPE = frozenset({"originator_id", "originator_version"})


class Refused(Exception):
    """A rule says no. Each rule has an error of its own; nothing was stored."""


class Aggregate(BaseAggregate[UUID]):
    """A consistency boundary with a stream of its own. State holds no nested mutables."""

    #: Whether it is asked for often enough to be kept in memory.
    cached: ClassVar[bool] = False
    #: The snapshot class of an aggregate that lives long enough to need one.
    snapshot_class: ClassVar["type[AggregateSnapshot] | None"] = None

    @classmethod
    def begin(cls, event_class: "type[Created]", stream_id: UUID, **said: Any) -> Self:
        """Start a new stream with its first event."""
        event = event_class(originator_id=stream_id, originator_version=1, **said)
        aggregate: Self = event.mutate(None)
        aggregate.pending_events.append(event)
        return aggregate

    def trigger(self, event_class: "type[Event]", **said: Any) -> None:
        """Record a decision: apply the event now, store it at the next save."""
        event = event_class(originator_id=self._id, originator_version=self._version + 1, **said)
        event.mutate(self)
        self._pending_events.append(event)

    def copy(self) -> Self:
        """A copy that a command may change; the original stays what was stored."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._pending_events = []
        return twin


@dataclass(frozen=True, kw_only=True)
class Event(CanMutateAggregate[UUID]):
    """Something that happened. `topic` names it for ever, wherever its class may move.

    `personal` maps each field that holds personal text to the field that names its key. The
    library's `timestamp` is not used: the log stamps `at` when it stores the event, and that is the
    only time.
    """

    originator_id: UUID
    originator_version: int

    TOPIC: ClassVar[str] = ""
    class_version: ClassVar[int] = 1
    personal: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, topic: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if topic:
            cls.TOPIC = topic
            register(topic, cls)

    def mutate(self, aggregate: Any) -> Any:
        if self.originator_id != aggregate.id:
            raise OriginatorIDError(self.originator_id, aggregate.id)
        if self.originator_version != aggregate.version + 1:
            raise OriginatorVersionError(self.originator_version, aggregate.version + 1)
        self.apply(aggregate)
        aggregate.version = self.originator_version
        return aggregate


@dataclass(frozen=True, kw_only=True)
class Created(Event):
    """The first event of a stream: it makes the aggregate that `aggregate_class` names."""

    aggregate_class: ClassVar[type[Aggregate]]

    def mutate(self, aggregate: Any) -> Any:
        if aggregate is not None:
            raise OriginatorVersionError(self.originator_version, aggregate.version + 1)
        new = object.__new__(self.aggregate_class)
        new.__dict__.update(_id=self.originator_id, _version=1, _pending_events=[])
        self.apply(new)
        return new


@dataclass(frozen=True, kw_only=True)
class AggregateSnapshot(CanSnapshotAggregate[UUID]):
    """An aggregate at a version. Never personal text: a snapshot outlives an erasure."""

    originator_id: UUID
    originator_version: int
    state: dict[str, Any]

    TOPIC: ClassVar[str] = ""
    aggregate_class: ClassVar[type[Aggregate]]

    def __init_subclass__(cls, topic: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.TOPIC = topic
        register(topic, cls)

    @classmethod
    def take(cls, aggregate: Any) -> Self:
        state = {name: value for name, value in vars(aggregate).items() if name[0] != "_"}
        return cls(originator_id=aggregate.id, originator_version=aggregate.version, state=state)

    def fits(self) -> bool:
        """Whether the state has the fields that the aggregate has today."""
        fields: Mapping[str, Any] = vars(self.aggregate_class)["__annotations__"]
        return self.state.keys() == fields.keys()

    def mutate(self, _: None) -> Any:
        aggregate = object.__new__(self.aggregate_class)
        hints = _hints(self.aggregate_class)
        state = {name: _typed(value, hints[name]) for name, value in self.state.items()}
        aggregate.__dict__.update(
            state, _id=self.originator_id, _version=self.originator_version, _pending_events=[]
        )
        return aggregate


def register(topic: str, cls: "type[Event | AggregateSnapshot]") -> None:
    """Give a topic to a class; a topic belongs to one class for ever."""
    known = TOPICS.setdefault(topic, cls)
    if known.__qualname__ != cls.__qualname__:
        raise TypeError(f"the topic {topic!r} belongs to {known.__qualname__} already")


def said(event: Any) -> dict[str, Any]:
    """What an event says: its fields without the envelope."""
    return {name: value for name, value in vars(event).items() if name not in ENVELOPE}


def uuid_fields(event_class: type[Event]) -> frozenset[str]:
    """The fields of an event class that hold ids."""
    hints = get_type_hints(event_class)
    return frozenset(
        field.name
        for field in fields(event_class)
        if field.name not in ENVELOPE and hints[field.name] in (UUID, UUID | None)
    )


@functools.cache
def _hints(aggregate_class: type[Aggregate]) -> dict[str, Any]:
    """The types of an aggregate's fields: looking them up takes longer than to load a snapshot."""
    return get_type_hints(aggregate_class)


def _typed(value: Any, hint: Any) -> Any:
    return UUID(value) if hint in (UUID, UUID | None) and isinstance(value, str) else value
